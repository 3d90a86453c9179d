"""Command lines: flags by absl, configuration overrides, and errors of one line."""

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from absl import flags
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import paths
from cvresearch.base.compile_cache import keep_compiled
from cvresearch.base.errors import UserError, nearest
from cvresearch.base.memory import keep_freed_pages


def parse(
    argv: list[str], usage: str, required: tuple[str, ...] | None = None, switches: dict[str, str] | None = None,
    positional: str | None = None, places: tuple[str, ...] = (), repeated: tuple[str, ...] = (), **options: str,
) -> SimpleNamespace:  # fmt: skip
    """Returns the values of the flags, `overrides`, {'epochs': '3'} for --config.epochs=3, and `rest`.

    Args:
      argv: without the program's name.
      usage: what the program does, for --help.
      required: flags that must be given; all of them by default.
      switches: the help text of each flag that takes no value, by name.
      positional: what the arguments without a flag are, where there may be any; they come as `rest`.
      places: the flags whose value is a file or a folder of this machine; it comes as a Path (see `base/paths.py`).
      repeated: the flags that may be given several times; their values come as a list.
      **options: the help text of each flag that takes a value, by name.

    Raises:
      UserError: an unknown flag, a flag without a value, a missing one, a path of another machine.
    """
    defined = flags.FlagValues()
    defined.set_gnu_getopt()  # flags may follow the arguments without one
    for name, help_text in options.items():
        define = flags.DEFINE_multi_string if name in repeated else flags.DEFINE_string
        define(name, None, help_text, flag_values=defined)
    for name, help_text in (switches or {}).items():
        flags.DEFINE_bool(name, False, help_text, flag_values=defined)
    flags.DEFINE_bool('help', False, 'show this text', short_name='h', flag_values=defined)
    own, overrides = _split(argv)
    try:
        rest = defined([sys.argv[0], *own])[1:]  # the first is taken for the program's name
    except flags.UnrecognizedFlagError as error:
        valid = [*options, *(switches or {})]
        raise UserError(f'unknown flag --{error.flagname}; {nearest(error.flagname, valid)}') from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if defined.help:
        more = '--config.KEY=VALUE overrides a value of the configuration.'
        print(f'{usage}\n\n{defined.get_help()}\n{more}')
        sys.exit(0)
    if rest and positional is None:
        raise UserError(f'unexpected argument {rest[0]!r}; flags begin with --, see --help')
    for name in options if required is None else required:
        if not defined[name].value:
            raise UserError(f'--{name} is missing: {options[name]}')
    values = {name: defined[name].value for name in [*options, *(switches or {})]}
    values |= {name: values[name] or [] for name in repeated} | _local(values, places)
    return SimpleNamespace(overrides=overrides, rest=rest, **values)


def _local(values: dict, names: tuple[str, ...]) -> dict[str, Path | list[Path]]:
    """Returns the values of the flags that are paths and are given."""
    found = {name: value for name in names if (value := values[name])}
    return {
        name: paths.listed(value, f'--{name}') if isinstance(value, list) else paths.local(value, f'--{name}')
        for name, value in found.items()
    }


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


def run(main: Callable[[list[str]], int]) -> None:
    """Runs a program and exits with its code; a UserError is one line on standard error.

    Under `python -X dev` it is a traceback. Where whatever reads the output has closed it, as `head` does, the program
    ends silently with 141, as a shell reports a program that SIGPIPE ended.
    """
    keep_freed_pages()
    keep_compiled()
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


def _split(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Takes --config.KEY=VALUE and --config.KEY VALUE out of a command line."""
    own, overrides, arguments = [], {}, iter(argv)
    for argument in arguments:
        name, equals, value = argument.lstrip('-').partition('=')
        if not argument.startswith('-') or not name.startswith('config.'):
            # --dry-run and --dry_run are one flag.
            own.append(argument.replace(name, name.replace('-', '_'), 1) if argument.startswith('--') else argument)
            continue
        if not equals:
            value = next(arguments, None)
            if value is None:
                raise UserError(f'--{name} has no value; write --{name}=VALUE')
        overrides[name.removeprefix('config.')] = value
    return own, overrides
