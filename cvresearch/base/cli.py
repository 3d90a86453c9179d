"""Command lines: flags by absl, configuration overrides, and errors of one line."""

import contextlib
import gc
import io
import math
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from absl import flags
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import paths
from cvresearch.base.compile_cache import keep_compiled
from cvresearch.base.errors import UserError, nearest
from cvresearch.base.memory import keep_freed_pages
from cvresearch.base.overrides import TOP_KEYS, meant

OVERRIDES_HELP = """
--config.KEY=VALUE sets a value of the configuration, --config.GROUP.name=NAME another constructor (of model, optimizer,
  schedule, ...): what the file says for the old one is dropped, but for arguments that mean the same under every name.
--config.image_size=64 sets the size of all images. Their order does not matter; a single value wins.
--no-config.GROUP.KEY takes an argument away, so that its constructor's default holds.
All keys, their values and defaults: python -m cvresearch.main --config FILE --print_config
"""
# Flags that other programs have, and what is meant.
ELSEWHERE = {
    'resume': 'the same command with the same --workdir continues a run',
    'output': '--workdir DIR',
    'output_dir': '--workdir DIR',
    'save_dir': '--workdir DIR',
    'logdir': '--workdir DIR',
    'log_dir': '--workdir DIR',
    'checkpoint_dir': '--workdir DIR',
    'gpus': '--config.mesh.data=NUMBER of devices',
    'print': '--print_config',
    'device': 'the environment variable JAX_PLATFORMS=cpu, or another platform',
    'cfg': '--config FILE',
}


def parse(
    argv: list[str],
    usage: str | None,
    required: tuple[str, ...] | None = None,
    switches: dict[str, str] | None = None,
    positional: str | None = None,
    places: tuple[str, ...] = (),
    repeated: tuple[str, ...] = (),
    buckets: tuple[str, ...] = (),
    **options: str,
) -> SimpleNamespace:
    """Returns the values of the flags, `overrides`, {'epochs': '3'} for --config.epochs=3, and `rest`.

    Args:
      argv: without the program's name.
      usage: what the program does, for --help: its docstring.
      required: flags that must be given; all of them by default.
      switches: the help text of each flag that takes no value, by name.
      positional: what the arguments without a flag are, where there may be any; they come as `rest`.
      places: the flags whose value is a file or a folder of this machine; it comes as a Path (see `base/paths.py`).
      buckets: those of `places` that may lie in a bucket; its address comes as typed (see `base/staging.py`).
      repeated: the flags that may be given several times; their values come as a list.
      **options: the help text of each flag that takes a value, by name.

    Raises:
      UserError: an unknown flag, a flag without a value, a missing one, one given twice, a path of another machine.
    """
    defined = flags.FlagValues()
    defined.set_gnu_getopt()  # flags may follow the arguments without one
    for name, help_text in options.items():
        define = flags.DEFINE_multi_string if name in repeated else flags.DEFINE_string
        define(name, None, help_text, flag_values=defined)
    for name, help_text in (switches or {}).items():
        flags.DEFINE_bool(name, False, help_text, flag_values=defined)
    flags.DEFINE_bool('help', False, 'show this text', short_name='h', flag_values=defined)
    own_flags, overrides = _split(argv)
    own_flags = [_with_underscores(argument, defined) for argument in own_flags]
    try:
        rest = defined([sys.argv[0], *own_flags])[1:]  # the first is taken for the program's name
    except flags.UnrecognizedFlagError as error:
        valid = [*options, *(switches or {})]
        hint = _config_hint(error.flagname, argv) if 'config' in options else ''
        hint = hint or f'{nearest(error.flagname, valid)}; --help explains them'
        raise UserError(f'unknown flag --{error.flagname}; {hint}') from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if defined.help:
        print(f'{usage}\n\n{defined.get_help()}{OVERRIDES_HELP if "config" in options else ""}')
        sys.exit(0)
    if overrides and 'config' not in options:
        raise UserError(f'--config.{min(overrides)} changes nothing: this program takes no --config; see --help')
    if rest and positional is None:
        raise UserError(f'unexpected argument {rest[0]!r}; {_rest_hint(rest[0], options)}')
    for name in options if required is None else required:
        if not defined[name].value:
            raise UserError(f'--{name} is missing: {options[name]}')
    for name in options:
        if name not in repeated and defined[name].present > 1:  # the last would win, and nobody would know
            raise UserError(f'--{name} is given {defined[name].present} times; expected one')
    values = {name: defined[name].value for name in [*options, *(switches or {})]}
    values |= {name: values[name] or [] for name in repeated} | _local(values, places, buckets)
    return SimpleNamespace(overrides=overrides, rest=rest, **values)


def _with_underscores(argument: str, defined: flags.FlagValues) -> str:
    """Returns '--dry_run' for '--dry-run'; other arguments as they are."""
    name, equals, value = argument.partition('=')
    flag = name.removeprefix('--').replace('-', '_')
    return f'--{flag}{equals}{value}' if name.startswith('--') and flag in defined else argument


def _local(values: dict, names: tuple[str, ...], buckets: tuple[str, ...]) -> dict[str, str | Path | list[str | Path]]:
    """Returns the values of the flags that are paths and are given."""
    paths_of = {name: value for name in names if (value := values[name])}
    return {
        name: paths.listed(value, f'--{name}', name in buckets)
        if isinstance(value, list)
        else value
        if name in buckets and paths.is_bucket(value)
        else paths.local(value, f'--{name}')
        for name, value in paths_of.items()
    }


def override_flags(overrides: Mapping[str, str | None]) -> list[str]:
    """Returns the flags that overrides are typed as."""
    return [f'--no-config.{key}' if text is None else f'--config.{key}={text}' for key, text in overrides.items()]


def config_of(options: SimpleNamespace) -> ConfigDict:
    """Returns the configuration that --config and its overrides name.

    Raises:
      UserError: as `config.load`.
    """
    return configs.load(options.config, options.overrides)


def integer(flag: str, text: str, least: int = 1) -> int:
    """Returns the whole number that a flag's text is.

    Raises:
      UserError: it is none.
    """
    if not text.isdecimal() or int(text) < least:
        raise UserError(f'--{flag} is {text!r}; expected a whole number of at least {least}')
    return int(text)


def positive(flag: str, text: str) -> float:
    """Returns the number above 0 that a flag has.

    Raises:
      UserError: it has none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f'--{flag} is {text!r}; expected a number above 0')
    return value


def integers(options: SimpleNamespace, *flags: str) -> dict[str, int]:
    """Returns the whole numbers, at least 1, of those flags that are given.

    Raises:
      UserError: a text that is none.
    """
    return {flag: integer(flag, text) for flag in flags if (text := getattr(options, flag))}


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """A context for imports of JAX and what uses it, for the first time in a process: the collector stands still.

    It would look through all modules again and again while they are made, and none of them is ever garbage: a sixth of
    the time of the imports. What is there at the end is not looked at again while the program runs (`gc.freeze`).
    """
    fresh = 'jax' not in sys.modules and gc.isenabled()
    if not fresh:  # within a longer process, whose garbage is not ours to keep
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def tell_new_name(command: str) -> None:
    """Says on standard error what the command that was typed is called now."""
    print(f'note: this command is now: {command}', file=sys.stderr)


def run(main: Callable[[list[str]], int], now: str = '') -> None:
    """Runs a program and exits with its code; a UserError is one line on standard error.

    Args:
      main: of the program: from the command line to the exit code.
      now: the command's name, if it was typed by a former one; it is said.

    Under `python -X dev` it is a traceback. Where whatever reads the output has closed it, as `head` does, the program
    ends silently with 141, as a shell reports a program that SIGPIPE ended.
    """
    keep_freed_pages()
    keep_compiled()
    for stream in (sys.stdout, sys.stderr):
        # Files and pipes get UTF-8, as all that is written; on a terminal without the letters of a name it is escaped.
        file = cast(io.TextIOWrapper, stream)
        file.reconfigure(errors='backslashreplace', encoding=None if stream.isatty() else 'utf-8')
    if now:
        tell_new_name(now)
    try:
        code = _code_of(main)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():  # another pipe, such as to a process that was started
            raise
        os._exit(128 + signal.SIGPIPE)  # at once: Python would flush what nobody reads
    if code:
        # At once: a thread may be compiling, and another host be gone for which JAX would wait.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _code_of(main: Callable[[list[str]], int]) -> int:
    try:
        return main(sys.argv[1:])
    except SystemExit:  # after --help
        sys.stdout.flush()
        raise
    except UserError as error:
        if sys.flags.dev_mode:
            raise
        print(f'error: {" ".join(str(error).split())}', *error.details, sep='\n', file=sys.stderr)
        return error.code


def _reader_is_gone() -> bool:
    """Whether standard output or standard error is a pipe that nobody reads any more."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)  # errors are always reported
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _config_hint(flag: str, argv: list[str]) -> str:
    """Returns what a flag of another program, such as --lr or --epochs, is written as here; '' where it is unknown."""
    name = flag.lstrip('-').replace('-', '_')
    if name in ELSEWHERE:
        return f'write {ELSEWHERE[name]}'
    value = 'VALUE'
    for argument, following in zip(argv, [*argv[1:], '-'], strict=True):
        typed, equals, text = argument.partition('=')
        if argument.startswith('-') and typed.lstrip('-').replace('-', '_') == name:
            value = text if equals else value if following.startswith('-') else following
    key = meant(name) or (name if name in TOP_KEYS else None)
    if key is None:
        return ''
    return f'write --config.{key}={value}'


def _rest_hint(argument: str, options: Mapping[str, str]) -> str:
    key, equals, value = argument.partition('=')
    if 'config' in options and equals and key.replace('.', '').replace('_', '').isalnum():
        return f'write --config.{meant(key) or key.removeprefix("config.")}={value}'
    if 'config' in options and argument.partition(':')[0].endswith('.py'):
        return f'write --config {argument}'
    return 'flags begin with --, see --help'


def _split(argv: list[str]) -> tuple[list[str], dict[str, str | None]]:
    """Takes --config.KEY=VALUE, --config.KEY VALUE and --no-config.KEY out of a command line."""
    own_flags, overrides, arguments = [], {}, iter(argv)
    for argument in arguments:
        name, equals, value = argument.lstrip('-').partition('=')
        removed = name.startswith(('no-config.', 'noconfig.'))
        if not argument.startswith('-') or not (name.startswith('config.') or removed):
            # --dry-run and --dry_run are one flag.
            own_flags.append(
                argument.replace(name, name.replace('-', '_'), 1) if argument.startswith('--') else argument
            )
            continue
        key = name.partition('config.')[2]
        if removed:
            if equals:
                raise UserError(f'--{name} takes an argument away and no value; write --config.{key}={value} to set it')
            overrides[key] = None
            continue
        if not equals:
            value = next(arguments, None)
            if value is None:
                raise UserError(f'--{name} has no value; write --{name}=VALUE')
        overrides[key] = value
    return own_flags, overrides
