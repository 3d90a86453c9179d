"""ONNX files give our logits in onnxruntime."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import lax

from cvresearch.base.errors import UserError
from cvresearch.interop import inference
from cvresearch.interop.onnx_export import OPSET, to_onnx
from cvresearch.models import registry
from cvresearch.nn.norms import Normalization
from cvresearch.nn.overrides import Net
from cvresearch.nn.stored import Stored
from tests.compress import test_int8 as int8_net
from tests.goldens import seeded
from tests.interop.nets import CHEAPEST, logits, relative_error, small_net

# What they need between them: pooled sums, channel shuffles, scanned blocks, indexing, images without channels.
DEFAULT = ('lenet5_1998', 'lenet_1989', 'shufflenet_v2_x0_5', 'wide_resnet40_4_cifar10', 'softmax_regression')


def run(model, images, output='logits'):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    return session.run([output], {'images': images})[0]


def export(module, variables, shape, **options):
    return to_onnx(inference.function(module, variables), inference.image_spec(shape, raw=False), **options)


def result_of(function, images, **options):
    """Returns what onnxruntime makes of any function of a batch of images."""
    return run(to_onnx(function, inference.image_spec(images.shape[1:], raw=False), **options), images)


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.all_variants) for name in CHEAPEST]
)
def test_logits_of_every_family_equal_ours(name):
    module, variables, shape = small_net(name)
    model = export(module, variables, shape)
    for batch in (1, 3):
        images = seeded.image((batch, *shape))
        assert relative_error(run(model, images), logits(module, variables, images)) <= 1e-5


def test_every_family_has_a_variant_here():
    assert len(CHEAPEST) == len(registry.families()) and set(DEFAULT) <= set(CHEAPEST)


@pytest.mark.parametrize('kind', ['group_norm', 'none'])
def test_other_norms_are_exported(kind):
    _, variables, shape = small_net('resnet20_cifar10')
    module = Net(registry.build('resnet20_cifar10'), Normalization(kind=kind))
    variables = {'params': variables['params']}
    images = seeded.image((3, *shape))
    assert relative_error(run(export(module, variables, shape), images), logits(module, variables, images)) <= 1e-5


def test_the_file_says_what_it_holds():
    module, variables, shape = small_net('lenet5_1998')
    model = export(module, variables, shape, metadata={'classes': ['nil', 'one'], 'source': 'here'})
    assert model.opset_import[0].version == OPSET
    (images,), (output,) = model.graph.input, model.graph.output
    sizes = lambda value: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]  # noqa: E731
    assert (images.name, sizes(images)) == ('images', ['batch', *shape])
    assert (output.name, sizes(output)) == ('logits', ['batch', 10])
    assert {p.key: p.value for p in model.metadata_props} == {'classes': '["nil", "one"]', 'source': 'here'}


def test_images_are_transposed_once():
    module, variables, shape = small_net('plain20_cifar10')
    operations = [node.op_type for node in export(module, variables, shape).graph.node]
    assert operations.count('Transpose') == 1 and operations.count('Conv') == 19
    # Norms are a product and a sum, the mean over the map one node.
    assert operations.count('Mul') == 19 and operations.count('ReduceMean') == 1


def test_a_scanned_stage_is_as_if_it_were_not():
    module, variables, shape = small_net('preact_resnet164_cifar10')
    scanned, unrolled = (export(module.clone(scan=scan), variables, shape) for scan in (True, False))
    assert [n.name for n in scanned.graph.node] == [n.name for n in unrolled.graph.node]


def test_float16_is_stored_in_half_and_nearly_right():
    module, variables, shape = small_net('toy_inception')
    whole, half = (export(module, variables, shape, float_type=kind) for kind in ('float32', 'float16'))
    assert half.ByteSize() < 0.52 * whole.ByteSize()
    assert {t.data_type for t in half.graph.initializer} == {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    images = seeded.image((2, *shape))
    error = relative_error(run(half, images), logits(module, variables, images))
    assert 1e-6 < error < 5e-3


def test_float16_refuses_what_it_cannot_hold():
    with pytest.raises(UserError, match='100000, more than float16 holds'):
        result_of(lambda x: x[:, 0, 0] * np.float32(1e5), seeded.image((2, 1, 1, 3)), float_type='float16')


@pytest.mark.parametrize('channels', [slice(None), slice(None, None, -1)], ids=['RGB', 'BGR'])
def test_raw_pixels_are_normalised_inside(channels):
    module, variables, shape = small_net('toy_inception')
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    function = inference.function(module, variables, mean, std, channels)
    model = to_onnx(function, inference.image_spec(shape, raw=True), probabilities='softmax')
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    seen = (pixels[..., channels] / 255 - np.float32(mean)) / np.float32(std)
    expected = logits(module, variables, seen.astype(np.float32))
    assert relative_error(run(model, pixels), expected) <= 1e-5
    exact = np.exp(expected.astype(np.float64))
    assert relative_error(run(model, pixels, 'probabilities'), exact / exact.sum(1, keepdims=True)) <= 1e-5


WINDOWS = [
    ('SAME', 3, 2, 1), ('VALID', 2, 2, 1), ('SAME', 5, 1, 1), (((2, 0), (0, 3)), 4, 3, 1), (((4, 4), (5, 5)), 3, 2, 1),
    ('VALID', 2, 1, 2),
]  # fmt: skip


@pytest.mark.parametrize(('operator', 'window'), itertools.product(('max', 'sum'), WINDOWS))
def test_windows_are_the_same(operator, window):
    padding, size, stride, dilation = window
    padding = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    reduce, start = (lax.max, -np.inf) if operator == 'max' else (lax.add, 0.0)
    if (operator, dilation) == ('sum', 2):
        pytest.skip('no net sums over a dilated window; the writer says so')

    def function(x):
        window, strides, gaps = ((1, n, n, 1) for n in (size, stride, dilation))
        return lax.reduce_window(x, start, reduce, window, strides, padding, window_dilation=gaps)

    images = seeded.image((2, 9, 7, 3))
    np.testing.assert_allclose(result_of(function, images), function(images), rtol=1e-5, atol=1e-5)


ODD = {
    'crop': lambda x: x[:, 1:-1, 2:],
    'stride': lambda x: x[:, ::2, 1::3],
    'pick': lambda x: x[:, 2],
    'pick channels': lambda x: x[..., np.array([2, 0, 0, 1])],
    'pick of both': lambda x: x[:, np.array([[0], [3], [1]]), np.array([2, 1])],
    'reverse': lambda x: x[:, ::-1, :, ::-1],
    'crop by padding': lambda x: lax.pad(x, 0.5, [(0, 0, 0), (-1, 2, 0), (1, -2, 0), (0, 0, 0)]),
    'clip': lambda x: jnp.clip(x, -0.5, 0.7),
    'where': lambda x: jnp.where(x > 0.1, x, x * 0.25),
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
    'powers': lambda x: x**3 + jnp.abs(x) ** 4 + (x * x + 1) ** -0.75 + lax.rsqrt(x * x + 1),
    'softmax': lambda x: jax.nn.softmax(x, axis=-1),
    'batched product': lambda x: jnp.einsum('bhwc,bhwd->bhcd', x, x),
    'sum over both': lambda x: x.sum((1, 2)) / 3 + x.mean((1, 2)) * 2,
    'constant for each image': lambda x: jnp.concatenate([x, jnp.ones((*x.shape[:3], 2))], -1),
    'means of groups of channels': lambda x: jnp.broadcast_to(
        x.reshape(x.shape[0], -1, 3, 1).mean((1, 3), keepdims=True), (x.shape[0], 1, 3, 2)
    ).reshape(x.shape[0], 1, 1, 6),
    'integers': lambda x: jnp.floor(x * 3).astype(jnp.int32).sum(-1).astype(jnp.float32),
}


@pytest.mark.parametrize('after_convolution', [False, True])
@pytest.mark.parametrize('case', ODD)
def test_operations_in_either_order_of_axes(case, after_convolution):
    kernel = seeded.image((1, 1, 3, 3), 'kernel')

    def function(x):
        if after_convolution:
            x = lax.conv_general_dilated(x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return ODD[case](x)

    images = seeded.image((2, 6, 7, 3))
    np.testing.assert_allclose(result_of(function, images), function(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('function', 'named'),
    [
        (lambda x: jnp.fft.fft(x[:, :, 0, 0]).real, 'fft'),
        (lambda x: jnp.sort(x, 1), 'sort'),
        (lambda x: x[:, :, 0, 0].reshape(1, -1) + jnp.ones((2 * x.shape[0], 1)), '2'),
    ],
)
def test_what_has_no_rule_is_refused_by_name(function, named):
    with pytest.raises(UserError, match=named):
        result_of(function, seeded.image((2, 4, 4, 3)))


def test_int8_is_written_as_pairs_around_each_layer_and_computes_the_same():
    module, variables = Stored(int8_net.Net()), int8_net.quantised()
    model = export(module, variables, int8_net.SIZE)
    operations = Counter(node.op_type for node in model.graph.node)
    assert (operations['QuantizeLinear'], operations['DequantizeLinear'], operations['Conv']) == (4, 8, 3)
    kernels = {tuple(t.dims): t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert set(kernels.values()) == {onnx.TensorProto.INT8}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    expected = logits(module, variables, int8_net.IMAGES)
    assert relative_error(session.run(None, {'images': int8_net.IMAGES})[0], expected) <= 1e-5
    # As one operation on integers between two layers, each output is rounded once more.
    assert relative_error(run(model, int8_net.IMAGES), int8_net.GOLDEN['by_channel']) <= 0.05


def test_int8_has_no_float16():
    with pytest.raises(UserError, match='without --float16'):
        export(Stored(int8_net.Net()), int8_net.quantised(), int8_net.SIZE, float_type='float16')
