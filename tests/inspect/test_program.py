"""A net as a program: names of values, the last feature map, receptive fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.inspect import cost, learned, program, receptive
from cvresearch.models import registry
from cvresearch.nn import overrides
from cvresearch.nn.overrides import Net


def traced(name, **arguments):
    """Returns the program of a variant at its own size; nothing is computed."""
    module = registry.build(name, **arguments)
    shape = registry.variant(name).input_shape
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return program.trace(overrides.unrolled(module), cost.block_shapes(module, shape), image)


# Papers: relu5_3 of VGG-16 and the maps before global average pooling are what Grad-CAM and CAM were shown on.
@pytest.mark.parametrize(
    ('net', 'name', 'shape'),
    [
        ('alexnet', 'conv5+relu', (13, 13, 256)),
        ('vgg11', 'stage5_block1_conv+relu', (14, 14, 512)),
        ('resnet18', 'stage4', (7, 7, 512)),
        ('densenet121', 'last_bn+relu', (7, 7, 1024)),
        ('mobilenetv2_100', 'last_bn+relu6', (7, 7, 1280)),
        ('efficientnet_b0', 'last_bn+silu', (7, 7, 1280)),
        ('googlenet', 'stage3', (7, 7, 1024)),
        ('nin_cifar10', 'head+relu', (8, 8, 10)),
        ('preact_resnet110_a_cifar10', 'last_norm+relu', (8, 8, 64)),
    ],
)
def test_last_map_is_the_one_before_pooling(net, name, shape):
    made = traced(net)
    place = program.last_map(made)
    assert made.name(place) == name and made.shapes[place][1:] == shape


def test_a_net_with_norms_from_outside_has_the_same_names():
    # A run wraps its net so.
    module = registry.build('resnet20_cifar10')
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    found = []
    for net in (module, Net(module)):
        made = program.trace(overrides.unrolled(net), cost.block_shapes(net, image.shape[1:]), image)
        found.append((made.net, made.name(program.last_map(made)), list(made.names)))
    assert found[0] == found[1]


def test_a_perceptron_has_no_map():
    with pytest.raises(UserError, match='MLP has no feature map with height and width'):
        program.last_map(traced('mlp'))


def test_unknown_layers_and_layers_without_extent_are_one_line():
    made = traced('resnet18')
    with pytest.raises(UserError, match="no layer 'stage5'; did you mean stage"):
        made.map_place('stage5')
    with pytest.raises(UserError, match=r"layer 'head' of ResNet gives 1000, no map .* such as 'stage4'"):
        made.map_place('head')


@pytest.mark.parametrize('stacked', [False, True])
def test_the_program_gives_the_logits_and_blocks_by_name(stacked):
    module = registry.build('resnet32_cifar10', stacked=stacked)
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(lambda key: module.init(key, images))(jax.random.key(0))
    logits = jax.jit(module.apply)(variables, images)
    names = program.layers(module, variables, (8, 8, 3))
    assert names['stage2_block3/conv1'] == (4, 4, 32) and names['stage3'] == (2, 2, 64)
    np.testing.assert_allclose(learned.feature_maps(module, variables, images, 'head'), logits, rtol=1e-4, atol=1e-5)


# Arithmetic. VGG-11: 3; pool 4; 8; pool 10; 18, 26; pool 30; 46, 62; pool 70; 102, 134.
@pytest.mark.parametrize(
    ('net', 'layer', 'size', 'jump'),
    [('vgg11', 'stage5_block1_conv', 134, 16), ('alexnet', 'conv5', 163, 16), ('vgg11', 'stage1_block0_conv', 3, 1)],
)
def test_receptive_fields(net, layer, size, jump):
    made = traced(net)
    found = receptive.field(made, made.place(layer))
    assert found.size == (size, size) and found.jump == (jump, jump)


@pytest.mark.parametrize(('net', 'layer'), [('lenet5', 'C3'), ('squeezenet1_0', 'stage1_block1')])
def test_a_unit_depends_on_the_pixels_of_its_box_alone(net, layer):
    module = registry.build(net, 10)
    side = 71 if net != 'lenet5' else 32
    shape = (1, side, side, registry.variant(net).input_shape[2])
    variables = jax.jit(lambda key: module.init(key, jnp.zeros(shape)))(jax.random.key(1))
    images = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    made = program.trace(module, variables, images)
    place = made.place(layer)
    row = column = made.shapes[place][1] // 2

    def unit(images):
        return made.run(variables, images, keep=[place])[1][0][0, row, column].sum()

    seen = np.abs(jax.jit(jax.grad(unit))(images))[0].sum(-1) > 0
    rows, columns = np.nonzero(seen.any(1))[0], np.nonzero(seen.any(0))[0]
    top, left, height, width = receptive.field(made, place).box(row, column, shape[1:3])
    assert top <= rows[0] and rows[-1] < top + height and left <= columns[0] and columns[-1] < left + width
    # Dead units and maxima may leave the outermost pixels out, but no more.
    assert rows[-1] - rows[0] >= 0.8 * height and columns[-1] - columns[0] >= 0.8 * width
