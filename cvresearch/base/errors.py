"""How the program says no: one line with what was got, what was expected, and what to do."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

T = TypeVar('T')

FAILED = 1  # the run itself went wrong: a loss that is not finite, a full disk
BAD_INPUT = 2  # the user must change something; nothing was written
HOST_LOST = 76  # another host is gone: the same command, on all of them, goes on from the last checkpoint
PREEMPTED = 75  # EX_TEMPFAIL: state is saved, a scheduler may requeue the same command


class UserError(Exception):
    """Bad input. Programs print its message as one line, `details` below it, and exit with `code`."""

    code = BAD_INPUT

    def __init__(self, message: str, details: Iterable[str] = ()):
        super().__init__(message)
        self.details = tuple(details)


class RunError(UserError):
    """A run that cannot go on, though its input was good."""

    code = FAILED


MOST_SHOWN = 200  # characters of a list of names


def nearest(word: str, choices: Iterable[str], most: int = 3, see: str = '', every: bool = False) -> str:
    """Returns "did you mean a, b? valid: ..." for a misspelt `word`.

    Args:
      word: as it was given.
      choices: the valid names.
      most: of the nearest.
      see: how all of them can be seen, where they are too many for a line.
      every: say all of them, however many they are.
    """
    choices = sorted(choices)
    folded = {choice.lower(): choice for choice in choices}
    close = [folded[c] for c in difflib.get_close_matches(word.lower(), folded, n=most, cutoff=0.5)]
    hint = f'did you mean {" or ".join(close)}? ' if close else ''
    listing = ', '.join(choices) or 'none'
    if every or len(listing) <= (MOST_SHOWN // 2 if close else MOST_SHOWN):
        return f'{hint}valid: {listing}'
    if close:
        return f'{hint}{see or f"(of {len(choices)})"}'
    shown = [choice for place, choice in enumerate(choices) if len(', '.join(choices[: place + 1])) <= MOST_SHOWN // 2]
    more = f'{len(choices) - len(shown)} more'
    return f'valid: {", ".join(shown)} and {more}{f"; {see}" if see else ""}'


def lookup(kind: str, table: Mapping, name: str, see: str = ''):
    """Returns `table[name]`.

    Raises:
      UserError: `name` is not in the table; the message has the nearest that are, and `see`, where they are many.
    """
    if name not in table:
        raise UserError(f'unknown {kind} {name!r}; {nearest(str(name), table, see=see)}')
    return table[name]


def construct(kind: str, table: Mapping[str, Callable], spec: Mapping, **supplied):
    """Calls `table[spec['name']](**the rest of spec, **given)`.

    Args:
      kind: what is made, for messages ("optimizer").
      table: constructors by name.
      spec: a config's sub-dict: `name`, and keyword arguments of that constructor.
      **supplied: what the program supplies; passed only where the constructor takes it.

    Raises:
      UserError: an unknown name or an argument that the constructor does not take.
    """
    arguments = dict(spec)
    if 'name' not in arguments:
        raise UserError(f'config.{kind} has no name; valid: {", ".join(sorted(table))}')
    name = arguments.pop('name')
    make = lookup(kind, table, name)
    parameters = inspect.signature(make).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items() if key not in supplied}
    check_arguments(f'{kind} {name!r}', arguments, defaults)
    try:
        return make(**arguments, **{key: value for key, value in supplied.items() if key in parameters})
    except TypeError as error:
        raise UserError(f'{kind} {name!r}: {error}') from error


def construct_only(group: str, constructor: Callable[..., T], spec: Mapping) -> T:
    """Calls `constructor(**spec)`, the only constructor of a group of a configuration, which so has no name.

    Raises:
      UserError: an argument that the constructor does not take, or of another type.
    """
    parameters = inspect.signature(constructor).parameters
    check_arguments(f'config.{group}', spec, {name: one.default for name, one in parameters.items()})
    return constructor(**spec)


def check_arguments(what: str, arguments: Mapping, defaults: Mapping) -> None:
    """Checks keyword arguments that come from a configuration.

    Args:
      what: takes them, for the message ("optimizer 'adamw'").
      arguments: values by name.
      defaults: the default of each argument that is accepted; a value must be of its default's
        type, if that is a number, text or tuple (a whole number serves as a float).

    Raises:
      UserError: an argument that is not accepted, or of another type.
    """
    for argument, value in arguments.items():
        if argument not in defaults:
            raise UserError(f'{what} takes no argument {argument!r}; {nearest(argument, [*defaults, "name"])}')
        expected, got = type(defaults[argument]), type(value)
        fits = got is expected or (expected is float and (got is int or isinstance(value, float)))
        fits = fits or (expected is tuple and got is list)
        if expected in (bool, int, float, str, tuple) and not fits:
            raise UserError(
                f'{what}: {argument} is {value!r} ({got.__name__}); expected {expected.__name__}, '
                f'such as {defaults[argument]!r}'
            )


def reason(error: BaseException) -> str:
    """Returns what a server or its package said, on one line."""
    return f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
