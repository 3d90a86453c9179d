"""Any net on any data: labels by the names of classes, protocols, ensembles, what is refused."""

import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvresearch import evaluate
from cvresearch.base.errors import UserError
from cvresearch.engine import classifiers
from cvresearch.interop import conversion
from cvresearch.models import registry
from cvresearch.models.variant import Reference, Variant

COLOURS = {'red': (255, 0, 0), 'green': (0, 255, 0), 'blue': (0, 0, 255)}


class Colour(nn.Module):
    """Tells red, green and blue images apart: its logits are the mean of each channel."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes, name='head')(jnp.mean(x, (1, 2)))


@pytest.fixture
def colour(monkeypatch, tmp_path):
    """A file of weights that names colours, and a folder with four images of each colour, by class."""
    facts = dict(input_shape=(8, 8, 3), num_classes=3, params=None, macs=None, paper='', evidence='')
    monkeypatch.setattr(registry, 'catalogue', lambda: {'colour': Variant(module=Colour, **facts)})
    monkeypatch.setattr(registry, 'references', lambda: {'torch/colour': Reference('colour', lambda path: path)})
    save(tmp_path / 'colour.npz', np.eye(3))
    for name, colour in COLOURS.items():
        (tmp_path / 'photos' / name).mkdir(parents=True)
        for number in range(4):
            Image.new('RGB', (20 + number, 30), colour).save(tmp_path / 'photos' / name / f'{number}.png')
    return tmp_path


def save(path, kernel):
    head = {'kernel': 3 * np.asarray(kernel, np.float32), 'bias': np.zeros(3, np.float32)}
    conversion.save(path, {'params': {'head': head}}, 'torch/colour')
    path.with_name(f'{path.name}.json').write_text(json.dumps({'classes': list(COLOURS)}))
    return f'file:{path}#torch/colour'


def flags(folder, *weights, **more):
    more = {'data': 'image_folder', 'root': folder / 'photos'} | more
    return [*(f'--weights={name}' for name in weights), *(f'--{key}={value}' for key, value in more.items())]


def measured(capsys, *arguments):
    assert evaluate.main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


def test_labels_become_the_nets_numbers_by_the_names_of_the_classes(colour, capsys):
    # Sorted, the folders are blue, green, red: by number two thirds would count as wrong.
    record = measured(capsys, *flags(colour, f'file:{colour}/colour.npz#torch/colour'))
    assert (record['top1'], record['n_seen'], record['protocol']) == (100.0, 12, 'as_given')
    assert record['digest'] == classifiers.load(f'{colour}/colour.npz#torch/colour').provenance.digest


def test_a_protocol_shows_the_images_in_its_own_way(colour, capsys):
    record = measured(capsys, *flags(colour, f'{colour}/colour.npz#torch/colour', protocol='alexnet_10'))
    assert (record['top1'], record['crops'], record['n_seen']) == (100.0, 10, 12)


def test_as_published_is_the_size_of_the_published_accuracy(colour, capsys):
    name = f'{colour}/colour.npz#torch/colour'
    sidecar = colour / 'colour.npz.json'
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {'crop': 8, 'test_crop': 16, 'test_resize': 20}))
    given, published = (measured(capsys, *flags(colour, name, protocol=each)) for each in ('as_given', 'as_published'))
    assert (given['resolution'], given['scales']) == (8, [40])
    assert (published['protocol'], published['resolution'], published['scales']) == ('as_published', 16, [20])
    assert published['top1'] == 100.0


def test_the_sweep_of_a_config_evaluates_each_net_in_each_way(colour, capsys):
    name, file = f'{colour}/colour.npz#torch/colour', colour / 'many.py'
    file.write_text(
        'from cvresearch.base import sweeps\n\n\ndef sweep():\n'
        f"    return sweeps.product({{'weights': [{name!r}], 'protocol': ['as_given', 'alexnet_10']}})\n"
    )
    arguments = flags(colour, f'@{file}', out=colour / 'many')
    assert evaluate.main(arguments) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record['protocol'], record['crops'], record['top1']) for record in records] == [
        ('as_given', 1, 100.0),
        ('alexnet_10', 10, 100.0),
    ]
    assert len(list((colour / 'many').iterdir())) == 2
    file.write_text("def sweep():\n    return [{'weights': 'a', 'seed': 3}]\n")
    with pytest.raises(UserError, match="no argument 'seed'"):
        evaluate.main(arguments)


def test_several_nets_are_an_ensemble_in_the_order_of_the_first(colour, capsys):
    one = f'file:{colour}/colour.npz#torch/colour'
    other = save(colour / 'other.npz', np.eye(3)[[0, 0, 2]])  # takes green for red
    record = measured(capsys, *flags(colour, one, other))
    assert [round(member['top1']) for member in record['members']] == [100, 67] and record['n_seen'] == 12
    assert record['net'] == [one, other]


def test_the_record_and_the_predictions_are_kept_and_never_overwritten(colour, capsys):
    out = colour / 'kept'
    arguments = flags(colour, f'{colour}/colour.npz#torch/colour', out=out)
    record = measured(capsys, *arguments)
    assert json.loads((out / 'evaluation.json').read_text()) == record
    assert (out / 'predictions/image_folder_test.npz').exists()
    with pytest.raises(UserError, match='which exists'):
        evaluate.main(arguments)


def test_a_class_that_the_net_does_not_know_is_refused_by_name(colour):
    (colour / 'photos/blue').rename(colour / 'photos/pink')
    with pytest.raises(UserError, match="'pink' that the net does not know"):
        evaluate.main(flags(colour, f'{colour}/colour.npz#torch/colour'))


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (['--data=image_folder'], 'nothing to evaluate'),
        (['--weights={}/colour.npz#torch/colour'], 'has no data of its own'),
        (['--weights={}/none.npz#torch/colour'], 'there is no'),
        (['--weights=file:{}/colour.npz'], 'whose weights these are is not said'),
        (['--weights=file:{}/colour.npz#torch/color'], 'torch/colour'),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(colour, arguments, part):
    with pytest.raises(UserError, match=part):
        evaluate.main([argument.format(colour) for argument in arguments])
