"""The reference leaves out no key, no command and no public name, and its examples are true."""

import doctest
import json
import re
from pathlib import Path

import numpy as np
import pytest

import cvresearch
from cvresearch.base import config as configs
from cvresearch.base.overrides import flatten
from cvresearch.evaluation import feature_files, predictions
from tests import reference

DOCS = Path('docs/reference')
CONFIGS = [path for path in sorted(Path('configs').glob('*.py')) if path.stem not in ('__init__', 'common')]


def test_every_key_has_a_meaning_and_a_type():
    assert not [key.path for key in reference.every_key() if not (key.meaning and key.kind)]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_key_of_an_experiment_file_is_in_the_reference(path):
    known = {key.path for key in reference.every_key()}
    used = {key.replace('transform.eval', 'transform.train') for key in flatten(configs.load(f'{path}:smoke'))}
    assert not [key for key in used - known if not key.startswith('model.')]


def test_every_command_and_public_name_has_its_section():
    text = (DOCS / 'commands.md').read_text()
    assert reference.commands() and all(f'\n## cvresearch {verb}\n' in text for verb in reference.commands())
    text = (DOCS / 'python.md').read_text()
    assert all(f'`cvresearch.{name}`' in text for name in cvresearch.__all__)
    names = [name for name in vars(cvresearch.Classifier) if not name.startswith('_')]
    assert {'logits', 'provenance'} <= set(names) | set(cvresearch.Classifier.__annotations__)
    assert not [name for name in names if not re.search(rf'`[^`]*\b{name}\b', text)]


def test_examples_in_python_are_true():
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    blocks = re.findall(r'^```python\n(.*?)^```', (DOCS / 'python.md').read_text(), re.S | re.M)
    examples = doctest.DocTestParser().get_doctest('\n'.join(blocks), {}, 'python.md', None, 0)
    assert len(examples.examples) > 10
    assert doctest.DocTestRunner(verbose=False, optionflags=flags).run(examples).failed == 0


def test_records_are_explained():
    text = (DOCS / 'records.md').read_text()
    for path in Path('docs/records').glob('*_mnist5k_seed0'):
        card = json.loads((path / 'run.json').read_text())
        rows = [json.loads(line) for line in (path / 'metrics.jsonl').read_text().splitlines()]
        keys = {*card, *(key for row in rows if row['split'] in ('train', 'test') for key in row)}
        assert not [key for key in keys if f'`{key}`' not in text], path


def test_kept_predictions_and_features_are_explained(tmp_path):
    text = (DOCS / 'records.md').read_text()
    file = tmp_path / 'test.npz'
    predictions.Predictions(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32), {}, ('a', 'b', 'c')).save(file)
    with np.load(file) as kept:
        assert not [name for name in (*kept.files, *feature_files.KEYS) if f'`{name}`' not in text]


def test_a_docstring_is_read_by_its_arguments():
    def constructor(rate, decay, mask):
        """Something.

        Args:
          rate: the first line,
            and the second: with a colon.
          decay, mask: of both.

        Raises:
          UserError: never.
        """

    told = reference.documented(constructor)
    assert told == {'rate': 'the first line, and the second: with a colon.', 'decay': 'of both.', 'mask': 'of both.'}
