"""
What the scripts stand on. Each file is one room for one thing, and imports only files that stand below it here:

    report.py       log.csv, wandb, the summary of a run, the command to type next
    evaluate.py     sweeps of val.bin, bits per character, baselines
    scaling.py      a scaling law: its rows, the formula fitted to them
    vocabulary.py   pieces of words learned from a text, and the vocabulary of a model, for the prepare.py scripts
    checkpoints.py  checkpoints: save, load, resume; pretrained models
    processes.py    training in several processes, by torchrun
    pretrained.py   GPT-2s of others: their files against their config.json
    checks.py       checks of what comes from outside: checkpoints, tokenizers, the state of optimizers
    torch_file.py   reading what torch.save wrote, from anybody
    sizes.py        what a training needs, by formulas: parameters, memory, arithmetic
    pace.py         how many iterations fit into a time
    devices.py      device, dtype, torch.compile, memory, peak FLOP/s
    cpu.py          only for speed on a CPU: which have bfloat16, weights in float16
    dataset.py      train.bin, val.bin and meta.pkl: written by the prepare.py scripts, read by train.py
    texts.py        texts from files and the network: what a file is, reading, cleaning, downloading
    tokenizer.py    tokenizers: the record of one in a data set or checkpoint, text to token ids and back
    pickles.py      meta.pkl's format, without what can harm
    terminal.py     what sample.py shows on a terminal
    settings.py     checks of settings
    run_folder.py   a run's folder: one training has it, another one's files are kept
    files.py        files that are whole or not there, locks
    signals.py      stopping on Ctrl-C and other signals
    errors.py       one line instead of a traceback
    printable.py    what may reach a terminal
    interrupt.py    Ctrl-C while a script still imports
    machine.py      whether this Python, and the packages that it has, will do

These do not need torch, so that the prepare.py scripts and tools/plot.py start at once:
report, evaluate, scaling, vocabulary, pace, dataset, texts, tokenizer, pickles, terminal, settings, run_folder, files,
signals, errors, printable, interrupt, machine.
"""
