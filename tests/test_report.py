"""What is left of a run for people: log.csv, and commands to be typed."""

import os
import sys

from support import report


def test_what_is_printed_to_be_typed(monkeypatch):
    words = ['python', 'sample.py', '--out_dir=meus livros']
    assert report.command_line(words) == "python sample.py '--out_dir=meus livros'"
    with monkeypatch.context() as m:
        m.setattr(os, 'name', 'nt')
        printed = report.command_line([*words, r'--to=a\b'])
    assert printed == r'python sample.py "--out_dir=meus livros" --to=a\b'


def test_how_to_go_on(monkeypatch):
    """The same command, with one --init_from=resume; under torchrun nobody knows what was typed before train.py."""
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr(sys, 'argv', ['train.py', 'config/a.py', '--out_dir=meus livros', '--init_from=resume'])
    assert report.resume_command() == "python train.py config/a.py '--out_dir=meus livros' --init_from=resume"
    monkeypatch.setenv('RANK', '0')
    assert report.resume_command() == 'the same torchrun command, with --init_from=resume at its end'


def test_log_of_a_run_that_resumes(tmp_path):
    """Rows before the iteration are kept, later and damaged ones are not; a new run starts anew."""
    path = tmp_path / 'log.csv'
    header = 'iter,elapsed_s,lr,loss,train_loss,val_loss\n'
    kept = '3,0.5,0.1,2.5,,\n4,0.6,0.1,,2.4,2.6\n'
    path.write_text(header + kept + 'x,0.6,0.1,2.5,,\n4,0.6\n5,0.7,0.1,2.5,,\n4,0.7,0.', encoding='utf-8')
    report.open_log(path, iter_num=5).writerow({'iter': 5, 'loss': 2.25})
    assert path.read_text(encoding='utf-8') == header + kept + '5,,,2.25,,\n'
    report.open_log(path)
    assert path.read_text(encoding='utf-8') == header
