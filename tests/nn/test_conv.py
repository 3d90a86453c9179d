"""Convolutions against XLA's one operation: values, derivatives, transformations; and the layer's contract."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from cvresearch.base import compile_cache
from cvresearch.base.errors import UserError
from cvresearch.base.mesh import by_example, make_mesh, replicated
from cvresearch.nn import conv_banded, conv_cpu, conv_onednn, onednn
from cvresearch.nn.conv import Conv, conv2d, explicit, pair
from tests.environment import QUICK


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (dict(kernel_size=3), dict(kernel_size=(3, 3))),
        (dict(kernel_size=(5, 3), strides=2), dict(kernel_size=(5, 3), strides=(2, 2))),
        (dict(kernel_size=3, padding=1, dilation=2), dict(kernel_size=(3, 3), padding=1, kernel_dilation=(2, 2))),
        (dict(kernel_size=3, padding=((0, 2), (1, 0))), dict(kernel_size=(3, 3), padding=((0, 2), (1, 0)))),
        (
            dict(kernel_size=3, groups=4, padding='VALID'),
            dict(kernel_size=(3, 3), feature_group_count=4, padding='VALID'),
        ),
    ],
)
def test_equals_flax(ours, theirs):
    x = np.random.default_rng(0).standard_normal((2, 9, 10, 8)).astype(np.float32)
    variables = nn.Conv(12, **theirs).init(jax.random.key(0), x)
    expected = nn.Conv(12, **theirs).apply(variables, x)
    np.testing.assert_allclose(Conv(12, **ours).apply(variables, x), expected, rtol=1e-5, atol=1e-5)


def test_another_number_of_channels_is_said_in_one_line():
    layer = Conv(4, 3)
    variables = layer.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(UserError, match='got 1 channels, expected 3, as its kernel has them'):
        layer.apply(variables, np.zeros((1, 8, 8, 1), np.float32))
    with pytest.raises(UserError, match='got 3 channels, expected a multiple of its 2 groups'):
        Conv(4, 3, groups=2).init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))


def operation(x, kernel, strides=1, padding='SAME', groups=1, dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        pair(strides),
        explicit(padding),
        rhs_dilation=pair(dilation),
        feature_group_count=groups,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


def value_and_gradients(function, x, kernel, weight):
    value, pullback = jax.vjp(function, x, kernel)
    return value, *pullback(weight.astype(value.dtype))


@st.composite
def convolutions(draw):
    """Draws shapes and arguments: what the papers use, and beyond it."""
    groups, multiple = (draw(st.sampled_from(each)) for each in ((1, 1, 2, 3, 8, 40), (1, 2, 3)))
    depth = draw(st.sampled_from((1, 2, 5) if groups > 1 else (1, 5, 9, 11)))
    size = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (5, 5), (1, 7), (4, 3)]))
    strides = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]))
    side = st.integers(0, 3)
    padding = draw(st.one_of(st.sampled_from(['SAME', 'VALID']), side, st.tuples(*[st.tuples(side, side)] * 2)))
    reach = [(k - 1) * gap + 1 for k, gap in zip(size, dilation, strict=True)]
    image = [max(n, k) for n, k in zip((draw(st.integers(1, 20)), draw(st.integers(1, 13))), reach, strict=True)]
    shapes = (draw(st.integers(0, 3)), *image, groups * depth), (*size, depth, groups * multiple)
    return *shapes, dict(strides=strides, padding=padding, groups=groups, dilation=dilation)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(convolutions())
def test_value_and_both_gradients_in_float64(drawn):
    image, size, arguments = drawn
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(rng.standard_normal(shape)) for shape in (image, size))
        expected = jax.eval_shape(functools.partial(operation, **arguments), x, kernel)
        weight = jnp.asarray(rng.standard_normal(expected.shape))
        ours, theirs = (
            jax.jit(
                functools.partial(value_and_gradients, functools.partial(function, **arguments)), compiler_options=QUICK
            )(x, kernel, weight)
            for function in (conv2d, operation)
        )
        for got, wanted in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


# One of each form that CPU has: product, strided product, dense, dense strided, banded, banded of a width that no tile
# divides, dense with the fewer channels last, depthwise low, high and strided, grouped, grouped in many parts.
FORMS = [
    ((2, 8, 8, 16), (1, 1, 16, 8), {}), ((2, 8, 8, 16), (1, 1, 16, 8), dict(strides=2)),
    ((2, 12, 11, 9), (3, 3, 9, 16), {}), ((2, 12, 12, 8), (5, 3, 8, 16), dict(strides=2)),
    ((2, 12, 12, 1), (5, 5, 1, 6), {}), ((2, 8, 9, 3), (3, 4, 3, 8), dict(padding=((1, 0), (0, 2)))),
    ((2, 12, 12, 16), (3, 3, 16, 8), {}),
    ((2, 8, 8, 24), (5, 5, 1, 24), dict(groups=24)), ((2, 16, 16, 24), (3, 3, 1, 24), dict(groups=24)),
    ((2, 9, 9, 24), (3, 3, 1, 48), dict(groups=24, strides=2)),
    ((2, 8, 8, 64), (3, 3, 4, 64), dict(groups=16, strides=2)), ((2, 6, 6, 320), (3, 3, 10, 320), dict(groups=32)),
]  # fmt: skip


@pytest.mark.parametrize(('image', 'size', 'arguments'), FORMS)
def test_bfloat16_is_rounded_once(image, size, arguments):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for shape in (image, size))
    exact = functools.partial(operation, **arguments)
    weight = jnp.asarray(rng.standard_normal(jax.eval_shape(exact, x, kernel).shape), jnp.bfloat16)
    with jax.enable_x64(True):
        wanted = value_and_gradients(exact, *(each.astype(jnp.float64) for each in (x, kernel, weight)))
    for got, exactly in zip(
        value_and_gradients(functools.partial(conv2d, **arguments), x, kernel, weight), wanted, strict=True
    ):
        assert got.dtype == jnp.bfloat16
        # Half a unit in the last of 8 bits, and what a float32 sum of numbers that cancel leaves.
        np.testing.assert_allclose(np.asarray(got, np.float64), exactly, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize(('image', 'size', 'arguments'), FORMS)
def test_on_other_platforms_the_program_is_the_plain_one(image, size, arguments):
    x, kernel = jnp.zeros(image), jnp.zeros(size)
    for platform in ('cuda', 'tpu'):
        for derivative in (lambda f: f, lambda f: jax.grad(lambda *a: (f(*a) ** 2).sum(), (0, 1))):
            texts = []
            for function in (conv2d, operation):
                program = derivative(functools.partial(function, **arguments))
                text = (
                    jax.jit(lambda *a, program=program: program(*a))
                    .trace(x, kernel)
                    .lower(lowering_platforms=(platform,))
                    .as_text()
                )
                # Names and order of the results aside.
                operations = [re.sub(r'%[\w.#:]+', '%', line).strip() for line in text.splitlines()]
                texts.append(sorted(line for line in operations if 'stablehlo.' in line and 'constant' not in line))
            assert texts[0] == texts[1] and any('stablehlo.convolution' in line for line in texts[0])


@pytest.mark.parametrize(('image', 'size', 'arguments'), FORMS)
def test_transformations(image, size, arguments):
    rng = np.random.default_rng(0)
    x, kernel, dx, dk = (jnp.asarray(rng.standard_normal(each), jnp.float32) for each in (image, size, image, size))

    def everything(function):
        f = functools.partial(function, **arguments)
        loss = lambda x, k: jnp.sum(jnp.sin(f(x, k)))  # noqa: E731
        gradient = jax.grad(loss, (0, 1))
        along = lambda x, k: sum(map(jnp.vdot, gradient(x, k), (dx, dk)))  # noqa: E731
        images, kernels = jnp.stack([x, dx]), jnp.stack([kernel, dk])
        return dict(
            forward_over_reverse=jax.jvp(gradient, (x, kernel), (dx, dk))[1],
            reverse_over_reverse=jax.grad(along, (0, 1))(x, kernel),
            each_image=jax.vmap(lambda one: gradient(one[None], kernel)[1])(x),
            one_kernel=jax.vmap(f, (0, None))(images, kernel),
            nested=jax.vmap(jax.vmap(gradient, (None, 0)), (0, None))(images, kernels),
            loop=jax.grad(lambda k: jax.lax.scan(lambda c, k: (c + loss(x, k), None), 0.0, k)[0])(kernels),
        )

    results = [jax.jit(functools.partial(everything, function))() for function in (conv2d, operation)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), *results)


@pytest.mark.parametrize('how', ['jit', 'shard_map'])
@pytest.mark.parametrize(('image', 'size', 'arguments'), FORMS)
def test_over_eight_devices(image, size, arguments, how):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, *image[1:])).astype(np.float32)
    kernel = rng.standard_normal(size).astype(np.float32)
    mesh = make_mesh()
    assert mesh.size == 8

    def loss(x, kernel):
        return jnp.sum(jnp.sin(conv2d(x, kernel, **arguments)))

    def of_all(x, kernel):
        return jax.lax.psum(loss(x, kernel), mesh.axis_names)

    if how == 'jit':
        divided, given = loss, (jax.device_put(x, by_example(mesh)), jax.device_put(kernel, replicated(mesh)))
    else:  # the kernel's gradient is of all images here too
        divided = jax.shard_map(of_all, mesh=mesh, in_specs=(P(mesh.axis_names), P()), out_specs=P())
        given = x, kernel
    found, expected = jax.jit(jax.grad(divided, (0, 1)))(*given), jax.jit(jax.grad(loss, (0, 1)))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), found, expected)


@pytest.mark.parametrize(('image', 'size', 'arguments'), FORMS[2:4])
def test_kernel_gradients_of_some_images_at_a_time(image, size, arguments, monkeypatch):
    monkeypatch.setattr(conv_cpu, 'AT_ONCE', 1)
    rng = np.random.default_rng(0)

    def gradient(function):
        return jax.jit(jax.grad(lambda k: jnp.sum(jnp.sin(function(x, k, **arguments)))))

    with jax.enable_x64(True):
        x, kernel = rng.standard_normal((6, *image[1:])), rng.standard_normal(size)
        assert 'while' in gradient(conv2d).lower(kernel).as_text()
        np.testing.assert_allclose(gradient(conv2d)(kernel), gradient(operation)(kernel), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(('forms', 'channels'), [(conv_cpu, 12), (conv_banded, 8)])
def test_a_batch_over_devices_is_not_cut(forms, channels, monkeypatch):
    monkeypatch.setattr(forms, 'AT_ONCE', 1)
    mesh = make_mesh()
    images = jax.ShapeDtypeStruct((16, 12, 12, channels), np.float32, sharding=by_example(mesh))
    kernel = jax.ShapeDtypeStruct((3, 3, channels, 16), np.float32, sharding=replicated(mesh))
    program = jax.jit(jax.grad(lambda k, x: jnp.sum(jnp.sin(conv2d(x, k))))).lower(kernel, images).compile().as_text()
    assert 'all-reduce' in program
    assert 'while' not in program and 'all-gather' not in program


@pytest.mark.parametrize('size', [(3, 3, 12, 24), (3, 3, 80, 20)])  # columns written out; all taps in one product
def test_narrow_convolutions_as_products(size, monkeypatch):
    monkeypatch.setattr(conv_cpu, 'WORTHWHILE', 0)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel = rng.standard_normal((2, 6, 7, size[2])), rng.standard_normal(size)
        function = functools.partial(conv2d, padding=((1, 1), (0, 2)))
        assert 'convolution' not in jax.jit(function).lower(x, kernel).as_text()
        expected = operation(x, kernel, padding=((1, 1), (0, 2)))
        np.testing.assert_allclose(jax.jit(function)(x, kernel), expected, rtol=1e-10, atol=1e-10)


def test_few_channels_are_products_and_their_gradient_is_of_some_images_at_a_time(monkeypatch):
    monkeypatch.setattr(conv_banded, 'AT_ONCE', 1)
    rng, padding = np.random.default_rng(0), ((0, 1), (2, 0))
    with jax.enable_x64(True):
        x, kernel = rng.standard_normal((3, 8, 9, 6)), rng.standard_normal((3, 4, 6, 5))
        ours, exact = (functools.partial(function, padding=padding) for function in (conv2d, operation))
        weight = rng.standard_normal(exact(x, kernel).shape)
        function = jax.jit(functools.partial(value_and_gradients, ours))
        program = function.lower(x, kernel, weight).as_text()
        assert 'stablehlo.convolution' not in program and 'while' in program
        for got, wanted in zip(function(x, kernel, weight), value_and_gradients(exact, x, kernel, weight), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.fixture
def everything_by_onednn(monkeypatch):
    if not onednn.available():
        pytest.skip('jaxlib has no oneDNN here, or is of a version that is not known')
    monkeypatch.setattr(conv_onednn, 'WORTHWHILE', 0)
    monkeypatch.setattr(conv_onednn, 'FEW_IMAGES', 0)
    monkeypatch.setattr(conv_onednn, 'AT_ONCE', 2)
    monkeypatch.setattr(conv_onednn, 'SUMMED', 40)


# A product, a strided one, a wide kernel, three images two at a time, dilated, fewer features than channels, low maps,
# wide strides with a kernel cropped, groups, groups with strides.
BY_ONEDNN = [
    ((2, 8, 8, 16), (1, 1, 16, 8), {}), ((2, 9, 8, 16), (1, 1, 16, 8), dict(strides=2)),
    ((2, 12, 11, 8), (3, 5, 8, 12), dict(padding=((1, 2), (0, 3)))), ((3, 12, 12, 4), (3, 3, 4, 16), {}),
    ((2, 14, 13, 8), (3, 3, 8, 8), dict(dilation=(2, 3))), ((2, 12, 10, 16), (3, 4, 16, 8), {}),
    ((2, 4, 4, 8), (3, 3, 8, 8), {}), ((2, 13, 12, 3), (2, 7, 3, 8), dict(strides=(3, 4), padding=2)),
    ((2, 8, 8, 32), (3, 3, 4, 64), dict(groups=8)), ((2, 9, 9, 24), (3, 3, 8, 12), dict(groups=3, strides=2)),
]  # fmt: skip


@pytest.mark.parametrize(('image', 'size', 'arguments'), BY_ONEDNN)
def test_value_and_both_gradients_by_onednn(image, size, arguments, everything_by_onednn):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (image, size))
    ours = jax.jit(functools.partial(value_and_gradients, functools.partial(conv2d, **arguments)))
    exact = functools.partial(operation, **arguments)
    weight = jnp.asarray(rng.standard_normal(jax.eval_shape(exact, x, kernel).shape), jnp.float32)
    program = ours.lower(x, kernel, weight).as_text()
    assert program.count('__onednn$convolution') >= 2 and ('__onednn$matmul' in program) == (size[:2] == (1, 1))
    with jax.enable_x64(True):
        wanted = value_and_gradients(exact, *(each.astype(jnp.float64) for each in (x, kernel, weight)))
    for got, exactly in zip(ours(x, kernel, weight), wanted, strict=True):
        np.testing.assert_allclose(got, exactly, rtol=1e-4, atol=1e-4)


def test_a_program_that_calls_onednn_stays_out_of_the_cache_on_disk(everything_by_onednn):
    counted, shapes = [], [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8, 8, 4), (3, 3, 4, 4))]
    with compile_cache.empty():
        for function in (conv2d, operation):
            for _ in range(2):
                jax.clear_caches()
                with compile_cache.counted() as counts:
                    jax.jit(function).lower(*shapes).compile()
                counted.append(counts)
    assert counted == [{'cached': 0, 'compiled': 1}] * 3 + [{'cached': 1, 'compiled': 0}]


def test_batches_over_devices_and_other_versions_do_without_onednn(everything_by_onednn, monkeypatch):
    images = jax.ShapeDtypeStruct((16, 12, 12, 8), np.float32, sharding=by_example(make_mesh()))
    kernel = jax.ShapeDtypeStruct((3, 3, 8, 16), np.float32, sharding=replicated(make_mesh()))
    assert 'onednn' not in jax.jit(lambda x, k: conv2d(x, k)).lower(images, kernel).as_text()
    monkeypatch.setattr(onednn, 'TESTED', ('0.0.1',))
    onednn.available.cache_clear()
    try:
        alone = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (images, kernel)]
        assert 'onednn' not in jax.jit(lambda x, k: conv2d(x, k)).lower(*alone).as_text()
    finally:
        monkeypatch.undo()
        onednn.available.cache_clear()
