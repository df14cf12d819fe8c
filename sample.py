"""
Let a trained GPT write.

    python sample.py --out_dir=assets/eca-mini     # the model that comes along
    python sample.py --out_dir=out-eca-char --start="Meu caro" --num_samples=3
    python sample.py --out_dir=out-eca-char --num_samples=1 --stream
    python sample.py --out_dir=out-eca-char --interactive
"""

import support.interrupt   # noqa: F401   first: from here on Ctrl-C ends the script without a traceback

import os
import sys

import torch

from support import checkpoints, devices, terminal
from support.errors import catch_crashes, fail
from support.settings import check_sample_settings
from support.tokenizer import get_codec

catch_crashes()   # Ctrl-C, memory that runs out, a full disk: one line instead of a traceback

# -----------------------------------------------------------------------------
# settings
init_from = 'resume'    # the model in out_dir; a folder, 'gpt2', a Hub id
out_dir = 'out'         # the folder that train.py wrote
start = '\n'            # the prompt; FILE:name reads a file, - the input
num_samples = 10        # samples to write, drawn together
max_new_tokens = 500    # tokens in each, after the prompt
temperature = 0.8       # 1.0 as learned; lower is safer; 0.0: likeliest
top_k = 200             # draw from this many likeliest; 0: all
top_p = 1.0             # draw from the fewest that hold this probability
stop = ''               # samples end before this; \n is a new line
keep = 0                # tokens of a full window to read again; 0: half
stream = False          # True: show the samples while they are written
interactive = False     # True: go on with each line typed; Ctrl-D ends
out = ''                # a file to write to, instead of the screen
seed = 1337             # same seed, same text, on the same device
device = 'auto'         # CUDA, else MPS, else CPU; or one by name
dtype = 'auto'          # float32, bfloat16, float16; auto: what is fast
compile = 'false'       # torch.compile pays only for very long samples
# -----------------------------------------------------------------------------
# configurator.py overrides these settings from the command line: --name=value
exec(open(os.path.join(os.path.dirname(__file__), 'configurator.py'), encoding='utf-8').read())
check_sample_settings(globals())
if interactive and (out or start == '-'):
    fail('interactive reads the standard input line by line, and writes to the screen; leave out --out= and --start=-')
if out:
    terminal.check_samples_file(out)   # exits unless it is a new file, or one of samples
# -----------------------------------------------------------------------------

# device: the settings 'auto' become what is best on this machine
device = devices.pick_device(device)
is_compile_asked = compile.lower() != 'false'
compile, compile_reason = devices.pick_compile(compile, device)
devices.speed_up(device)

# model and tokenizer
model, tokenizer = checkpoints.load_model(init_from, out_dir)
encode, decode = get_codec(tokenizer, vocab_size=model.config.vocab_size)
dtype = devices.pick_sampling_dtype(dtype, device, model)   # exits if float16 was asked for, and a weight is beyond it
amp = devices.prepare_sampling(model, device, dtype)   # model.eval(), to the device; a context for matmuls in dtype
if compile:
    model.forward = torch.compile(model.forward)
if not 0 <= keep <= model.config.block_size:
    fail(f"keep = {keep} is not between 0 and the model's block_size = {model.config.block_size}")

# the prompt, as token ids and, as those spell it, as text
prompt = encode(terminal.read_prompt(start))
start = decode(prompt)
stop = stop.replace('\\n', '\n')
hint = f'tokens in the prompt: {len(prompt)}'
if interactive:
    hint = 'type how a text begins; an empty line goes on with the last one; Ctrl-D ends'
# standard output is for the text alone
chosen = f'device: {device}, dtype: {dtype}'
if is_compile_asked:
    chosen += f', compile: {compile} ({compile_reason})'
print(f'{chosen}\n{hint}', file=sys.stderr)


def continuations(prompt, samples):
    """(texts, whether `stop` has ended each): what the samples, lists of new token ids, add to the prompt's ids."""
    context = prompt[-8:]   # some tokenizers decode a token by those before it; eight are enough
    n_context = len(decode(context))
    texts = []
    are_complete = []
    for ids in samples:
        text = decode(context + ids)[n_context:]
        is_complete = stop != '' and stop in text
        if is_complete:
            text = text[:text.index(stop)]
        texts.append(text)
        are_complete.append(is_complete)
    return texts, are_complete


def write(prompt, num_samples, screen=None):
    """(samples, texts): what continues the prompt's ids, as lists of new ids and as text; it grows on the screen."""
    idx = torch.tensor([prompt], dtype=torch.long, device=device)   # (1, T)
    with amp, devices.no_cudnn_attention():   # which plans anew, slowly, for each new length
        steps = model.stream(idx, max_new_tokens, temperature, top_k, num_samples, keep or None, top_p)
        if screen is None and not stop:
            samples = torch.stack(list(steps), dim=1).tolist()   # (num_samples, max_new_tokens)
        else:   # look at each token, which waits for the device
            samples = [[] for _ in range(num_samples)]
            for tokens in steps:
                for ids, token in zip(samples, tokens.tolist()):
                    ids.append(token)
                texts, are_complete = continuations(prompt, samples)
                if screen is not None:
                    screen.show(texts)
                if all(are_complete):
                    break
    texts, _ = continuations(prompt, samples)
    return samples, texts


torch.manual_seed(seed)

# --interactive: go on with each line that is typed; with an empty one, go on with the last text
if interactive:
    for line in terminal.typed_lines():
        start = ''   # of an empty line: the text so far is on the screen
        if line:
            try:
                prompt = encode(line.replace('\\n', '\n'))
            except SystemExit as e:   # a character that the model has never seen
                print(e, file=sys.stderr)
                continue
            start = decode(prompt)
        screen = terminal.GrowingText(start, stop)
        samples, texts = write(prompt, 1, screen)
        screen.finish(texts)
        prompt = prompt + samples[0]
    sys.exit()

# --stream: one text that grows, or, of several on a terminal, the end of each on a line of its own
screen = None
if stream and not out:
    if num_samples == 1 or not sys.stdout.isatty():
        screen = terminal.GrowingText(start, stop)
    else:
        screen = terminal.GrowingLines(start, num_samples)
_, texts = write(prompt, num_samples, screen)

# show what is not shown yet, or write it all
if screen is not None:
    texts = screen.finish(texts)   # those that it has not shown whole
if out:
    terminal.write_samples(out, start, texts)
    print(f'wrote {out}', file=sys.stderr)
else:
    for text in texts:
        terminal.print_sample(start, text)
