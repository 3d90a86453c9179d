"""Pages are read aloud without losing breath."""

import doctest
from pathlib import Path

import pytest

from tests.docs import language

PAGES = [*Path().glob('*.md'), *(page for page in sorted(Path('docs').rglob('*.md')) if 'records' not in page.parts)]
MEAN, MOST = 25, 60  # words


def too_long(text):
    """Returns the mean length of a text's sentences if it is too long, and each sentence that is too long itself."""
    found = language.sentences(text)
    mean = sum(map(language.words, found)) / len(found)
    return [f'mean {mean:.1f}'] * (mean >= MEAN) + [one for one in found if language.words(one) > MOST]


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_sentences_are_short(page):
    assert not too_long(page.read_text(encoding='utf-8'))


def test_sentences_are_found_and_long_ones_told():
    assert doctest.testmod(language).failed == 0
    assert too_long('One ' * 24 + 'word.') and not too_long('One two.\n\n```bash\n' + 'ls ' * 90 + '\n```\n')
    assert too_long('Short. ' * 9 + 'Word ' * 61 + 'end.')[0].startswith('Word')
