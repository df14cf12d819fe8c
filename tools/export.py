"""
Turn a checkpoint into a folder that Hugging Face's transformers reads.

    python tools/export.py --out_dir=out-eca-char --to=hf-eca-char
    python tools/export.py --out_dir=out-eca-char --to=eca/ckpt.pt

A file is a checkpoint to give away, to sample from: the model alone, in float16, a quarter of the size or less. A
folder is for transformers, wherever that is installed:

    from transformers import pipeline
    print(pipeline('text-generation', 'hf-eca-char')('Meu caro', do_sample=True)[0]['generated_text'])
"""

import os
import re
import sys

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))   # the repository
sys.path.insert(0, _root)
import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import torch

from support.checkpoints import checkpoint_tokenizer, load_checkpoint, save_checkpoint
from support.devices import FLOAT16_MAX, largest_weight
from support.errors import catch_crashes, fail, first_line
from support.files import making_folder
from support.tokenizer import GPT2_SPLIT, check_transformers, gpt2_tokens, word_gap

catch_crashes()

# -----------------------------------------------------------------------------
# settings
out_dir = 'out'         # the folder that train.py wrote
to = 'hf-model'         # the folder to make, or a file: NAME.pt
# -----------------------------------------------------------------------------
exec(open(os.path.join(_root, 'configurator.py'), encoding='utf-8').read())
# -----------------------------------------------------------------------------

to = os.path.normpath(to)
if os.path.exists(to):
    fail(f'to = {to} is there already; remove it, or choose another name')
model, checkpoint = load_checkpoint(os.path.join(out_dir, 'ckpt.pt'))
tokenizer = checkpoint_tokenizer(checkpoint)
c = model.config

# a file: the model alone, in float16
if to.endswith('.pt'):
    try:
        os.makedirs(os.path.dirname(to) or '.', exist_ok=True)
    except OSError as e:
        fail(f'to = {to} could not be written: {e.strerror}')
    largest = largest_weight(model.parameters())
    if largest <= FLOAT16_MAX:
        model.half()
    else:
        print(f'in float32, since float16 ends at {FLOAT16_MAX}, and a weight is {largest:.6g}')
    alone = {'model': model.state_dict(), 'tokenizer': tokenizer}
    for key in ('model_args', 'best_val_loss', 'config'):
        if key in checkpoint:
            alone[key] = checkpoint[key]
    save_checkpoint(alone, to)
    print(f'wrote {to}: {os.path.getsize(to) / 1e6:.2f} MB')
    raise SystemExit

# a folder: transformers' classes
if tokenizer['kind'] == 'ids':
    fail("the text of the model's tokens is not known, and a folder needs a tokenizer; export a file instead, "
         '--to=NAME.pt')
check_transformers('a folder')
try:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar
    from transformers.convert_slow_tokenizer import TikTokenConverter
except Exception as e:   # a package that it needs is missing, or of another version
    fail(f'transformers does not load: {first_line(e)}')
disable_progress_bar()   # it takes a second

# tokenizer: a fast one, which knows nothing but tokenizer.json
end = tokenizer.get('eos')   # the token that ends a document; characters have none
if tokenizer['kind'] == 'char' and word_gap(tokenizer['itos']):   # words with a space between them
    words = {word: i for i, word in enumerate(tokenizer['itos'])}
    fast = Tokenizer(models.WordPiece(words, continuing_subword_prefix='', max_input_chars_per_word=10**6))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
elif tokenizer['kind'] == 'char':   # characters, or words that bring their own spaces: the longest first
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(tokenizer['itos'])}))
    longest_first = sorted(tokenizer['itos'], key=len, reverse=True)
    fast.pre_tokenizer = pre_tokenizers.Split(Regex('|'.join(map(re.escape, longest_first))), 'isolated')
    fast.decoder = decoders.Fuse()   # no spaces between them
elif tokenizer['kind'] == 'gpt2':
    end = '<|endoftext|>'
    ranks = {token: i for i, token in enumerate(gpt2_tokens(tokenizer))}
    converter = TikTokenConverter(pattern=GPT2_SPLIT, extra_special_tokens=[end])
    converter.load_tiktoken_bpe = lambda path: ranks   # it would read them from a file
    fast = converter.converted()
else:
    fast = Tokenizer.from_str(tokenizer['json'])


def least_likely():
    """The id of the token that the model writes least, by a text of its own."""
    torch.manual_seed(0)
    idx = model.eval().generate(torch.zeros(1, 1, dtype=torch.long), c.block_size)[:, -c.block_size:]
    with torch.no_grad():
        logits, _ = model(idx, idx)   # with targets, whatever they are, there are logits of all positions
    return logits[0, :, :fast.get_vocab_size()].softmax(dim=-1).mean(dim=0).argmin().item()


# padding: fills the shorter texts of a batch, on the left, where nobody sees it
pad = end
if end is None:   # it must be a token of the text, and transformers shows none of those: one that will not be missed
    pad = fast.id_to_token(least_likely())
    print(f'no token ends a text: writing goes on to max_length; batches are padded with {pad!r}, which transformers '
          'will not write')
    begin = fast.token_to_id('\n') or 0   # as sample.py begins a text, if nobody gives one
    print(f'lm-eval: its tasks that score texts need --model_args pretrained={to},prefix_token_id={begin}; those that '
          'generate need a token that ends a text')
    pad = AddedToken(pad, single_word=True, special=True)   # not where a longer word has it in it
hf_tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=fast, bos_token=end, eos_token=end, pad_token=pad, padding_side='left',
    split_special_tokens=end is None, model_max_length=c.block_size, clean_up_tokenization_spaces=False,
    model_input_names=['input_ids', 'attention_mask'])

# model: a GPT-2 of this shape; padding of the vocabulary is cut off
end_id = hf_tokenizer.eos_token_id
dropout = checkpoint['model_args']['dropout']
hf_model = GPT2LMHeadModel(GPT2Config(
    vocab_size=min(c.vocab_size, len(hf_tokenizer)), n_positions=c.block_size, n_layer=c.n_layer, n_head=c.n_head,
    n_embd=c.n_embd, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
    n_ctx=c.block_size,   # n_positions once more, as in OpenAI's config.json: mlx-lm asks for it
    bos_token_id=end_id, eos_token_id=end_id, pad_token_id=hf_tokenizer.pad_token_id))
hf_model.generation_config.max_length = c.block_size   # pipelines would go on beyond the last position
if end is None:
    hf_model.generation_config.suppress_tokens = [hf_tokenizer.pad_token_id]

# weights: the names are the same
ours = model.state_dict()
for key, weight in hf_model.state_dict().items():
    if key not in ours:   # a bias, which GPT-2 has and a model without biases lacks
        weight.zero_()
    elif key.endswith(('c_attn.weight', 'c_fc.weight', 'c_proj.weight')):
        weight.copy_(ours[key].T)   # GPT-2's Conv1D keeps them as (in, out)
    else:
        weight.copy_(ours[key][:len(weight)])

# the names in the file are those in OpenAI's, which all know: mlx-lm does not take `transformer.` before them
weights = hf_model.transformer.state_dict()

try:
    with making_folder(to) as folder:
        hf_model.save_pretrained(folder, state_dict=weights)
        hf_tokenizer.save_pretrained(folder)
except Exception as e:   # safetensors has errors of its own for a full disk
    fail(f'to = {to} could not be written: {first_line(e)}')
print(f'wrote {to}: {hf_model.num_parameters() / 1e6:.2f}M parameters, {len(hf_tokenizer):,} tokens')
