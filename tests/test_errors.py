"""One line instead of a traceback: memory or a disk that ran out, Ctrl-C, numbers that are none."""

import errno
import math
import sys

import pytest
import torch

from support import errors
from support.printable import printable_line


@pytest.mark.parametrize('e, is_it', [
    (MemoryError(), True), (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'), True),
    (RuntimeError('MPS backend out of memory (MPS allocated: 5 GB)'), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError('CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate'), True),
    (RuntimeError('Storage size calculation overflowed with sizes=[2, 4611686018427387904]'), True),
    (ValueError('Maximum allowed dimension exceeded'), True),
    (OSError(errno.ENOMEM, 'Cannot allocate memory'), True), (ValueError('array is too big; `arr.size ...'), True),
    (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), False), (ValueError(), False),
    (ValueError("it has a weight 'out of memory', which is not known"), False),   # the words of a file
    (KeyError('out of memory'), False), (OSError(errno.ENOENT, 'No such file', 'out of memory'), False)])
def test_out_of_memory_is_one_line(capsys, monkeypatch, e, is_it):
    for script, says in (('train.py', '; lower batch_size'), ('sample.py', '; lower num_samples\n'), ('plot.py', '\n')):
        monkeypatch.setattr(sys, 'argv', [script])
        errors.explain_crash(type(e), e, None)
        said = f'{script}: memory ran out{says}' in capsys.readouterr().err
        assert said == is_it == errors.is_out_of_memory(e)


def test_a_gpu_that_torch_has_no_code_for_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    e = RuntimeError('CUDA error: no kernel image is available for execution on the device\nSearch ...')
    errors.explain_crash(type(e), e, None)
    said = capsys.readouterr().err
    assert said.startswith('train.py: this build of torch ') and '--device=cpu' in said and said.count('\n') == 1


@pytest.mark.parametrize('number, is_it', [(errno.ENOSPC, True), (errno.EFBIG, True), (errno.ENOENT, False)])
def test_full_disk_is_one_line(capsys, monkeypatch, number, is_it):
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    errors.explain_crash(OSError, OSError(number, 'why'), None)
    said = capsys.readouterr().err
    assert (said == 'train.py: the disk is full (why); what was saved before is unharmed\n') is is_it


def test_what_is_a_bug_keeps_its_traceback(capsys):
    try:
        raise ValueError('a bug')
    except ValueError as e:
        errors.explain_crash(type(e), e, e.__traceback__)
    said = capsys.readouterr().err
    assert said.startswith('Traceback') and said.endswith('ValueError: a bug\n')


def test_interrupt_is_without_a_word(capsys):
    errors.explain_crash(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('rank, waits', [(None, []), ('0', []), ('-1', []), ('1', [5])])
def test_a_mistake_is_said_by_one_process(monkeypatch, rank, waits):
    """The others wait for torchrun to end them."""
    slept = []
    monkeypatch.setattr(sys, 'argv', ['some/folder/train.py'])
    monkeypatch.setattr(errors.time, 'sleep', slept.append)
    monkeypatch.delenv('RANK', raising=False)
    if rank is not None:
        monkeypatch.setenv('RANK', rank)
    with pytest.raises(SystemExit) as e:
        errors.fail('what, and how to mend it')
    assert e.value.code == 'train.py: what, and how to mend it'
    assert slept == waits


@pytest.mark.parametrize('message, said', [
    ('data/a\nb/train.bin', r'data/a\nb/train.bin'),
    ('a\r\nb\x1b]0;title\x07', r'a\r\nb\x1b]0;title\x07'),
    ('a\u2028b\x85c\x0bd\ud800', r'a\u2028b\x85c\x0bd\ud800'),   # new lines and halves of characters to some
    (ValueError('Eça, 漢字'), 'Eça, 漢字'),
])
def test_a_mistake_is_one_line(monkeypatch, message, said):
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    with pytest.raises(SystemExit) as e:
        errors.fail(message)
    assert e.value.code == f'train.py: {said}' and e.value.code.isprintable()


def test_a_text_on_one_line():
    assert printable_line('a\n\tb\x1b[2J\u200bc\xa0d\ud800') == 'a  b\ufffd[2Jc d\ufffd'


def test_exceptions_that_cannot_say_what_they_are():
    class Broken(Exception):
        def __str__(self):
            raise ValueError

    assert errors.first_line(Broken()) == 'Broken'
    assert errors.first_line(ValueError('\none\ntwo')) == 'one' and errors.first_line(ValueError()) == 'ValueError'


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none(value):
    with pytest.raises(SystemExit, match=f'the val loss is {value} at iteration 7'):
        errors.check_finite(value, 'val loss', 7)
    errors.check_finite(1.5, 'val loss', 7)
