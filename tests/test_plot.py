"""tools/plot.py: the curves are the log's, pictures are written whole or not at all, bad input is one line."""

import os
import sys
import warnings

import pytest
from conftest import script_globals

matplotlib = pytest.importorskip('matplotlib.image') and sys.modules['matplotlib']

HEADER = 'iter,elapsed_s,lr,loss,train_loss,val_loss\n'
LOG = HEADER + '''0,6.0,0.001,,5.0,5.1
0,12.0,0.001,5.2,,
10,60.0,0.01,3.0,,
20,114.0,0.008,2.5,,
20,120.0,0.008,,2.4,2.6
30,180.0,0.006,2.2,,
40,240.0,0.004,,2.0,2.3
50,300.0,0.002,1.9,,
60,360.0,0.0,,1.8,2.35
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, and we are in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def repository(bare, monkeypatch):
    """A copy of the repository, and we are in it, as a user is."""
    monkeypatch.chdir(bare.path)
    return bare


def write(folder, text=LOG):
    """The folder, now with this log.csv in it."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'log.csv'), 'wb') as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    return folder


def draw(*args):
    """The variables that plot.py ends with."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.simplefilter('ignore', ResourceWarning)   # of files that scripts before this one left open
        return script_globals('tools/plot.py', *args)


def points(ax):
    """Of each line in a panel, its points."""
    return [list(zip(*line.get_data(), strict=True)) for line in ax.lines]


def texts(fig):
    return [text.get_text() for text in fig.findobj(matplotlib.text.Text)]


def pixels(path):
    return matplotlib.image.imread(path)


def test_the_picture_is_drawn_as_the_user_draws_it(repository):
    write('out-um', LOG)
    write('out-dois', LOG.replace('2.3\n', '2.2\n'))
    env = {'MPLBACKEND': 'module://not_there'}   # which matplotlib reads when it is imported
    printed = repository.run('tools/plot.py', 'out-um/', 'out-dois', env=env, real=True)
    assert printed == f"saved {os.path.join('out-um', 'loss.png')}\n"
    assert sorted(os.listdir('out-um')) == ['log.csv', 'loss.png'] and os.listdir('out-dois') == ['log.csv']
    picture = pixels('out-um/loss.png')
    assert picture.shape[1] == 1500 and 900 <= picture.shape[0] <= 1100
    for color in ('#0072B2', '#D55E00'):   # each run is there, in its own
        assert (abs(picture[..., :3] - matplotlib.colors.to_rgb(color)) < 0.02).all(-1).sum() > 500
    assert (picture[..., :3] == 1).all(-1).mean() > 0.7   # and the ground is white


def test_curves_are_those_of_the_log(here, capsys):
    fig = draw(write('out-eca'))['fig']
    over_iters, over_time, lr, _ = fig.axes
    batches, mean, train, val, best = points(over_iters)
    assert batches == [(0, 5.2), (10, 3.0), (20, 2.5), (30, 2.2), (50, 1.9)]
    assert mean[:2] == [(0, 5.2), (10, pytest.approx(3.0))] and mean[2] == (20, pytest.approx((3.0 + 2.5 + 2.2) / 3))
    assert train == [(20, 2.4), (40, 2.0), (60, 1.8)]
    assert val == [(20, 2.6), (40, 2.3), (60, 2.35)]
    assert best == [(40, 2.3)]
    assert points(over_time)[3] == [(2, 2.6), (4, 2.3), (6, 2.35)] and 'time (min)' in texts(fig)
    assert points(lr)[0][2] == (10, 0.01) and len(points(lr)[0]) == 9
    assert 'out-eca: best 2.3000 at iteration 40' in texts(fig) and texts(fig).count('2.300') == 2
    # the untrained model's loss would squash all others; it is said, not drawn
    assert over_iters.get_ylim()[1] < 3.5 and 'not shown: up to 5.20 at iteration 0' in texts(fig)
    assert capsys.readouterr().out == f"saved {os.path.join('out-eca', 'loss.png')}\n"


def test_the_first_plateau_is_shown(here):
    """The laptop config's: 2.4 at iterations 50 and 100 of 2400."""
    losses = {0: 5.03, 50: 2.42, 100: 2.39, 150: 2.32, 200: 2.15, 300: 2.0, 1200: 1.7, 2400: 1.6}
    rows = [f'{i},{i}.0,0.001,{loss},,\n' for i, loss in losses.items()]
    over_iters = draw(write('out-plateau', HEADER + ''.join(rows)))['fig'].axes[0]
    mean = points(over_iters)[1]
    assert mean[1] == (50, pytest.approx(2.42)) and 2.42 < over_iters.get_ylim()[1] < 3


def test_a_row_that_is_being_written_does_not_count(here):
    whole = [points(ax) for ax in draw(write('out'))['fig'].axes]
    for torn in ('7', '70,400.0,0.0,,1.7,2.2'):   # which could be 2.25
        assert [points(ax) for ax in draw(write('out', LOG + torn))['fig'].axes] == whole


@pytest.mark.parametrize('rows', [2, 3, 4, 6])
def test_a_run_that_has_just_begun(here, rows):
    write('out', ''.join(LOG.splitlines(keepends=True)[:rows]))
    fig = draw('out')['fig']
    low, high = fig.axes[0].get_ylim()
    assert all(low < y < high for line in points(fig.axes[0])[2:] for _, y in line)
    assert 'out: best 5.1000 at iteration 0' in texts(fig) or rows == 6


def test_a_single_batch_and_no_evaluation(here):
    fig = draw(write('out', HEADER + '0,1.0,0.001,5.0,,\n'))['fig']
    assert points(fig.axes[0])[0] == [(0, 5.0)] and fig.axes[0].lines[0].get_marker() == 'o'
    assert 'out: not evaluated yet' in texts(fig)


def test_losses_that_are_no_numbers_are_left_out(here):
    fig = draw(write('out', LOG.replace(',0.0,', ',,') + '70,420.0,nan,nan,,\n80,430.0,,inf,nan,2.25\n'))['fig']
    assert points(fig.axes[0])[3][-1] == (80, 2.25) and points(fig.axes[0])[2][-1] == (60, 1.8)


def test_many_runs_have_a_name_a_color_and_a_marker_each(here):
    folders = [write(name) for name in ('a/out', 'b/out', 'out-$x$', '_out', 'c', 'd', 'e', 'f')]
    fig = draw(*folders, 'c', './d/')['fig']   # the same folder twice is one run
    runs = [text for text in texts(fig) if 'best 2.3' in text]
    assert [text.split(':')[0] for text in runs] == [os.path.join('a', 'out'), os.path.join('b', 'out'), r'out-\$x\$',
                                                    '_out', 'c', 'd', 'e', 'f']
    handles = fig.legends[0].legend_handles
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == len(folders)
    # notes at the same point make way for each other
    boxes = [note.get_window_extent() for note in fig.axes[0].texts if note.get_text() == '2.300']
    assert len(boxes) == 8 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize('end, head', [('.svg', b'<?xml'), ('.pdf', b'%PDF'), ('', b'\x89PNG')])
def test_another_place_and_format(here, capsys, end, head):
    draw(write('out'), f'--to=curva{end}')
    assert (here / f'curva{end}').read_bytes().startswith(head) and os.listdir('out') == ['log.csv']
    assert capsys.readouterr().out == f'saved curva{end}\n'


BAD = [
    ([], {}, 'OUT_DIR; see python tools/plot.py --help'),
    (['out', '--two=x.png'], {'out': LOG}, 'unrecognized arguments: --two=x.png; see python tools/plot.py --help'),
    (['nada'], {}, 'train first, as in python train.py config/train_eca_char_laptop.py --out_dir=nada'),
    (['out', 'nada'], {'out': LOG}, 'there is no nada/log.csv'),
    (['out/log.csv'], {'out': LOG}, 'out/log.csv/log.csv'),
    (['out'], {'out': ''}, 'out/log.csv has no losses yet; try again after the first evaluation'),
    (['out'], {'out': HEADER}, 'has no losses yet'),
    (['out'], {'out': HEADER + '0,6.0,0.001,,5.0'}, 'has no losses yet'),
    (['out'], {'out': HEADER + '0,6.0,0.001,nan,,\n'}, 'has no losses yet'),
    (['out'], {'out': 'a,b\n1,2\n'}, "is not one of train.py's: its first line is not iter,elapsed_s,lr,loss"),
    (['out'], {'out': LOG + 'x,1,1,1,,\n'}, 'out/log.csv is damaged in line 11; delete that line'),
    (['out'], {'out': LOG + ',1,1,1,,\n'}, 'is damaged in line 11'),
    (['out'], {'out': LOG + '70,inf,1,1,,\n'}, 'is damaged in line 11'),
    (['out'], {'out': LOG.replace('10,60.0,', '10,')}, 'is damaged in line 4'),
    (['out'], {'out': LOG.encode() + b'\xff\x00\x80,1,1,1,,\n'}, 'is damaged in line 11'),
    (['out'], {'out': LOG + '"' + '9' * 200000 + '\n'}, 'is damaged in line 11'),
    (['out', '--to=nada/x.png'], {'out': LOG}, 'nada/x.png cannot be written: its folder is not there'),
    (['out', '--to=out'], {'out': LOG}, 'out cannot be written: '),
    (['out', '--to=x.xyz'], {'out': LOG}, "x.xyz cannot be written: Format 'xyz' is not supported"),
]


@pytest.mark.parametrize('args, logs, said', BAD)
def test_bad_input_is_one_line_and_leaves_nothing(here, args, logs, said):
    for folder, text in logs.items():
        write(folder, text)
    before = sorted(map(str, here.rglob('*')))
    with pytest.raises(SystemExit) as e:
        draw(*args)
    message = e.value.code.replace('\\', '/')
    assert message.startswith('plot.py: ') and said in message and '\n' not in message
    assert sorted(map(str, here.rglob('*'))) == before


def test_a_full_disk_leaves_the_old_picture(here, monkeypatch):
    (here / write('out') / 'loss.png').write_bytes(b'\x89PNG\r\n\x1a\nold')
    monkeypatch.setattr('os.fsync', lambda f: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(SystemExit, match='loss.png cannot be written: No space left on device'):
        draw('out')
    assert (here / 'out/loss.png').read_bytes() == b'\x89PNG\r\n\x1a\nold' and len(os.listdir('out')) == 2


def test_matplotlib_missing_is_said_and_help_does_without_it(repository):
    write('out')
    (repository / 'stubs').mkdir()
    (repository / 'stubs/matplotlib.py').write_text('raise ImportError("No module named \'matplotlib\'")')
    env = {'PYTHONPATH': str(repository / 'stubs')}
    said = repository.run('tools/plot.py', 'out', fails=True, env=env, real=True)
    assert said == "plot.py: matplotlib does not load (No module named 'matplotlib'): pip install matplotlib\n"
    help = repository.run('tools/plot.py', '--help', env={**env, 'COLUMNS': '80'}, real=True).splitlines()
    assert len(help) <= 24 and max(map(len, help)) <= 80


def test_it_starts_without_torch(repository):
    write('out')
    (repository / 'stubs').mkdir()
    (repository / 'stubs/torch.py').write_text('raise ImportError("torch is not needed")')
    repository.run('tools/plot.py', 'out', env={'PYTHONPATH': str(repository / 'stubs')}, real=True)
