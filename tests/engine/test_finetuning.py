"""Methods of fine-tuning: groups of layers, rates by name as timm has them, schedules of unfreezing, whole runs."""

import json
import re
from pathlib import Path

import jax
import pytest

from cvresearch import train
from cvresearch.base import trees
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import read_card
from cvresearch.engine import finetuning
from cvresearch.inspect import cost
from cvresearch.inspect.groups import param_groups
from cvresearch.models import registry
from cvresearch.nn.stacked import unstack
from cvresearch.optim.param_filters import matches
from cvresearch.optim.updates import OptimizerOptions
from tests.engine.test_freezing import tiny
from tests.kill_runs import rows
from tests.seams import at_step

GOLDEN = json.loads(Path('tests/goldens/timm_layer_decay.json').read_text(encoding='utf-8'))


def paths_of(name):
    variant = registry.variant(name)
    model = registry.build(name)
    shapes = unstack(cost.shapes(model, variant.input_shape)['params'])
    return model, variant.input_shape, [path for path, _ in trees.named_leaves(shapes)]


@pytest.mark.parametrize('name', list(GOLDEN['rates']))
def test_rates_are_those_of_timms_layer_decay_by_name(name):
    reference = registry.reference(name)
    model, shape, paths = paths_of(reference.variant)
    found = finetuning.discriminative(lambda by: param_groups(model, shape, by), 1.0, 1 / 0.75, 'block')
    options = OptimizerOptions(layers=found['updates.layers'], layer_decay=found['updates.layer_decay'])
    ours = {}
    for path in paths:
        module, _, leaf = path.rpartition('/')
        ours[f'{reference.rename(module)}.{"bias" if leaf == "bias" else "weight"}'] = options.factor(path)
    assert ours == pytest.approx(GOLDEN['rates'][name], rel=1e-6)


@pytest.mark.parametrize(
    'name', ['resnet50', 'efficientnet_lite0', 'vgg16_bn', 'densenet121', 'googlenet', 'alexnet_2012']
)
@pytest.mark.parametrize('by', ['stage', 'block'])
def test_every_parameter_is_in_one_group_and_the_head_in_the_last(name, by):
    model, shape, paths = paths_of(name)
    groups = param_groups(model, shape, by)
    owners = {path: [group.name for group in groups if matches(group.pattern, path)] for path in paths}
    assert all(len(names) == 1 for names in owners.values())
    assert owners['head/kernel'] == ['head'] == [groups[-1].name]
    assert {name for names in owners.values() for name in names} == {group.name for group in groups}


def test_stages_are_groups_from_the_input_to_the_output():
    model, shape, _ = paths_of('efficientnet_lite0')
    names = [group.name for group in param_groups(model, shape)]
    assert names == ['stem', *(f'stage{number}' for number in range(1, 8)), 'last', 'head']


def test_gradual_unfreezes_one_group_more_a_period_the_last_first():
    # allennlp#4443 had three groups in the second period, where two are right.
    groups = param_groups(*paths_of('efficientnet_lite0')[:2])
    options = OptimizerOptions(**_options(finetuning.gradual(lambda by: groups, 18.0, 0.5)))
    starts = {group.name: options.start(_member(group), 10) for group in groups}
    learning = [[name for name, start in starts.items() if start <= step] for step in (0, 9, 10, 19, 20, 89, 90)]
    assert learning[:2] == [['head']] * 2
    assert learning[2:4] == [['last', 'head']] * 2 and learning[4] == ['stage7', 'last', 'head']
    assert learning[5] == [group.name for group in groups[1:]] and learning[6] == [group.name for group in groups]


def _options(found):
    return {key.partition('.')[2]: value for key, value in found.items()}


def _member(group):
    return re.sub(r'_\.\*$', '_block0', group.pattern).partition('|')[0]


@pytest.mark.parametrize(
    ('method', 'message'),
    [
        (lambda groups: finetuning.last(groups, 1.0, 9), r'finetune\.stages is 9; expected 1 to 8'),
        (lambda groups: finetuning.discriminative(groups, 1.0, 0.5), r'factor is 0.5; expected at least 1'),
        (lambda groups: finetuning.discriminative(groups, 1.0, by='layer'), r"by is 'layer'; expected stage or block"),
        (lambda groups: finetuning.lpft(groups, 1.0, 1.0), r'until is 1.0; expected a share'),
    ],
)
def test_values_out_of_range_are_refused(method, message):
    groups = param_groups(*paths_of('efficientnet_lite0')[:2])
    with pytest.raises(UserError, match=message):
        method(lambda by: groups)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A finished run of the kill matrix' net."""
    workdir = tmp_path_factory.mktemp('source') / 'run'
    assert train.run(tiny(), workdir) == 0
    return workdir


def tuned(source, method, **more):
    return tiny(init__weights=f'run:{source}', finetune__name=method, data__classes=7, **more)


@pytest.mark.parametrize('method', ['probe', 'gradual', 'lpft', 'discriminative', 'last'])
def test_run_killed_on_the_way_ends_bit_for_bit_as_the_run_left_alone(source, tmp_path, monkeypatch, method):
    config = tuned(source, method, **({'finetune.stages': 1} if method == 'last' else {}))
    assert train.run(config, tmp_path / 'alone') == 0
    for step in (3, 8):
        with monkeypatch.context() as patch:
            at_step(patch, step)
            assert train.run(config, tmp_path / 'killed') == PREEMPTED
    assert train.run(config, tmp_path / 'killed') == 0
    cards = [read_card(tmp_path / name) for name in ('alone', 'killed')]
    assert cards[0]['params_sha256'] == cards[1]['params_sha256']
    assert rows(tmp_path / 'alone') == rows(tmp_path / 'killed')
    kept = json.loads((tmp_path / 'killed' / 'config.json').read_text())['updates']
    assert ('layers' if method == 'discriminative' else 'freeze') in kept


def test_method_without_weights_or_beside_keys_of_its_own_is_refused(source, tmp_path):
    with pytest.raises(UserError, match=r"finetune.name is 'probe', but there are no weights"):
        train.run(tiny(finetune__name='probe'), tmp_path / 'run')
    with pytest.raises(UserError, match=r'sets config.updates.freeze, and the configuration sets it too'):
        train.run(tuned(source, 'probe', updates__freeze="('stem_conv',)"), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_probe_keeps_everything_but_the_head(source, tmp_path):
    config = tuned(source, 'probe')
    assert train.run(config, tmp_path / 'run') == 0
    from cvresearch.engine import classifiers

    nets = [classifiers.load(f'run:{path}') for path in (source, tmp_path / 'run')]
    before, after = (dict(trees.named_leaves(jax.device_get(net.variables))) for net in nets)
    assert {path for path in before if 'head' not in path and (before[path] != after[path]).any()} == set()
