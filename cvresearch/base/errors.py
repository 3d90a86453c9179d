"""How the program says no: one line with what was got, what was expected, and what to do."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping

FAILED = 1  # the run itself went wrong: a loss that is not finite, a full disk
BAD_INPUT = 2  # the user must change something; nothing was written
PREEMPTED = 75  # EX_TEMPFAIL: state is saved, a scheduler may requeue the same command


class UserError(Exception):
    """Bad input. Programs print its message as one line and exit with `code`."""

    code = BAD_INPUT


class RunError(UserError):
    """A run that cannot go on, though its input was good."""

    code = FAILED


def nearest(word: str, choices: Iterable[str], most: int = 3) -> str:
    """Returns "did you mean a, b?; valid: ..." for a misspelt `word`."""
    choices = sorted(choices)
    folded = {choice.lower(): choice for choice in choices}
    close = [folded[c] for c in difflib.get_close_matches(word.lower(), folded, n=most, cutoff=0.5)]
    valid = f'valid: {", ".join(choices) or "none"}'
    return f'did you mean {" or ".join(close)}? {valid}' if close else valid


def lookup(kind: str, table: Mapping, name: str):
    """Returns `table[name]`.

    Raises:
      UserError: `name` is not in the table; the message lists what is.
    """
    if name not in table:
        raise UserError(f'unknown {kind} {name!r}; {nearest(str(name), table)}')
    return table[name]


def construct(kind: str, table: Mapping[str, Callable], spec: Mapping, **given):
    """Calls `table[spec['name']](**the rest of spec, **given)`.

    Args:
      kind: what is made, for messages ("optimizer").
      table: constructors by name.
      spec: a config's sub-dict: `name`, and keyword arguments of that constructor.
      **given: what the program supplies; passed only where the constructor takes it.

    Raises:
      UserError: an unknown name or an argument that the constructor does not take.
    """
    arguments = dict(spec)
    if 'name' not in arguments:
        raise UserError(f'config.{kind} has no name; valid: {", ".join(sorted(table))}')
    name = arguments.pop('name')
    make = lookup(kind, table, name)
    accepted = set(inspect.signature(make).parameters)
    check_arguments(f'{kind} {name!r}', arguments, accepted - set(given))
    try:
        return make(**arguments, **{k: v for k, v in given.items() if k in accepted})
    except TypeError as error:
        raise UserError(f'{kind} {name!r}: {error}') from error


def check_arguments(what: str, arguments: Iterable[str], accepted: Iterable[str]) -> None:
    """Raises UserError where `arguments` holds a name that is not `accepted`."""
    for argument in arguments:
        if argument not in accepted:
            raise UserError(f'{what} takes no argument {argument!r}; {nearest(argument, accepted)}')
