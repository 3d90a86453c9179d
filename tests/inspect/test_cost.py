"""Counting from the traced program, against hand arithmetic and published receptive fields."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cvresearch.base.errors import UserError
from cvresearch.inspect import cost, summary
from cvresearch.models import registry
from cvresearch.nn.conv import Conv
from cvresearch.nn.pool import max_pool


def test_lenet5_layer_by_layer():
    # LeCun et al. 1998, figure 2: map sizes; receptive fields by hand: 5, +1 = 6, +4*2 = 14, +2 = 16, +4*4 = 32.
    rows = {layer.name: layer for layer in cost.layers(registry.build('lenet5'), (32, 32, 1))}
    assert {name: layer.shape for name, layer in rows.items()} == {
        'C1': (28, 28, 6), 'S2': (14, 14, 6), 'C3': (10, 10, 16), 'S4': (5, 5, 16), 'C5': (1, 1, 120),
        'F6': (84,), 'head': (10,),
    }  # fmt: skip
    assert [layer.receptive_field[0] for layer in rows.values()] == [5, 6, 14, 16, 32, 32, 32]
    assert [layer.params for layer in rows.values()] == [156, 0, 2416, 0, 48120, 10164, 850]
    assert rows['C3'].macs == 10 * 10 * 16 * 5 * 5 * 6
    assert rows['C1'].activation_bytes == 28 * 28 * 6 * 4
    assert [layer.kind for layer in rows.values()] == ['conv', 'pool', 'conv', 'pool', 'conv', 'dense', 'dense']


class Odd(nn.Module):
    """Strides, dilation, groups, a scan and a strided slice."""

    @nn.compact
    def __call__(self, x, train=False):
        x = Conv(8, (3, 5), strides=(1, 2), dilation=(2, 1), padding='VALID', name='a')(x)
        x = max_pool(x, 3, 2, name='p')
        x = x[:, ::2, ::2]
        x = Conv(8, 3, groups=4, name='b')(x)
        w = self.param('w', nn.initializers.ones_init(), (8, 8))
        x, _ = jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=3)
        return nn.Dense(2, name='head')(x.mean((1, 2)))


def test_strides_dilation_groups_scan_and_slices():
    rows = {layer.name: layer for layer in cost.layers(Odd(), (32, 32, 3))}
    # a: 32 - 4 = 28 rows, (32 - 5) // 2 + 1 = 14 columns; p: 13 x 6; slice: 7 x 3.
    assert rows['a'].shape == (28, 14, 8) and rows['p'].shape == (13, 6, 8) and rows['b'].shape == (7, 3, 8)
    assert rows['a'].macs == 28 * 14 * 8 * 15 * 3
    assert rows['b'].macs == 7 * 3 * 8 * 9 * 2
    assert sum(row.macs for row in rows.values()) == rows['a'].macs + rows['b'].macs + 3 * 7 * 3 * 64 + 16
    # a: 5 x 5, jump (1, 2); p: + 2 * jump -> 7 x 9, jump (2, 4); slice: jump (4, 8); b: + 2 * jump -> 15 x 25.
    assert rows['a'].receptive_field == (5, 5)
    assert rows['p'].receptive_field == (7, 9)
    assert rows['b'].receptive_field == (15, 25)
    assert cost.macs(Odd(), (32, 32, 3)) == sum(row.macs for row in rows.values())


@pytest.mark.parametrize('name', ['resnet32_cifar10', 'preact_resnet164_cifar10', 'wide_resnet40_4_cifar10'])
def test_blocks_that_are_compiled_once_have_rows_as_if_they_were_not(name):
    model, shape = registry.build(name), registry.variant(name).input_shape
    expected = cost.layers(model.clone(scan=False), shape)
    assert not [row.name for row in expected if '-' in row.name]
    for layout in (dict(), dict(stacked=True), dict(remat=True)):
        assert cost.layers(model.clone(scan=True, **layout), shape) == expected


@pytest.mark.parametrize('style', ['text', 'markdown', 'csv', 'latex'])
def test_summary_prints_the_totals(style, capsys):
    assert summary.main(['lenet5' if style == 'text' else '--model=lenet5', '--format', style]) == 0
    out = capsys.readouterr().out
    assert ('61706' if style == 'csv' else '61,706') in out and 'C5' in out


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['lenet'], "unknown model 'lenet'; did you mean lenet5"),
        (['lenet5', '--image_size', '40'], 'LeNet-5 got images of 40x40x1, expected 32x32x1 or 28x28x1'),
        (['lenet5', '--image_size', '-1'], "--image_size is '-1'; expected a whole number"),
        (['lenet5', '--format', 'yaml'], "unknown format 'yaml'"),
        ([], 'expected the name of one variant'),
        (['lenet5', '--model', 'mlp'], 'expected the name of one variant, got lenet5 mlp'),
    ],
)
def test_summary_mistakes(argv, message):
    with pytest.raises(UserError) as error:
        summary.main(argv)
    assert message in str(error.value)
