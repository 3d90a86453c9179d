"""The field's words in plain English: constructions that no docstring, comment or page uses."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST = 0.5  # in 1,000 words, of each place
# What to say in their place: the noun of the thing; "if None", "by default".
CONSTRUCTIONS = re.compile(
    r'\b(those of|that of|of which|of whom|of those|where not given|where none is given|if not given|of what it is|'
    r'what it is of|to the bit|pupil|whereof|thereof|normalis\w*)\b',
    re.I,
)
# Names of variables that hide what they hold; the noun of the thing takes their place. `left` is a side, beside `right`
# or `top`, and nothing else.
HIDING = {'found', 'whole', 'own', 'given', 'each', 'said', 'told', 'made', 'begun', 'asked'}
SIDES = {'left': {'right', 'top', 'bottom'}}
ROOMS = sorted(path.name for path in (ROOT / 'cvresearch').iterdir() if path.is_dir() and path.name[0] != '_')


def said_in(path):
    """Returns the docstrings of a module's parts, and its comments."""
    text = path.read_text()
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docs = [ast.get_docstring(node) or '' for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return '\n'.join([*docs, *re.findall(r'(?<!&)#(?!:) (.*)', text)])


def check(text):
    found, words = CONSTRUCTIONS.findall(text), len(text.split())
    assert 1000 * len(found) <= MOST * words, f'{len(found)} in {words:,} words: {", ".join(found[:20])}'


@pytest.mark.parametrize('room', ROOMS)
def test_a_room_is_in_plain_words(room):
    check('\n'.join(said_in(path) for path in sorted((ROOT / 'cvresearch' / room).rglob('*.py'))))


def test_the_programs_and_the_recipes_are_in_plain_words():
    files = [*(ROOT / 'cvresearch').glob('*.py'), *(ROOT / 'configs').glob('*.py'), *(ROOT / 'launch').glob('*.py')]
    check('\n'.join(map(said_in, sorted(files))))


def test_the_documents_are_in_plain_words():
    files = [*ROOT.glob('*.md'), *(path for path in (ROOT / 'docs').rglob('*.md') if 'records' not in path.parts)]
    check('\n'.join(path.read_text() for path in sorted(files)))


def variables(function):
    """Yields the names that a function's arguments, its assignments and its loops make, and the lines."""
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


@pytest.mark.parametrize('folder', ['cvresearch', 'configs', 'launch'])
def test_variables_are_named_for_what_they_hold(folder):
    hiding = set()
    for path in sorted((ROOT / folder).rglob('*.py')):
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        for function in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)):
            names = list(variables(function))
            bad = HIDING | {name for name, beside in SIDES.items() if not beside & {name for name, _ in names}}
            hiding |= {f'{path.relative_to(ROOT)}:{line} {name}' for name, line in names if name in bad}
    assert not hiding, '\n'.join(sorted(hiding))
