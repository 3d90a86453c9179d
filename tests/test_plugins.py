"""Nets and datasets from outside the package: the example of the documents, found again by every program."""

import json
import re
import sys
from pathlib import Path

import pytest

from cvresearch import evaluate, train
from cvresearch.base import config as configs
from cvresearch.base import plugins
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.engine.experiment import Experiment
from cvresearch.inspect import summary
from cvresearch.models import registry

PAGE = Path('docs/own_images.md').read_text('utf-8')
EXAMPLE = re.search(r'<!-- plugin example -->\n```python\n(.*?)```', PAGE, re.S)[1]
SPEC = 'configs/lenet5_fake.py'
SMALL = {
    'model.name': 'small',
    'data.name': 'stripes',
    'epochs': '2',
    'mesh.data': '1',
    'schedule.warmup_epochs': '0.1',
}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Each test has a process' first look at plugins; modules and paths that it leaves behind are taken away."""
    monkeypatch.setattr(plugins, '_LOADED', {})
    before, path = set(sys.modules), list(sys.path)
    registry._all.cache_clear()
    yield
    registry._all.cache_clear()
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith(('my_lab', '_plugin')):
            del sys.modules[name]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with my_lab/nets.py, from which programs are called."""
    (tmp_path / 'my_lab').mkdir()
    (tmp_path / 'my_lab/nets.py').write_text(EXAMPLE)
    (tmp_path / 'configs').symlink_to(Path('configs').resolve())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def anew():
    plugins._LOADED.clear()
    registry._all.cache_clear()


@pytest.mark.parametrize('plugin', ['my_lab.nets', 'my_lab/nets.py'])
def test_the_example_is_trained_evaluated_and_found_again(plugin, lab, monkeypatch):
    config = configs.load(SPEC, {**SMALL, 'plugins': plugin, 'model.width': '8', 'data.n': '128'})
    assert train.run(config, lab / 'run') == 0
    (row,) = read_card(lab / 'run')['plugins']
    assert Path(row['file']).samefile(lab / 'my_lab/nets.py') and len(row['sha256']) == 64
    anew()
    monkeypatch.setenv('PYTHONPATH', str(lab))
    assert evaluate.run(lab / 'run')['n_seen'] == 64
    anew()
    assert train.run(configs.from_json((lab / 'run/config.json').read_text()), lab / 'run') == 0
    assert len(EXAMPLE.splitlines()) <= 26


def test_a_wrong_argument_of_a_plugins_net_or_data_is_said_as_of_any(lab):
    for key in ('model.depth', 'data.m'):
        with pytest.raises(UserError, match=r'unknown config key|takes no argument'):
            configs.load(SPEC, {**SMALL, 'plugins': 'my_lab.nets', key: '3'})


def test_summary_takes_a_plugin(lab, capsys):
    assert summary.main(['small', '--plugins', 'my_lab/nets.py', '--image_size', '8']) == 0
    assert 'small, input 8x8x3' in capsys.readouterr().out


def test_a_plugin_that_is_gone_is_one_line_that_says_where_it_was(lab):
    config = configs.load(SPEC, {**SMALL, 'plugins': 'my_lab.nets'})
    assert train.run(config, lab / 'run') == 0
    anew()
    sys.modules.pop('my_lab.nets')
    (lab / 'my_lab/nets.py').rename(lab / 'my_lab/other.py')
    with pytest.raises(UserError, match=r'no module .my_lab.nets. \(the run had it from .*nets.py\); set PYTHONPATH'):
        evaluate.run(lab / 'run')


def test_a_plugin_that_has_changed_is_said_and_recorded(lab, capsys):
    config = configs.load(SPEC, {**SMALL, 'plugins': 'my_lab/nets.py', 'save_every_epochs': '1'})
    assert train.run(config, lab / 'run') == 0
    (lab / 'my_lab/nets.py').write_text(EXAMPLE + '# changed\n')
    evaluate.run(lab / 'run')
    assert 'has changed since the run began' in capsys.readouterr().err
    longer = configs.load(SPEC, {**SMALL, 'plugins': 'my_lab/nets.py', 'save_every_epochs': '1', 'epochs': '3'})
    assert train.run(longer, lab / 'run', extend=True) == 0
    assert 'has changed' in ' '.join(read_card(lab / 'run')['sessions'][-1]['continued_with'])


def test_a_run_may_go_on_where_the_plugin_lies_elsewhere(lab):
    config = configs.load(SPEC, {**SMALL, 'plugins': 'my_lab/nets.py', 'epochs': '1'})
    assert train.run(config, lab / 'run') == 0
    (lab / 'my_lab').rename(lab / 'moved')
    anew()
    moved = configs.load(SPEC, {**SMALL, 'plugins': 'moved/nets.py'})
    assert train.run(moved, lab / 'run', extend=True) == 0


def test_a_run_brings_no_code_of_its_own(lab):
    config = configs.load(SPEC, {**SMALL, 'plugins': 'my_lab/nets.py'})
    assert train.run(config, lab / 'run') == 0
    anew()
    (lab / 'run/evil.py').write_text('raise SystemExit("ran")\n' + EXAMPLE)
    kept = json.loads((lab / 'run/config.json').read_text()) | {'plugins': [str(lab / 'run/evil.py')]}
    (lab / 'run/config.json').write_text(json.dumps(kept))
    with pytest.raises(UserError, match='in the folder of the run'):
        evaluate.run(lab / 'run')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('VARIANTS = {"lenet5": None}', 'name of the package'),
        ('1 / 0', 'ZeroDivisionError'),
        ('x = (', 'SyntaxError'),
        ('import nowhere_at_all', 'nowhere_at_all'),
        ('x = 1', 'registers nothing'),
        ('SOURCES = {"mnist": None}', 'name of the package'),
    ],
)
def test_mistakes_are_one_line(text, message, lab):
    (lab / 'bad.py').write_text(text)
    with pytest.raises(UserError, match=message) as error:
        Experiment.from_config(configs.load(SPEC, {'plugins': 'bad.py', 'mesh.data': '1', 'model.name': 'mlp'}))
    assert '\n' not in str(error.value)


def test_a_name_in_two_plugins_is_refused(lab):
    (lab / 'other.py').write_text(EXAMPLE)
    with pytest.raises(UserError, match='in another plugin too'):
        configs.load(SPEC, {**SMALL, 'plugins': 'my_lab/nets.py,other.py'})
