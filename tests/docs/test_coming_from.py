"""The pages for people from another library name commands, flags, keys, files and Python that exist."""

import re
from pathlib import Path

import pytest

import cvresearch
from cvresearch.base import config as configs
from cvresearch.base.errors import lookup
from cvresearch.engine import arguments
from tests import reference

OF_A_NET = {*vars(cvresearch.Classifier), *cvresearch.Classifier.__annotations__, 'onnx', 'h5', 'keras', 'pth'}  # files
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
        found += [name for name in re.findall(r'\bcvresearch\.(\w+)\(', code) if name not in cvresearch.__all__]
        found += [name for name in re.findall(r'\bnet\.(\w+)', code) if name not in OF_A_NET]
        for file, arguments_of_it in re.findall(r'(configs/(?!NAME)\w+\.py)(:[\w,]+)?', code):
            configs.load(f'{file}{arguments_of_it}')
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
    assert mistakes('`net.embed(pixels)`') and mistakes("`cvresearch.create('resnet50')`")
    assert mistakes('`--config.optimizer.betas=1`')
    with pytest.raises(Exception, match='resnet50'):
        mistakes('`--config configs/resnet51.py`')
    with pytest.raises(Exception, match='adamw'):
        mistakes('`--config.optimizer.name=adamv`')
