"""Fonts for names in any script: Matplotlib's own has Latin, Greek and Cyrillic letters alone."""

import contextlib
import sys
import warnings
from collections.abc import Iterator

from matplotlib import font_manager, rcParams
from matplotlib.figure import Figure
from matplotlib.text import Text


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves out Matplotlib's warning for each letter that its font lacks: `for_all` says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing from', UserWarning)
        yield


def for_all(figure: Figure) -> None:
    """Gives the texts of a figure fonts that have their letters, where this machine has any.

    Letters that no font has are boxes in PNG and PDF; they are named on standard error.
    """
    texts = [text for text in figure.findobj(Text) if not text.get_text().isascii()]
    names, missing = families(''.join(text.get_text() for text in texts))
    if len(names) > 1:
        for text in texts:
            text.set_fontfamily(names)
    if missing:
        print(f'no font on this machine has {" ".join(missing)}: boxes stand there (not in SVG)', file=sys.stderr)


def families(text: str) -> tuple[list[str], list[str]]:
    """Returns the names of fonts that together have the characters of a text, and the characters that none has."""
    default = font_manager.findfont(rcParams['font.sans-serif'][0])
    # The minus and the superscripts of axes are in Matplotlib's own font.
    missing = _without(default, {c for c in text if not c.isspace() and c.isprintable()})
    names = [rcParams['font.sans-serif'][0]]
    for entry in font_manager.fontManager.ttflist if missing else ():
        absent = _without(entry.fname, missing)
        if len(absent) < len(missing):
            names.append(entry.name)
            missing = absent
    return names, sorted(missing)


def _without(file: str, characters: set[str]) -> set[str]:
    try:
        font = font_manager.get_font(file)
    except (OSError, RuntimeError):  # a font that cannot be read has no letters
        return characters
    return {character for character in characters if not font.get_char_index(ord(character))}
