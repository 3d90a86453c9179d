"""Command lines: flags by absl, configuration overrides, and errors of one line."""

import sys
from collections.abc import Callable
from types import SimpleNamespace

from absl import flags
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base.errors import UserError, nearest


def parse(argv: list[str], usage: str, required: tuple[str, ...] | None = None, **options: str) -> SimpleNamespace:
    """Returns the values of the flags, and `overrides`, {'epochs': '3'} for --config.epochs=3.

    Args:
      argv: without the program's name.
      usage: what the program does, for --help.
      required: flags that must be given; all of them by default.
      **options: the help text of each flag, by name.

    Raises:
      UserError: an unknown flag, a flag without a value, a missing one.
    """
    defined = flags.FlagValues()
    for name, help_text in options.items():
        flags.DEFINE_string(name, None, help_text, flag_values=defined)
    flags.DEFINE_bool('help', False, 'show this text', short_name='h', flag_values=defined)
    own, overrides = _split(argv)
    try:
        rest = defined([sys.argv[0], *own])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f'unknown flag --{error.flagname}; {nearest(error.flagname, options)}') from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if defined.help:
        print(f'{usage}\n\n{defined.get_help()}' + '\n--config.KEY=VALUE overrides a value of the configuration.')
        sys.exit(0)
    if rest:
        raise UserError(f'unexpected argument {rest[0]!r}; flags begin with --, see --help')
    for name in options if required is None else required:
        if not defined[name].value:
            raise UserError(f'--{name} is missing: {options[name]}')
    return SimpleNamespace(overrides=overrides, **{name: defined[name].value for name in options})


def config_of(options: SimpleNamespace) -> ConfigDict:
    """Returns the configuration that --config and its overrides name.

    Raises:
      UserError: as `config.load`.
    """
    return configs.load(options.config, options.overrides)


def run(main: Callable[[list[str]], int]) -> None:
    """Runs a program and exits with its code; a UserError is one line on standard error."""
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        code = error.code
    sys.exit(code)


def _split(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Takes --config.KEY=VALUE and --config.KEY VALUE out of a command line."""
    own, overrides, arguments = [], {}, iter(argv)
    for argument in arguments:
        name, equals, value = argument.lstrip('-').partition('=')
        if not argument.startswith('-') or not name.startswith('config.'):
            own.append(argument)
            continue
        if not equals:
            value = next(arguments, None)
            if value is None:
                raise UserError(f'--{name} has no value; write --{name}=VALUE')
        overrides[name.removeprefix('config.')] = value
    return own, overrides
