"""The pages for those who come from another library name commands, flags and keys that exist."""

import re
from pathlib import Path

import pytest

from cvresearch.base.errors import lookup
from cvresearch.engine import arguments
from tests import reference

PAGES = sorted(Path('docs/coming_from').glob('*.md'))


def mistakes(text):
    """Returns the verbs, flags, keys and names of constructors in a text that do not exist."""
    found, known = [], {key.path for key in reference.every_key()}
    groups = '|'.join({key.partition('.')[0] for key in known if '.' in key})
    for code in re.findall(r'`([^`]+)`', text):
        found += reference.strangers(code)
        for key, value in re.findall(r'--config\.([\w.]+?)=([\w./]+)', code):
            if key not in known and key != 'KEY' and not key.startswith('model.'):
                found.append(key)
            group, _, last = key.rpartition('.')
            if last == 'name' and group != 'model' and value != 'NAME':
                lookup(key, arguments._group(group).table, value)
        if re.fullmatch(rf'({groups})\.[\w.]+', code):
            found += [code] if code not in known else []
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_fifteen_rows_of_what_exists(page):
    text = page.read_text()
    assert len(re.findall(r'^\| [^-]', text, re.M)) == 1 + 15
    assert not mistakes(text.replace('\\|', ' '))


def test_a_verb_a_flag_and_a_key_that_do_not_exist_are_found():
    assert mistakes('`cvresearch fit`') and mistakes('`cvresearch train --lr 1`') and mistakes('`optimizer.lr`')
    assert mistakes('`mixing.alpha`')
    assert mistakes('`--config.optimizer.betas=1`')
    with pytest.raises(Exception, match='adamw'):
        mistakes('`--config.optimizer.name=adamv`')
