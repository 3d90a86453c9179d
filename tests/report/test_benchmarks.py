"""Fashion-MNIST's table: published rows with their evidence, runs beside those whose net and recipe they have."""

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest

from cvresearch.base import config as configs
from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.inspect import cost
from cvresearch.models import registry
from cvresearch.report import benchmarks, render, tables
from cvresearch.report.benchmarks import lines
from cvresearch.report.published import HERE

NAME = 'Fashion-MNIST'
RESNET = 'configs/fashion_mnist_erasing.py'


@pytest.fixture
def finished(tmp_path):
    """Returns a function that writes the record of a run that ended with an accuracy."""

    def write(name, spec, top1, n_seen=10_000, **overrides):
        config = configs.load(spec, {key.replace('__', '.'): str(value) for key, value in overrides.items()})
        folder = tmp_path / f'{name}_seed{config.seed}'
        folder.mkdir()
        (folder / 'config.json').write_text(configs.to_json(config))
        test = dict(top1=top1, top5=99.0, n_seen=n_seen, protocol='as_given')
        card = dict(status='finished', data='fashion_mnist', params=272_186, seed=config.seed, final=dict(test=test))
        card['wall_time_s'] = 90.0
        (folder / 'run.json').write_text(json.dumps(card))
        return str(folder)

    return write


def table(runs, capsys):
    assert tables.main([NAME, '--runs', *runs, '--format', 'csv']) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_published_row_has_the_mean_the_difference_and_both_errors(finished, capsys):
    runs = [finished('short', f'{RESNET}:short', top1, seed=seed) for seed, top1 in enumerate((94.0, 94.3, 94.6))]
    first = table(runs, capsys)[0]
    asked = [first[key] for key in ('net', 'paper', 'ours', 'difference', 'sd', 'seeds', 'n_seen')]
    assert asked == ['ResNet-20', '95.61', '94.30', '-1.31', '0.30', '3', '10000']
    # By hand: the deviation 0.3 of three seeds, and 94.3 % of 10,000 images.
    expected = 2 * math.sqrt(0.3**2 / 3 + 94.3 * 5.7 / 10_000)
    assert first['two standard errors'] == f'{expected:.2f}' and first['epochs planned'] == '15'
    assert first['minutes'] == '1.5'


def test_columns_begin_as_promised_and_every_published_row_is_there(finished, capsys):
    rows = table([finished('a', f'{RESNET}:short', 94.0)], capsys)
    assert [key for key in rows[0] if 'evidence' not in key][:7] == [
        'net',
        'paper',
        'ours',
        'difference',
        'sd',
        'seeds',
        'n_seen',
    ]
    with open(HERE / 'fashion_mnist.csv', encoding='utf-8', newline='') as file:
        facts = list(csv.DictReader(file))
    got = sorted((row['net'], float(row['paper']), row['source']) for row in rows)
    assert all(re.fullmatch(r'\d\d(\.\d+)?', row['paper']) for row in rows)
    assert f'{len(facts)} published results' in Path('docs/evidence/fashion_mnist.md').read_text(encoding='utf-8')
    assert got == sorted((f['model'], round(100 * float(f['accuracy']), 2), f['source']) for f in facts)


@pytest.mark.parametrize(
    ('argument', 'overrides', 'row'),
    [
        (':erasing', {}, 'ResNet-20 + random erasing'),
        (':resnet32', {}, 'ResNet-32'),
        (':wide_resnet28_10,erasing', {}, 'WRN-28-10 + random erasing'),
        ('', {'model__shortcut': 'zeros'}, None),  # another net than the published one
        ('', {'minival': 6000}, None),
        ('', {'data__train': 10_000}, None),  # not trained on all images
        ('', {'augment__flip': False}, None),
        (':resnet8', {}, None),
    ],
)
def test_a_run_stands_beside_the_row_whose_net_and_recipe_it_has_alone(finished, capsys, argument, overrides, row):
    first = table([finished('other', RESNET + argument, 95.0, **overrides)], capsys)[0]
    assert first['net'] == (row or 'other') and bool(first['paper']) == bool(row) and first['ours'] == '95.00'
    assert not row or 'Random-Erasing' in first['source']


@pytest.mark.parametrize(
    ('spec', 'row'),
    [
        ('fashion_mnist_tutorials.py', 'softmax regression, 10 epochs'),
        ('fashion_mnist_tutorials.py:d2l_mlp', 'MLP 784-256-10, 10 epochs'),
        ('fashion_mnist_tutorials.py:d2l_lenet', 'LeNet-5 with sigmoids, rate 0.9, 10 epochs'),
        ('fashion_mnist_tutorials.py:tensorflow_mlp', 'MLP 784-128-10, Adam, 10 epochs (TensorFlow tutorial)'),
        ('fashion_mnist_tutorials.py:mlp_100', 'MLPClassifier, relu, one hidden layer of 100'),
        ('fashion_mnist_tutorials.py:hardmaru', '2 conv, under 100K parameters (hardmaru)'),
        ('fashion_mnist_tutorials.py:cmasch', '2 conv + 3 dense with batch norm (cmasch)'),
        ('fashion_mnist.py:mlp_256_128_64', 'MLP 256-128-64'),
        ('fashion_mnist.py:two_conv_cmasch', '2 conv + 3 dense'),
        ('fashion_mnist.py:two_conv_tensorflow,plain', '2 conv 5x5 32-64, dense 1024'),
    ],
)
def test_recipes_of_the_configs_fit_their_rows(finished, capsys, spec, row):
    first = table([finished('one', f'configs/{spec}', 90.0)], capsys)[0]
    assert first['net'].startswith(row) and first['ours'] == '90.00' and first['difference']


@pytest.mark.parametrize(
    ('spec', 'row'),
    [
        ('fashion_mnist_tutorials.py', 'softmax regression, 10 epochs'),
        ('fashion_mnist_tutorials.py:d2l_mlp', 'MLP 784-256-10, 10 epochs'),
        ('fashion_mnist_tutorials.py:d2l_lenet', 'LeNet-5 with sigmoids, rate 0.9, 10 epochs'),
        ('fashion_mnist_tutorials.py:tensorflow_mlp', 'MLP 784-128-10, Adam, 10 epochs (TensorFlow tutorial)'),
        ('fashion_mnist_tutorials.py:cmasch', '2 conv + 3 dense with batch norm (cmasch)'),
        ('fashion_mnist_tutorials.py:hardmaru', '2 conv, under 100K parameters (hardmaru)'),
        ('fashion_mnist_erasing.py', 'ResNet-20'),
    ],
)
def test_nets_have_the_published_number_of_parameters(spec, row):
    with open(HERE / 'fashion_mnist.csv', encoding='utf-8', newline='') as file:
        published = {fact['model']: fact['params'] for fact in csv.DictReader(file)}
    model = registry.build(**configs.load(f'configs/{spec}').model, num_classes=10)
    assert trees.count(cost.shapes(model, (28, 28, 1))['params']) == int(published[row])


def test_rows_to_distrust_are_marked(capsys):
    rows = {row['net']: row for row in table(['docs/records/lenet5_mnist5k_seed0'], capsys)}
    marked = [name for name, row in rows.items() if row['paper: evidence'].startswith('DISTRUST')]
    assert marked == ['2 conv + 2 dense (ashmeet13)', 'CNN-3-128 (Mukhamediev 2024)', 'Claim of 98.96 %']
    made, others = benchmarks.compare(NAME, [])
    cells = {row[0].text: row[1] for row in made.rows}
    assert all(cells[name].mark == 'd' for name in marked) and 'd: to be distrusted' in ' '.join(made.notes)
    assert not others and all(row['ours'] == '' for row in rows.values())


def test_every_match_is_of_one_published_row():
    described = benchmarks._benchmarks()[NAME]
    for row in described['rows']:
        named = [line for line in lines(NAME) if line.label == row['row']]
        same = [line for line in named if row.get('source', line.group) == line.group]
        assert len(same) == 1 and same[0].model == row['model'], row


def test_recipes_have_lines_of_their_own_and_seeds_must_differ(finished, capsys):
    runs = [finished('short', f'{RESNET}:short', 94.0), finished('long', RESNET, 95.0)]
    rows = table(runs, capsys)[:2]
    assert [(row['net'], row['epochs planned']) for row in rows] == [('ResNet-20', '15'), ('ResNet-20', '300')]
    with pytest.raises(UserError, match='two runs have the same seed'):
        tables.main([NAME, '--runs', *runs, finished('again', RESNET, 95.5)])


@pytest.mark.parametrize('style', [style for style in render.STYLES if style != 'csv'])
def test_other_formats_have_the_evidence_as_marks(style):
    text = render.render(benchmarks.compare(NAME, [])[0], style)
    assert '96.2' in text and 'recalled, not checked' in text


def test_without_the_rest_only_lines_with_runs_are_left(finished, capsys):
    run = finished('a', f'{RESNET}:erasing', 95.9)
    tables.main([NAME, '--runs', str(run), '--measured', '--format', 'csv'])
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row['net'] == 'ResNet-20 + random erasing' and row['difference'] == '-0.08'
