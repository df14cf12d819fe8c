"""
Overrides a script's settings from config files and the command line. Not a module: each script runs

    exec(open('configurator.py').read())

below its block of settings, and this code then changes the script's globals, left to right:

    python train.py config/train_eca_char.py --batch_size=32

A config file is Python, and is run as such: use only files that you trust. A value keeps the type of the setting it
overrides; an unknown name is an error. --key alone turns a True or False setting on. --help shows the settings with
their defaults, --help=key the comment beside one. In settings that name files or folders, ~ is the home folder.
"""
import ast
import builtins   # for its compile: a setting has that name, too
import difflib
import os
import re
import sys
import textwrap
import traceback

from support import errors

_PATHS = ('out_dir', 'out', 'to', 'rows', 'nanogpt', 'init_from')   # settings that name a file or a folder


def _fail(message):
    """Exit with one line on stderr and status 1."""
    raise SystemExit(errors.one_line(message))


def _show(value):
    """A value in a message: not all of a long one, and whatever it is."""
    try:
        text = str(value)
    except Exception:   # a number of more than 4300 digits; a class of the user's own
        text = f'a {type(value).__name__}'
    return text if len(text) <= 100 else text[:100] + ' ...'


def _convert(key, value, default):
    """value, a str from the command line or any object from a config file, in the type of the setting's default."""
    kind = type(default)
    try:
        if kind is str:
            text = str(value)   # even when it looks like a number
            return os.path.expanduser(text) if key in _PATHS else text
        if kind is bool:
            return {'true': True, 'false': False}[str(value).lower()]
        number = float(value) if kind is float else ast.literal_eval(str(value))
        if bool in (type(value), type(number)) or kind(number) != number:   # True and 2.5 are no int; 5e3 is one
            raise ValueError
        return kind(number)
    except (ValueError, TypeError, KeyError, SyntaxError, OverflowError, MemoryError, RecursionError):
        wanted = {bool: 'True or False', int: 'a whole number', float: 'a number'}[kind]
        _fail(f'{key} = {_show(value)} is invalid: it must be {wanted}, as in --{key}={default}')


def _override(settings, key, value, source):
    """Set one setting. source, the command line or a config file, is for the message about an unknown name."""
    if key not in settings:
        near = difflib.get_close_matches(key, settings, n=1)
        hint = f'did you mean {near[0]}?' if near else 'see --help for all of them'
        if source != 'command line' and not near:
            hint += ', and begin the name of a variable of your own with _'
        _fail(f'{source}: there is no setting {key}; {hint}')
    settings[key] = _convert(key, value, settings[key])


def _run_config_file(settings, path):
    """Run a config file, and take over the settings that it assigns."""
    if os.environ.get('RANK', '0') in ('0', '-1'):   # under torchrun, one process speaks for all
        print(f'Overriding config with {path}')
    namespace = dict(settings)   # so that one setting can be computed from another
    try:
        with open(path, encoding='utf-8-sig') as f:   # Notepad begins a file with a mark
            source = f.read()
        if '\0' in source:
            raise ValueError('it is not a text; save it as UTF-8')
        exec(builtins.compile(source, path, 'exec'), namespace)
    except BaseException as e:   # whatever the user's code may raise, SystemExit included
        if errors.is_interrupted:   # Ctrl-C
            raise
        _fail(_explain(e, path))
    for key, value in namespace.items():
        is_plain = isinstance(value, (int, float, str))   # modules, functions and _names are the file's own business
        is_changed = key not in settings or value is not settings[key]
        if not is_plain and key in settings:
            _fail(f'{path}: {key} = {_show(value)} is invalid: give it a plain value, as {settings[key]!r}')
        if is_plain and is_changed and not key.startswith('_'):
            _override(settings, key, value, path)


def _explain(e, path):
    """What went wrong in a config file, and in which line."""
    lines = [line for frame, line in traceback.walk_tb(e.__traceback__) if frame.f_code.co_filename == path]
    if isinstance(e, SyntaxError) and e.filename == path and e.lineno:
        lines = [e.lineno]
    if isinstance(e, OSError) and not lines:   # the file itself cannot be read
        return f'{path}: {e.strerror}'
    if isinstance(e, UnicodeDecodeError) and not lines:
        return f'{path}: UnicodeDecodeError: it is not UTF-8; save it as UTF-8'
    where = f'{path}, line {lines[-1]}' if lines else path
    return f'{where}: {type(e).__name__}: {errors.first_line(e)}'


def _read_comments(source, settings):
    """{setting: (comment beside it, title of its group)}, of the block of settings in a script's source. A title is a
    line such as '# data' or '# wandb: logging to Weights & Biases'."""
    block = source.split('\nexec(open(')[0]   # what stands above the line that runs this code
    found = {}
    group = ''
    for title, key, comment in re.findall(r'^(?:# (.*)|(\w+) = .*?(?:[ \t]+# (.*))?)$', block, re.MULTILINE):
        if title:
            group = title.split(':')[0]
        elif key in settings:
            found[key] = (comment, group)
    return found


def _print_help(settings, path, topic):
    """Print what the script is for and its settings, on one screen: many only by name; topic, a name or 'all', tells
    what they do."""
    with open(path, encoding='utf-8') as f:
        source = f.read()
    about = _read_comments(source, settings)
    if topic not in ('', 'all', *about):
        near = difflib.get_close_matches(topic, about, n=1)
        hint = f'did you mean {near[0]}?' if near else 'see --help'
        _fail(f'there is no setting {topic}; {hint}')
    if topic in ('', 'all'):
        paragraphs = source.split('"""')[1].strip().split('\n\n')   # of the docstring: purpose, commands
        print('\n\n'.join(paragraphs[:2]) + '\n')
    default = {key: f'{key}={settings[key]!r}' for key in about}
    if topic or len(about) <= 20:
        keys = [key for key in about if topic in ('', 'all', key)]
        column = min(26, max([len(default[key]) for key in keys], default=0)) + 6
        for key in keys:
            comment, _ = about[key]
            line = textwrap.fill(comment, 79, initial_indent=f'  --{default[key]}  '.ljust(column),
                                 subsequent_indent=' ' * column)
            print(line or f'  --{default[key]}')   # no comment
    else:
        print('Settings, as --key=value; --help=key explains one, --help=all all of them:\n')
        for title in dict.fromkeys(group for _, group in about.values()):
            members = '  '.join(default[key] for key, (_, group) in about.items() if group == title)
            print(textwrap.fill(members, 79, initial_indent=f'  {title} '.ljust(16), subsequent_indent=' ' * 16))


def _configure(script):
    """Override the settings among a script's globals by sys.argv."""
    settings = {k: v for k, v in script.items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))}
    defaults = dict(settings)
    for arg in sys.argv[1:]:
        key, equals, value = arg.removeprefix('--').partition('=')
        if arg in ('--help', '-h') or arg.startswith('--help='):
            _print_help(defaults, script['__file__'], value)
            raise SystemExit(0)
        if not arg.startswith('-'):
            _run_config_file(settings, os.path.expanduser(arg))
        elif not arg.startswith('--'):
            _fail(f'{arg} is invalid: write --key=value, or the name of a config file')
        elif equals:
            _override(settings, key, value, 'command line')
        elif type(settings.get(key)) is bool:
            settings[key] = True   # --key alone
        else:
            _fail(f'{arg} is invalid: write --key=value, or the name of a config file')
    script.update(settings)


_configure(globals())
