"""
Pickles, read without pickle: a vocabulary's here, and those in the files of torch.save by torch_file.py.

A pickle from a stranger can run a command, take all memory with nine bytes, or never end, if Python's own loader
reads it. This reader knows the few instructions that dicts, lists, tuples, strings and numbers are made of, in the
protocols 0 to 5, and refuses all others; its work is bounded by the size of the file.
"""

import pickletools

from support.printable import one_line

MAX_BYTES = 64_000_000   # of a meta.pkl; the largest tokenizers have 20 million
MAX_DEPTH = 4            # containers within each other in a meta.pkl; a vocabulary has 2
MAX_INTEGER = 2**63      # nobody counts further

VALUES = {   # instructions that bring a value of their own
    'NONE', 'NEWTRUE', 'NEWFALSE', 'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT',
    'BINFLOAT', 'UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'}
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}
TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
IGNORED = {'PROTO', 'FRAME'}
IMPORTS = {'GLOBAL', 'STACK_GLOBAL', 'INST'}   # of classes and functions: a module and a name


class NotPlain(ValueError):
    """What a file asks for that is no plain value, in printable words."""


def load_plain(content):
    """The value in a pickle, given as bytes: None, booleans, numbers, strings, and dicts, lists and tuples of them.
    The keys of dicts are strings and integers. Raises NotPlain for anything else, and ValueError or another Exception
    for bytes that are no pickle."""
    if len(content) > MAX_BYTES:
        raise NotPlain(f'it has {len(content):,} bytes, more than any vocabulary')
    return check_depth(Reader().read(content))


class Reader:
    """Reads a pickle of plain values, one instruction after the other. Nothing is hashed but strings and numbers, so
    it takes time in proportion to the number of instructions, which is limited."""

    max_instructions = 1_000_000   # 65,536 words, with itos and stoi, are 460 thousand; a million take a second

    def __init__(self):
        self.stack = []   # of values
        self.marks = []   # heights of the stack at which a list of items begins
        self.memo = {}

    def read(self, content):
        """The value that a pickle, bytes or a binary file, describes. Raises NotPlain, or whatever pickletools raises
        for what is no pickle."""
        for n, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if n == self.max_instructions:
                raise NotPlain(f'it has more than {n:,} instructions')
            if opcode.name == 'STOP':
                return self.pop()
            try:
                self.run(opcode.name, argument)
            except (KeyError, IndexError):   # of the memo, of the marks
                raise NotPlain('it refers to what is not there') from None

    def run(self, name, argument):
        """One instruction."""
        if name in VALUES:
            self.stack.append(check_size(CONSTANTS.get(name, argument)))
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name == 'MARK':
            self.marks.append(len(self.stack))
        elif name in TUPLES:
            values = [self.pop() for _ in range(TUPLES[name])]
            self.stack.append(tuple(reversed(values)))
        elif name == 'TUPLE':
            self.stack.append(tuple(self.pop_to_mark()))
        elif name == 'LIST':
            self.stack.append(self.pop_to_mark())
        elif name == 'DICT':
            values = self.pop_to_mark()
            self.stack.append({})
            self.set_items(values)
        elif name == 'APPEND':
            self.append([self.pop()])
        elif name == 'APPENDS':
            self.append(self.pop_to_mark())
        elif name == 'SETITEM':
            value = self.pop()
            self.set_items([self.pop(), value])
        elif name == 'SETITEMS':
            self.set_items(self.pop_to_mark())
        elif name in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            self.memo[argument] = self.top()   # a dict: a large number is a key, and takes no room
        elif name == 'MEMOIZE':
            self.memo[len(self.memo)] = self.top()
        elif name in ('GET', 'BINGET', 'LONG_BINGET'):
            self.stack.append(self.memo[argument])
        elif name in IMPORTS:
            words = argument.split(' ') if argument else self.stack[-2:]
            wanted = '.'.join(word for word in words if type(word) is str)
            raise NotPlain(one_line(f'it asks for {wanted or "what has no name"}')[:100])
        elif name not in IGNORED:
            raise NotPlain(f'it has the instruction {name}')

    def top(self):
        """The newest value on the stack, above the newest mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise NotPlain('it ends too soon')
        return self.stack[-1]

    def pop(self):
        """Take the newest value off the stack."""
        value = self.top()
        del self.stack[-1]
        return value

    def pop_to_mark(self):
        """Take the values above the newest mark off the stack: a list."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def append(self, values):
        """Add values to the list on the stack."""
        if type(self.top()) is not list:
            raise NotPlain('it adds to what is no list')
        self.top().extend(values)

    def set_items(self, values):
        """Add keys and values, in turn, to the dict on the stack."""
        if type(self.top()) is not dict or len(values) % 2:
            raise NotPlain('it adds to what is no dict')
        keys = values[::2]
        for kind in {type(key) for key in keys} - {str, int}:
            raise NotPlain(f'it has a key that is a {kind.__name__}')
        self.top().update(zip(keys, values[1::2]))


def check_size(value):
    """The value, if it is an integer of the usual size, or none."""
    if type(value) is int and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise NotPlain('it has a number beyond 64 bits')
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
