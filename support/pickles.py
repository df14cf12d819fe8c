"""
Pickles of plain values, read without pickle.

A meta.pkl from a stranger can run a command, take all memory with nine bytes, or never end, if Python's own loader
reads it. This reader knows the few instructions that dicts, lists, tuples, strings and numbers are made of, in the
protocols 0 to 5, and refuses all others; its work is bounded by the size of the file.
"""

import pickletools

MAX_BYTES = 64_000_000        # the largest tokenizers have 20 million
MAX_INSTRUCTIONS = 1_000_000  # 65,536 words, with itos and stoi, are 460 thousand; a million take a second
MAX_DEPTH = 4                 # containers within each other; a vocabulary has 2
MAX_INTEGER = 2**63           # nobody counts further

VALUES = {   # instructions that bring a value of their own
    'NONE', 'NEWTRUE', 'NEWFALSE', 'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT',
    'BINFLOAT', 'UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'}
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}
TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
IGNORED = {'PROTO', 'FRAME'}
IMPORTS = {'GLOBAL', 'STACK_GLOBAL', 'INST'}   # of classes and functions


class NotPlain(ValueError):
    """What a file asks for that is no plain value, in printable words."""


def load_plain(content):
    """The value in a pickle, given as bytes: None, booleans, numbers, strings, and dicts, lists and tuples of them.
    The keys of dicts are strings and integers. Raises NotPlain for anything else, and ValueError, IndexError or
    another Exception for bytes that are no pickle."""
    if len(content) > MAX_BYTES:
        raise NotPlain(f'it has {len(content):,} bytes, more than any vocabulary')
    stack = []   # of values
    marks = []   # heights of the stack
    memo = {}
    for n, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if n == MAX_INSTRUCTIONS:
            raise NotPlain(f'it has more than {n:,} instructions')
        if opcode.name == 'STOP':
            return check_depth(stack.pop())
        run_instruction(opcode.name, argument, stack, marks, memo)
    raise NotPlain('it has no end')


def run_instruction(name, argument, stack, marks, memo):
    """Run one instruction of a pickle on its stack."""
    if name in VALUES:
        stack.append(check_value(CONSTANTS.get(name, argument)))
    elif name in EMPTY:
        stack.append(EMPTY[name]())
    elif name == 'MARK':
        marks.append(len(stack))
    elif name in ('DICT', 'LIST', 'TUPLE'):
        values = pop_to_mark(stack, marks)
        stack.append(make_dict(values) if name == 'DICT' else {'LIST': list, 'TUPLE': tuple}[name](values))
    elif name in TUPLES:
        values = stack[len(stack) - TUPLES[name]:]
        del stack[len(stack) - TUPLES[name]:]
        stack.append(tuple(values))
    elif name in ('SETITEM', 'SETITEMS'):
        values = pop_to_mark(stack, marks) if name == 'SETITEMS' else [stack.pop(-2), stack.pop()]
        check_kind(stack[-1], dict).update(make_dict(values))
    elif name in ('APPEND', 'APPENDS'):
        values = pop_to_mark(stack, marks) if name == 'APPENDS' else [stack.pop()]
        check_kind(stack[-1], list).extend(values)
    elif name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
        memo[argument] = stack[-1]   # a dict: a large number is a key, and takes no room
    elif name == 'MEMOIZE':
        memo[len(memo)] = stack[-1]
    elif name in ('GET', 'BINGET', 'LONG_BINGET'):
        stack.append(memo[argument])
    elif name not in IGNORED:
        raise NotPlain(describe(name, argument, stack))


def pop_to_mark(stack, marks):
    """Take the values above the last mark off the stack."""
    height = marks.pop()
    values = stack[height:]
    del stack[height:]
    return values


def make_dict(values):
    """The dict of a list of keys and values in turn."""
    keys = values[::2]
    if len(values) % 2 or not {type(key) for key in keys} <= {str, int}:
        raise NotPlain('it has a dict with keys that are neither strings nor integers')
    return dict(zip(keys, values[1::2]))


def check_kind(value, kind):
    """The value, if it is of this kind."""
    if type(value) is not kind:
        raise NotPlain(f'it fills a {type(value).__name__} like a {kind.__name__}')
    return value


def check_value(value):
    """The value, if it is an integer of the usual size, or none."""
    if type(value) is int and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise NotPlain('it has an integer beyond 64 bits')
    return value


def check_depth(value):
    """The value, if its containers lie within each other no deeper than MAX_DEPTH; one that holds itself does."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below = {}   # by id: what occurs often is looked at once
        for container in level:
            if isinstance(container, (dict, list, tuple)):
                children = container.values() if isinstance(container, dict) else container
                below.update((id(child), child) for child in children if isinstance(child, (dict, list, tuple)))
        level = list(below.values())
    if level:
        raise NotPlain(f'its values lie more than {MAX_DEPTH} deep')
    return value


def describe(name, argument, stack):
    """What an instruction that is refused asks for."""
    if name not in IMPORTS:
        return f'it has the instruction {name}'
    words = argument.split(' ') if argument else stack[-2:]
    wanted = '.'.join(map(str, words))[:80]
    return 'it asks for ' + ''.join(c if c.isprintable() else '?' for c in wanted)
