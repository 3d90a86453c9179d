"""Values of a configuration as they are typed on a command line."""

import ast
import re

WORDS = {'true': True, 'false': False, 'none': None}
SWITCHES = {'true': True, 'yes': True, 'on': True, '1': True, 'false': False, 'no': False, 'off': False, '0': False}
_BARE = re.compile(r'[\w./*-]+(,[\w./*-]+)*,?')  # words with commas between, without quotes or brackets


def parse(text: str):
    """Reads a Python literal, true/false/none in any case, or else the text itself."""
    if text.strip().lower() in WORDS:
        return WORDS[text.strip().lower()]
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def typed(text: str, kind: type):
    """Returns the value of type `kind` that a text says.

    Text stays as it is, but for a pair of quotes around it; '3' and '3.0' serve as float and as int, 'yes', 'on' and
    '1' as True; 'stem,head', '1,2' and '(1, 2)' are tuples. Of any other kind the value is what `parse` reads.

    Raises:
      ValueError: the text says no such value.
    """
    value = parse(text)
    if kind is str:
        return value if isinstance(value, str) else text
    if kind is bool:
        if text.strip().lower() not in SWITCHES:
            raise ValueError(text)
        return SWITCHES[text.strip().lower()]
    if kind is tuple and isinstance(value, str) and _BARE.fullmatch(value):
        value = tuple(parse(word) for word in value.split(',') if word)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is int and type(value) is float and value.is_integer():
        value = int(value)
    if kind in (int, float, tuple) and type(value) is not kind:
        raise ValueError(text)
    return value
