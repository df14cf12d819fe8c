"""
Files that torch.save wrote, from anybody: read without running anything, and without taking more memory than they have
bytes.

torch.load(weights_only=True) runs no code either, but believes sizes: a record that is smaller than its description is
read beyond its end, a deflated one may inflate to anything, and some pickles never finish. So here is the part of it
that checkpoints need. A file is a zip archive: data.pkl, a pickle, describes dicts, lists, numbers, strings and
tensors; data/0, data/1, ... are the bytes of the tensors. Each byte is read once, and compared with its checksum.
"""

import mmap
import os
import sys
import tarfile
import zipfile

import torch

from support.files import check_regular
from support.pickles import Reader

MAX_DIMS = 64   # of a tensor; torch has no more
# the types of storage by name; what is no floating dtype is refused later, by the name of the tensor
DTYPES = {
    'torch FloatStorage': torch.float32, 'torch HalfStorage': torch.float16, 'torch BFloat16Storage': torch.bfloat16,
    'torch DoubleStorage': torch.float64, 'torch LongStorage': torch.int64, 'torch IntStorage': torch.int32,
    'torch ShortStorage': torch.int16, 'torch CharStorage': torch.int8, 'torch ByteStorage': torch.uint8,
    'torch BoolStorage': torch.bool, 'torch ComplexFloatStorage': torch.complex64,
    'torch ComplexDoubleStorage': torch.complex128,
}
REBUILD_TENSOR = 'torch._utils _rebuild_tensor_v2'
REBUILD_PARAMETER = 'torch._utils _rebuild_parameter'
ORDERED_DICT = 'collections OrderedDict'
OLD_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.'   # of a torch before 1.6: magic, version
NAMES = {*DTYPES, REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT}   # all that a pickle may name
INSTRUCTIONS = {   # of a pickle, all that torch.save writes
    'PROTO', 'BINUNICODE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINPUT', 'LONG_BINPUT', 'BINGET',
    'LONG_BINGET', 'NEWTRUE', 'NEWFALSE', 'NONE', 'MARK', 'EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_TUPLE', 'TUPLE1', 'TUPLE2',
    'TUPLE3', 'TUPLE', 'APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'GLOBAL', 'BINPERSID', 'REDUCE', 'BUILD'}


class Name(str):
    """A class or function that a pickle names: its module and its name. It is never imported."""


def read_torch_file(path, device='cpu'):
    """What torch.save wrote to a file: dicts, lists, tuples, numbers, strings and tensors. With device='meta' the
    tensors have shapes and no data, and their bytes are not read. Raises ValueError, whose message says what is wrong,
    OSError, or, for bytes that are no zip archive, what zipfile raises."""
    check_regular(path)   # to open a pipe would wait for ever
    with open(path, 'rb') as f:
        n_bytes = os.fstat(f.fileno()).st_size
        with zipfile.ZipFile(f) as archive:
            records = check_records(archive, n_bytes)
            pickles = [name for name in records if name.endswith('/data.pkl')]
            if len(pickles) != 1:
                raise ValueError('it has no data.pkl')
            folder = pickles[0].removesuffix('data.pkl')
            if folder + 'byteorder' in records and archive.read(folder + 'byteorder').decode() != sys.byteorder:
                raise ValueError('it was written on a machine with another order of bytes')
            storages = Storages(archive, records, folder, device)
            value = TensorReader(storages).read(archive.read(pickles[0]))
            if device == 'cpu':
                storages.check_the_others()
            return value


def check_records(archive, n_bytes):
    """{name: ZipInfo} of an archive of n_bytes. Raises ValueError unless all is stored as it is, so that no record is
    larger than the file."""
    infos = archive.infolist()
    records = {info.filename: info for info in infos}
    if len(records) != len(infos):
        raise ValueError('it has two records of one name')
    if any(info.flag_bits & 1 for info in infos):
        raise ValueError('it is encrypted')
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ValueError('it is compressed, and torch.save does not compress')
    if sum(info.file_size for info in infos) > n_bytes:
        raise ValueError('its records are larger than the file')
    return records


class Storages:
    """The memory of the tensors: each record as a flat tensor."""

    def __init__(self, archive, records, folder, device):
        self.archive = archive
        self.records = records
        self.folder = folder
        self.device = device
        self.flat = {}   # by name of the record

    def get(self, key, dtype, n):
        """The n numbers in a record, (n,). Raises ValueError unless it has as many."""
        name = f'{self.folder}data/{key}'
        n_bytes = n * dtype.itemsize
        if name not in self.records or self.records[name].file_size != n_bytes:
            raise ValueError(f'its record {key!a:.20} does not have {n_bytes} bytes')
        if name not in self.flat:
            if self.device == 'meta' or n == 0:
                self.flat[name] = torch.empty(n, dtype=dtype, device=self.device)
            else:
                self.flat[name] = torch.frombuffer(bytearray(self.archive.read(name)), dtype=dtype)
        if self.flat[name].dtype != dtype:
            raise ValueError(f'its record {key!a:.20} has two types')
        return self.flat[name]

    def check_the_others(self):
        """Compare the records that no tensor has with their checksums, as those of the tensors have been."""
        for name in self.records.keys() - self.flat.keys():
            self.archive.read(name)


class TensorReader(Reader):
    """Reads a pickle as torch.save writes it: plain values, and tensors."""

    max_instructions = 2_000_000   # GPT-2 XL's checkpoint with its vocabulary has 200,000

    def __init__(self, storages):
        super().__init__()
        self.storages = storages

    def run(self, name, argument):
        """One instruction."""
        if name not in INSTRUCTIONS:
            raise ValueError(f'it has the instruction {name}, which torch.save does not write')
        if name == 'GLOBAL' and argument in NAMES:
            self.stack.append(Name(argument))
        elif name == 'BINPERSID':
            self.stack.append(self.storage(self.pop()))
        elif name == 'REDUCE':
            args = self.pop()
            self.stack.append(self.call(self.pop(), args))
        elif name == 'BUILD':   # attributes of an OrderedDict: the versions of a model's modules, which GPT has none of
            self.pop()
            if type(self.top()) is not dict:
                raise ValueError('it has an object that is none of torch')
        else:
            super().run(name, argument)

    def storage(self, description):
        """The flat tensor of ('storage', its type, its record, a device, its number of elements)."""
        if not isinstance(description, tuple) or len(description) != 5:
            raise ValueError('it has a storage without description')
        what, kind, key, _, n = description
        if what != 'storage' or type(kind) is not Name or kind not in DTYPES or type(key) is not str or not is_size(n):
            raise ValueError('it has a storage without description')
        return self.storages.get(key, DTYPES[kind], n)

    def call(self, function, args):
        """What a function returns: a tensor, or an empty dict."""
        if type(function) is not Name or not isinstance(args, tuple):
            raise ValueError('it calls what is no function')
        if function == REBUILD_TENSOR and len(args) >= 4:
            return rebuild_tensor(*args[:4])
        if function == REBUILD_PARAMETER and args and isinstance(args[0], torch.Tensor):
            return args[0]
        if function == ORDERED_DICT and args == ():
            return {}
        raise ValueError(f'it calls {function} otherwise than torch.save')


def read_old_shapes(path):
    """What a torch before 1.6 wrote to a file, with tensors on 'meta': such a file is no zip archive, but five pickles
    and the bytes of the tensors. Its pickles and its sizes are checked, so that torch.load, which comes to no end with
    some, can read it. Raises ValueError, whose message says what is wrong, or OSError."""
    if tarfile.is_tarfile(path):   # the oldest of all, which torch.load would take it for
        raise ValueError('it is of a version of torch that is too old; load and save it with torch 1.6 or later')
    with open(path, 'rb') as f:
        if f.read(len(OLD_START)) != OLD_START:
            raise ValueError('it is no file of torch.save')
        n_bytes = os.fstat(f.fileno()).st_size
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:   # a read beyond its end takes no memory
            content.seek(len(OLD_START))
            storages = OldStorages(n_bytes)
            Reader().read(content)   # what machine it was
            value = OldTensorReader(storages).read(content)
            keys = Reader().read(content)
            if type(keys) is not list or sorted(map(str, keys)) != sorted(storages.flat):
                raise ValueError('its records are not those of its tensors')
            for key in keys:
                flat = storages.flat[key]
                if content.read(8) != len(flat).to_bytes(8, 'little') or content.tell() + flat.nbytes > n_bytes:
                    raise ValueError(f'its record {key!a:.20} does not have {flat.nbytes} bytes')
                content.seek(flat.nbytes, os.SEEK_CUR)
            return value


class OldStorages:
    """The memory of the tensors in a file of n_bytes, by its shapes alone."""

    def __init__(self, n_bytes):
        self.n_bytes = n_bytes
        self.flat = {}   # by key

    def get(self, key, dtype, n):
        """A flat tensor of n numbers on 'meta'. Raises ValueError if the file is smaller, or says two things of it."""
        if n * dtype.itemsize > self.n_bytes:
            raise ValueError(f'its record {key!a:.20} is larger than the file')
        flat = self.flat.setdefault(key, torch.empty(n, dtype=dtype, device='meta'))
        if flat.dtype != dtype or len(flat) != n:
            raise ValueError(f'its record {key!a:.20} has two types')
        return flat


class OldTensorReader(TensorReader):
    """As TensorReader, for what a torch before 1.6 wrote."""

    def storage(self, description):
        """The flat tensor of a description, which has, at its end, a part of it, or None."""
        if not isinstance(description, tuple) or len(description) != 6 or description[5] is not None:
            raise ValueError('it has a storage without description')
        return super().storage(description[:5])


def rebuild_tensor(flat, offset, size, stride):
    """A tensor of this size and stride, from an offset on in a flat one. Raises ValueError for one that goes beyond its
    end or has more elements than it has, such as an expanded one."""
    is_shape = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= MAX_DIMS
    if not isinstance(flat, torch.Tensor) or not is_shape or not all(map(is_size, (offset, *size, *stride))):
        raise ValueError('it has a tensor without description')
    n = 1
    for s in size:
        n *= s
    end = offset + sum((s - 1) * step for s, step in zip(size, stride)) + 1
    if n > len(flat) or n > 0 and end > len(flat):
        raise ValueError(f'it has a tensor of size {size} with {len(flat)} elements only')
    return flat.as_strided(size, stride, offset)


def is_size(n):
    """Whether n is a whole number, 0 or more."""
    return type(n) is int and n >= 0
