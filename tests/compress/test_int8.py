"""Eight bits against onnxruntime's static quantisation, integers against floats, folding against the net itself."""

from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.compress import int8
from cvresearch.compress.fold import fold_norms
from cvresearch.nn.conv import Conv
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.stored import Stored

GOLDEN = np.load(Path(__file__).parent / 'onnxruntime_int8.npz')
SIZE = (16, 16, 3)
IMAGES = GOLDEN['images'].transpose(0, 2, 3, 1)
LAYERS = {'conv1': 'images', 'depthwise': 'conv1.out', 'pointwise': 'depthwise.out', 'head': 'flat'}


class Net(nn.Module):
    """The golden's net."""

    num_classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(Conv(8, 3, 2, 1, name='conv1')(x))
        x = nn.relu(Conv(8, 3, padding=1, groups=8, name='depthwise')(x))
        x = nn.relu(Conv(16, 1, name='pointwise')(x))
        return nn.Dense(5, name='head')(x.mean((1, 2)))


def ours(name, tensor):
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor


VARIABLES = {
    'params': {
        layer: {'kernel': ours(layer, GOLDEN[f'{layer}.weight']), 'bias': GOLDEN[f'{layer}.bias']} for layer in LAYERS
    }
}


def quantised(**options):
    return int8.quantise(Net(), VARIABLES, SIZE, np.split(IMAGES, 4), **options)


def worst(variables, **options):
    logits = Stored(Net(), **options).apply(variables, IMAGES)
    return float(np.abs(logits - GOLDEN['logits']).max())


@pytest.fixture(scope='module')
def by_channel():
    return quantised()


@pytest.mark.parametrize('layer', LAYERS)
def test_weights_scales_and_zero_points_are_onnxruntimes(by_channel, layer):
    found, given = by_channel['params'][layer], LAYERS[layer]
    np.testing.assert_allclose(found['kernel_scale'], GOLDEN[f'{layer}.weight_scale'], rtol=1e-6)
    difference = found['kernel'].astype(int) - ours(layer, GOLDEN[f'{layer}.weight_quantized'])
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.01  # halves may be rounded otherwise
    np.testing.assert_allclose(found['input_scale'], GOLDEN[f'{given}_scale'], rtol=1e-4)
    assert found['input_zero_point'] == GOLDEN[f'{given}_zero_point']


def test_logits_are_as_near_the_floats_as_onnxruntimes(by_channel):
    theirs = np.abs(GOLDEN['by_channel'] - GOLDEN['logits']).max()
    assert worst(by_channel) <= 1.2 * theirs
    np.testing.assert_allclose(Stored(Net()).apply(by_channel, IMAGES), GOLDEN['by_channel'], atol=2 * theirs)


def test_one_scale_for_a_depthwise_kernel_destroys_it_here_and_there(by_channel):
    theirs = np.abs(GOLDEN['by_tensor'] - GOLDEN['logits']).max()
    assert theirs > 5 * np.abs(GOLDEN['by_channel'] - GOLDEN['logits']).max()
    assert worst(quantised(per_channel=False)) > 5 * worst(by_channel)


def test_sums_in_integers_and_in_floats_agree(by_channel):
    simulated, exact = (Stored(Net(), integers=flag).apply(by_channel, IMAGES) for flag in (False, True))
    np.testing.assert_allclose(simulated, exact, rtol=1e-5, atol=1e-5)


def test_a_product_of_integers_by_hand():
    """Levels of scale 0.5 around 10: 1.2 is 2, -3 is -6; kernel 3 of scale 0.1; (2 - 6) * 3 * 0.05 + 1."""
    params = {
        'kernel': np.full((2, 1), 3, np.int8),
        'kernel_scale': np.float32([0.1]),
        'bias': np.float32([1]),
        'input_scale': np.float32(0.5),
        'input_zero_point': np.int32(10),
    }
    for integers in (False, True):
        net = Stored(_OneLayer(), integers=integers)
        y = net.apply({'params': {'head': params}}, np.float32([[1.2, -3.0]]))
        np.testing.assert_allclose(y, [[0.4]], rtol=1e-6)


class _OneLayer(nn.Module):
    num_classes: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(1, name='head')(x)


def test_ranges_hold_zero_and_a_layer_that_sees_only_zeros_divides_by_nothing():
    assert int8.affine((1.0, 5.1)) == (np.float32(0.02), 0)
    assert int8.affine((-1.0, 1.55)) == (np.float32(0.01), 100)
    assert int8.affine((0.0, 0.0)) == (1, 0)
    assert int8.quantised_kernel(np.zeros((3, 2)))[1].tolist() == [1, 1]


def test_percentile_and_entropy_cut_off_an_outlier():
    """10,000 magnitudes of a half normal with deviation a tenth of the range, and one at its end."""
    values = np.append(np.abs(np.random.default_rng(0).normal(size=200_000)) / 10, 1.0)
    counts = np.histogram(values, int8.BINS, (0, 1))[0]
    assert int8.by_percentile(counts) == pytest.approx(np.percentile(values, 99.99), abs=2 / int8.BINS)
    assert 0.2 < int8.by_entropy(counts) < 0.5
    zeros = counts + np.eye(int8.BINS, dtype=int)[0] * 20 * len(values)  # as ReLU makes them
    assert int8.by_entropy(zeros) == int8.by_entropy(counts)


@pytest.mark.parametrize('method', ['percentile', 'entropy'])
def test_each_calibration_keeps_the_logits(method):
    assert worst(quantised(method=method)) < 0.1 * np.abs(GOLDEN['logits']).max()


class Separable(nn.Module):
    """Norms after a convolution, a depthwise one and a dense layer, and one that stands alone."""

    num_classes: int = 4

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(BatchNorm(name='bn1')(Conv(6, 3, 2, use_bias=False, name='conv1')(x)))
        x = nn.relu(BatchNorm(eps=0.1, name='bn2')(Conv(6, 3, groups=6, name='depthwise')(x)))
        x = BatchNorm(use_scale=False, name='alone')(x)
        return BatchNorm(use_bias=False, name='bn3')(nn.Dense(4, name='head')(x.mean((1, 2))))


def test_folded_norms_change_no_logit():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(Separable().init, jax.random.key(0), np.zeros((1, *SIZE)))
    variables = jax.tree.map(lambda leaf: np.float32(0.3 + rng.random(leaf.shape)), shapes)
    folded = fold_norms(Separable(), variables, SIZE)
    assert set(folded['batch_stats']) == {'alone'} and set(folded['params']) == {'conv1', 'depthwise', 'alone', 'head'}
    expected = Separable().apply(variables, IMAGES)
    np.testing.assert_allclose(Stored(Separable()).apply(folded, IMAGES), expected, rtol=1e-4)


class Twice(nn.Module):
    """The convolution's output goes to a norm and past it."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        y = Conv(3, 1, name='conv')(x)
        return (BatchNorm(name='norm')(y) + y).mean((1, 2))


def test_a_norm_that_cannot_be_folded_is_an_error():
    variables = Twice().init(jax.random.key(0), np.zeros((1, *SIZE)))
    variables['batch_stats']['norm']['var'] = np.full(3, 4, np.float32)
    with pytest.raises(UserError, match='cannot be folded'):
        fold_norms(Twice(), variables, SIZE)


def test_no_images_and_an_unknown_method_are_errors():
    with pytest.raises(UserError, match='no images'):
        int8.quantise(Net(), VARIABLES, SIZE, [])
    with pytest.raises(UserError, match='did you mean minmax'):
        quantised(method='minmas')
