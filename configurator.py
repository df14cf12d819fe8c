"""
Overrides a script's settings from config files and the command line. Not a module: each script runs

    exec(open('configurator.py').read())

below its block of settings, and this code then changes the script's globals, left to right:

    python train.py config/train_eca_char.py --batch_size=32

A config file is Python, and is run as such: use only files that you trust. A value keeps the type of the setting it
overrides; an unknown name is an error. --key alone means --key=True. --help shows the settings with their defaults,
--help=key the comment beside one.
"""
import ast
import builtins   # a setting is called compile, too
import difflib
import os
import sys
import textwrap
import tokenize
import traceback


def _convert(key, value, default):
    """value, a str from the command line or any object from a config file, in the type of the setting's default."""
    kind = type(default)
    try:
        if kind is str:
            return str(value)   # even when it looks like a number
        if kind is bool:
            return {'true': True, 'false': False}[str(value).lower()]
        number = float(value) if kind is float else ast.literal_eval(str(value))
        if bool in (type(value), type(number)) or kind(number) != number:   # 2.5 for an int; 5e3 will do
            raise ValueError
        return kind(number)
    except (ValueError, TypeError, KeyError, SyntaxError, OverflowError, MemoryError):
        wanted = {bool: 'True or False', int: 'a whole number', float: 'a number'}[kind]
        raise SystemExit(f'{key} = {value} will not do: it must be {wanted}, as in --{key}={default}') from None


def _override(settings, key, value, source):
    if key not in settings:
        near = difflib.get_close_matches(key, settings, n=1)
        hint = f'did you mean {near[0]}?' if near else 'see --help for all of them'
        if source != 'command line' and not near:
            hint += ', and begin the name of a variable of your own with _'
        raise SystemExit(f'{source}: there is no setting {key}; {hint}')
    settings[key] = _convert(key, value, settings[key])


def _run_config_file(settings, path):
    if int(os.environ.get('RANK', 0)) == 0:   # under torchrun, one process speaks for all
        print(f'Overriding config with {path}')
    namespace = dict(settings)   # so that one setting can be computed from another
    try:
        with open(path, encoding='utf-8') as f:
            exec(builtins.compile(f.read(), path, 'exec'), namespace)
    except Exception as e:   # whatever the user's code may raise
        lines = [e.lineno] if isinstance(e, SyntaxError) else [
            line for frame, line in traceback.walk_tb(e.__traceback__) if frame.f_code.co_filename == path]
        where = f'{path}, line {lines[-1]}' if lines else path
        raise SystemExit(f'{where}: {e.strerror if isinstance(e, OSError) else f"{type(e).__name__}: {e}"}') from None
    for key, value in namespace.items():
        is_plain = isinstance(value, (int, float, str))   # modules, functions and _names are the file's own business
        if is_plain and not key.startswith('_') and (key not in settings or value is not settings[key]):
            _override(settings, key, value, path)
        elif not is_plain and key in settings:
            raise SystemExit(f'{path}: {key} = {value!r} will not do: give it a plain value, as {settings[key]!r}')


def _print_help(settings, path, topic):
    """Print what the script is for and its settings, on one screen: many only by name; topic, a name or 'all', tells
    what they do. Their comments are in the script, at the end of their lines, and above each group of them."""
    with open(path, encoding='utf-8') as f:
        source = f.read()
    defaults, about, group_of = {}, {}, {}
    comments = {token.start: token.string.lstrip('# ')
                for token in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__)
                if token.type == tokenize.COMMENT}
    for node in ast.parse(source).body:
        key = node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else None
        if key in settings and key not in defaults and isinstance(node.value, (ast.Constant, ast.BinOp)):
            defaults[key] = f'{key}={settings[key]!r}'
            about[key] = ''.join(text for (line, column), text in comments.items() if line == node.end_lineno)
            titles = [text for (line, column), text in comments.items() if column == 0 and line < node.lineno]
            group_of[key] = titles[-1].split(':')[0] if titles else ''
    if topic not in ('', 'all', *defaults):
        near = difflib.get_close_matches(topic, defaults, n=1)
        raise SystemExit(f'there is no setting {topic}; ' + (f'did you mean {near[0]}?' if near else 'see --help'))
    if topic in ('', 'all'):
        print('\n\n'.join(source.split('"""')[1].strip().split('\n\n')[:2]) + '\n')
    if topic or len(defaults) <= 20:
        keys = [key for key in defaults if topic in ('', 'all', key)]
        column = min(26, max(len(defaults[key]) for key in keys)) + 6
        for key in keys:
            print(textwrap.fill(about[key], 79, initial_indent=f'  --{defaults[key]}  '.ljust(column),
                                subsequent_indent=' ' * column) or f'  --{defaults[key]}')   # no comment
    else:
        print('Settings, as --key=value; --help=key explains one, --help=all all of them:\n')
        for group in dict.fromkeys(group_of.values()):
            print(textwrap.fill('  '.join(defaults[key] for key in defaults if group_of[key] == group), 79,
                                initial_indent=f'  {group} '.ljust(16), subsequent_indent=' ' * 16))


def _configure(script):
    settings = {k: v for k, v in script.items() if not k.startswith('_') and isinstance(v, (int, float, bool, str))}
    defaults = dict(settings)
    for arg in sys.argv[1:]:
        key, equals, value = arg.removeprefix('--').partition('=')
        if arg in ('--help', '-h') or arg.startswith('--help='):
            _print_help(defaults, script['__file__'], value)
            raise SystemExit(0)
        if not arg.startswith('-'):
            _run_config_file(settings, arg)
        elif not equals and arg.startswith('--') and type(settings.get(key)) is bool:
            settings[key] = True   # --key alone
        elif not equals or not arg.startswith('--'):
            raise SystemExit(f'{arg} will not do: write --key=value, or the name of a config file')
        else:
            _override(settings, key, value, 'command line')
    script.update(settings)


for _stream in (sys.stdout, sys.stderr):
    if hasattr(_stream, 'reconfigure'):   # a notebook's has not
        _stream.reconfigure(errors='backslashreplace')   # not every console can show every character
_configure(globals())
