"""Names as they are: text of users into LaTeX, Markdown, HTML, CSV and the pictures of Matplotlib.

A name may hold any character. Each function returns what its reader prints as that name, on one line.
"""

# ruff: noqa: RUF001  (characters that look alike are what this is about)

import html as _html
import re
import unicodedata

_LATEX = {
    '_': r'\_',
    '%': r'\%',
    '&': r'\&',
    '#': r'\#',
    '$': r'\$',
    '{': r'\{',
    '}': r'\}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '\\': r'\textbackslash{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '"': r'\textquotedblright{}',
    '`': r'\textasciigrave{}',
    '\u00a0': '~',
    # After \\ they would be read as its arguments.
    '[': '{[}',
    ']': '{]}',
    '*': '{*}',
    '–': '--',
    '—': '---',
    '‘': r'\textquoteleft{}',
    '’': r'\textquoteright{}',
    '“': r'\textquotedblleft{}',
    '”': r'\textquotedblright{}',
    '…': r'\dots{}',
    '×': r'$\times$',
    '±': r'$\pm$',
    '·': r'$\cdot$',
    '−': '$-$',
    '°': r'$^\circ$',
    'µ': r'$\mu$',
    '≤': r'$\leq$',
    '≥': r'$\geq$',
    '→': r'$\rightarrow$',
    'ß': r'\ss{}',
    'æ': r'\ae{}',
    'Æ': r'\AE{}',
    'œ': r'\oe{}',
    'Œ': r'\OE{}',
    'ø': r'\o{}',
    'Ø': r'\O{}',
    'ł': r'\l{}',
    'Ł': r'\L{}',
    'ı': r'\i{}',
    '§': r'\S{}',
}
_ACCENTS = {
    '\u0300': '`',
    '\u0301': "'",
    '\u0302': '^',
    '\u0303': '~',
    '\u0304': '=',
    '\u0306': 'u',
    '\u0307': '.',
    '\u0308': '"',
    '\u030a': 'r',
    '\u030b': 'H',
    '\u030c': 'v',
    '\u0327': 'c',
    '\u0323': 'd',
}
# pdfLaTeX has no font for other scripts and stops at them; it prints their code points. With LuaLaTeX or XeLaTeX and a
# font that has them, \newcommand{\otherscript}[2]{#1} before the table prints them as they are.
OTHER_SCRIPT = r'\providecommand{\otherscript}[2]{#2}'


def line(text: str) -> str:
    """Returns text on one line that any file can hold: what is no printable character shows its number."""
    return ''.join(_shown(c) for c in re.sub(r'\s*[\n\r\v\f\x85\u2028\u2029]\s*|\t', ' ', text))


def _shown(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file's name that is not UTF-8
        return f'\\x{number - 0xDC00:02x}'
    if unicodedata.category(character) == 'Cs':
        return f'\\u{number:04x}'
    # Direction marks would turn round what stands beside the name.
    bidi = 0x202A <= number <= 0x202E or 0x2066 <= number <= 0x2069
    return f'\\x{number:02x}' if unicodedata.category(character) == 'Cc' else f'\\u{number:04x}' if bidi else character


def latex(text: str) -> str:
    """Returns text that pdfLaTeX, XeLaTeX and LuaLaTeX print as it is; see `OTHER_SCRIPT`."""
    parts = [_latex_of(character) for character in unicodedata.normalize('NFC', line(text))]
    # LaTeX would make one character of several.
    return re.sub(r"-(?=-)|'(?=')|,(?=,)|[?!](?=')", lambda match: match[0] + '{}', ''.join(parts)) if parts else ''


def _latex_of(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii():
        return character
    base, *marks = unicodedata.normalize('NFD', character)
    if len(marks) == 1 and base.isascii() and base.isalpha() and marks[0] in _ACCENTS:
        return rf'\{_ACCENTS[marks[0]]}{{{base}}}'
    return rf'\otherscript{{{character}}}{{[U+{ord(character):04X}]}}'


def mathtext(text: str) -> str:
    """Returns text that Matplotlib draws as it is: a dollar sign begins no formula."""
    return line(text).replace('$', r'\$')


def html(text: str) -> str:
    """Returns text for an element or a quoted attribute of HTML."""
    return _html.escape(line(text))


def html_block(text: str) -> str:
    """Returns text of several lines for an element that keeps them, such as <pre>."""
    return '\n'.join(map(html, text.split('\n')))


def markdown(text: str) -> str:
    """Returns text for a cell or a line of Markdown (CommonMark, with GitHub's tables)."""
    text = re.sub(r'\\(?=[!-/:-@\[-`{-~])|[|*`<$~]|&(?=#?\w+;)|\](?=[(\[:])', r'\\\g<0>', line(text))
    # Within a word an underscore is itself.
    return re.sub(r'(?<![^\W_])_|_(?![^\W_])', r'\\_', text)


def csv(text: str) -> str:
    """Returns text for a cell of CSV. The csv module quotes; a spreadsheet would run what begins as a formula."""
    text = '\n'.join(map(line, text.split('\n')))
    return f"'{text}" if text[:1] in ('=', '+', '-', '@') and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == '-'
    return True
