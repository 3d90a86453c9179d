"""No device computes another's images: the update of every family with grouped convolutions, compiled for 8 devices."""

import contextlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import cvresearch
from cvresearch.base import mesh as meshes
from cvresearch.engine import ahead
from cvresearch.engine.experiment import Experiment
from cvresearch.inspect import hlo
from cvresearch.nn import conv_primitives, devices
from cvresearch.nn.conv import conv2d, plain_lowering
from cvresearch.nn.conv_primitives import Window
from tests.environment import QUICK
from tests.interop.nets import CHEAPEST, small_shape

ONE_EACH = '(1, 1, 1, 1)'
NETS = {
    'alexnet': dict(data__image_size=64),
    'resnext50_32x4d': dict(model__stage_sizes=ONE_EACH, data__image_size=32),
    'legacy_senet154': dict(model__stage_sizes=ONE_EACH, data__image_size=32),
    'dm_nfnet_f0': dict(model__depths=ONE_EACH, data__image_size=32),
    'shufflenet_g3_x1_0': dict(data__image_size=32),
}
# How XLA's partitioner treats its own operation, as on GPUs, and how convolutions are written for CPUs.
LOWERINGS = {'gpu': plain_lowering, 'cpu': contextlib.nullcontext}
MOVES = ('all-gather', 'all-to-all', 'collective-permute')


def gathered(text: str, batch: int) -> list[str]:
    """Returns the shapes of images, of a batch of them or more, that devices send each other."""
    found = [each for body in hlo.parse(text).computations.values() for each in body.values()]
    moved = [each.type for each in found if each.op.removesuffix('-start') in MOVES]
    shapes = [array.shape for types in moved for array in hlo.arrays(types)]
    return [str(shape) for shape in shapes if len(shape) > 2 and batch in shape]


def gathers(smoke, net, batch, **settings):
    """Returns what the update of a net sends of images, compiled for 8 devices."""
    settings = dict(data__channels=3, augment__shift=0) | settings
    experiment = Experiment.from_config(smoke(mesh__data=8, model__name=net, batch_size=batch, **settings))
    with plain_lowering():
        step = experiment.train_step().lower(experiment.abstract_state(), ahead.batch_of(experiment))
    return gathered(step.compile(QUICK).as_text(), batch)


@pytest.mark.parametrize('net', NETS)
@pytest.mark.parametrize('batch', [24, pytest.param(8, marks=pytest.mark.slow)])
def test_no_family_gathers_images(smoke, net, batch):
    assert not gathers(smoke, net, batch, **NETS[net])


@pytest.mark.slow
@pytest.mark.parametrize('net', [name for name in CHEAPEST if name not in NETS])
def test_no_other_family_gathers_images(smoke, net):
    size, _, channels = small_shape(net)
    assert not gathers(smoke, net, 24, data__image_size=size, data__channels=channels)


def test_every_convolution_goes_through_the_one_that_divides_the_batch():
    written = re.compile(r'lax\.conv|nn\.Conv\(|nn\.ConvLocal')
    files = {path.name for path in Path(cvresearch.__path__[0]).rglob('*.py') if written.search(path.read_text())}
    assert files <= {'conv_primitives.py', 'conv_cpu.py', 'stored.py'}  # stored: inference in eight bits


# Depthwise convolutions GPUs divide by themselves.
@pytest.mark.parametrize(('lowering', 'groups'), [('gpu', 2), ('gpu', 6), ('cpu', 6), ('cpu', 48)])
def test_a_grouped_convolution_and_its_gradients_stay_on_their_devices(lowering, groups):
    mesh = meshes.make_mesh(8)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 8, 8, 48)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 48 // groups, 48)).astype(np.float32)

    def loss(x, kernel):
        return jnp.sum(jnp.sin(conv2d(jnp.cos(x), kernel, groups=groups)) ** 2)

    def divided(x, kernel):
        with devices.traced_for(mesh), LOWERINGS[lowering]():
            return jax.grad(loss, (0, 1))(x, kernel)

    placed = meshes.by_example(mesh), meshes.replicated(mesh)
    compiled = jax.jit(divided, in_shardings=placed).lower(x, kernel).compile()
    assert not gathered(compiled.as_text(), 16)
    for ours, theirs in zip(compiled(x, kernel), jax.jit(jax.grad(loss, (0, 1)))(x, kernel), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_on_gpus_only_the_gradient_of_the_kernel_is_summed_over_devices():
    mesh = meshes.make_mesh(8)
    images = jax.ShapeDtypeStruct((16, 8, 8, 8), np.float32, sharding=meshes.by_example(mesh))
    kernel = jax.ShapeDtypeStruct((3, 3, 2, 8), np.float32, sharding=meshes.replicated(mesh))
    with devices.traced_for(mesh):
        traced = jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(conv2d(x, k, groups=4))), (0, 1))).trace(images, kernel)
        program = traced.lower(lowering_platforms=('cuda',)).as_text()
    assert re.findall(r'all_reduce.*?}\) : \((tensor<.*?>)\)', program, re.DOTALL) == ['tensor<3x3x2x8xf32>']


def test_gradients_in_the_form_of_gpus_are_of_the_devices_own_images():
    mesh, window = meshes.make_mesh(8), Window((8, 8), (3, 3), padding=((1, 1), (1, 1)), groups=4)
    rng = np.random.default_rng(0)
    x, g = (rng.standard_normal((16, 8, 8, 8)).astype(np.float32) for _ in range(2))
    kernel = rng.standard_normal((3, 3, 2, 8)).astype(np.float32)

    def gradients(x, kernel, g):
        kernel = jax.lax.pcast(kernel, mesh.axis_names, to='varying')
        of_kernel = conv_primitives.plain_kernel_gradient(x, g, window)
        return conv_primitives.plain_input_gradient(g, kernel, window), jax.lax.psum(of_kernel, mesh.axis_names)

    each = P(mesh.axis_names)
    found = jax.shard_map(gradients, mesh=mesh, in_specs=(each, P(), each), out_specs=(each, P()))(x, kernel, g)
    _, pullback = jax.vjp(lambda x, k: conv_primitives.plain(x, k, window), x, kernel)
    for got, wanted in zip(found, pullback(jnp.asarray(g)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
