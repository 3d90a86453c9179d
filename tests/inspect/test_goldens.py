"""Maps and attributions equal those of grad-cam 1.5.7 and captum 0.9.0 (tests/goldens/attribution.py), in float64."""

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.inspect import attribution, class_activation, cost
from cvresearch.interop import conversion
from cvresearch.models import registry
from tests.goldens import seeded

GOLDEN = Path(__file__).parent.parent / 'goldens' / 'files' / 'attribution.npz'
# As in the generator: side of the image, name of the layer.
NETS = {
    'torchvision/resnet18': (96, 'stage4_block1'),
    'torchvision/vgg11': (48, 'stage5_block1_conv+relu'),
    'torchvision/squeezenet1_0': (96, 'stage3_block0'),
    'torchvision/mobilenet_v2': (96, 'last_bn+relu6'),
    'torchvision/densenet121': (96, 'last_bn'),
}
CLASS, SAMPLES, STEPS, NOISE, WINDOW, STRIDE, PIXELS = 7, 4, 16, 0.2, 24, 16, 1000
PARAMETERS = [pytest.param(name, marks=[] if 'squeezenet' in name else [pytest.mark.slow]) for name in NETS]


@pytest.fixture(scope='module', params=PARAMETERS)
def net(request):
    """Yields (name, what every function takes: module, variables, images, classes)."""
    name = request.param
    with jax.enable_x64(True):
        reference = registry.reference(name)
        module = registry.build(reference.variant, **reference.arguments)
        tensors = {key: seeded.tensor(key, shape) for key, shape in shapes_of(module, name).items()}
        module, variables = conversion.to_variables(tensors, name)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
        side, _ = NETS[name]
        images = seeded.image((1, side, side, 3)).astype(np.float64)
        yield name, (module.clone(dtype=jnp.float64), variables, images, CLASS)


def shapes_of(module, name):
    """Returns the shapes of a reference's tensors."""
    made = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), cost.shapes(module, (224, 224, 3)))
    return {key: value.shape for key, value in conversion.to_tensors(made, name).items()}


def assert_equal(ours, name, key, tolerance=1e-4):
    golden = np.load(GOLDEN)
    ours, theirs = np.asarray(ours).reshape(-1), golden[f'{name} {key}']
    if ours.size > PIXELS:
        ours = ours[np.random.default_rng(0).choice(ours.size, PIXELS, replace=False)]
    assert np.abs(ours - theirs).max() <= tolerance * golden[f'{name} {key} range']


def scaled(maps, side):
    """Returns maps as grad-cam scales them (utils/image.py, scale_cam_image): twice to [0, 1], enlarged between."""
    maps = maps - maps.min()
    large = cv2.resize(np.float32(maps / (1e-7 + maps.max())), (side, side))
    large = large - large.min()
    return large / (1e-7 + large.max())


@pytest.mark.parametrize('method', ['gradcam', 'gradcam++'])
def test_class_activation_maps(net, method):
    name, arguments = net
    side, layer = NETS[name]
    found = class_activation.grad_cam(*arguments, layer=layer, method=method)
    if method == 'gradcam':
        assert_equal(found.logits, name, 'logits')
        assert_equal(found.map, name, 'gradcam')
    assert_equal(scaled(found.map[0], side), name, f'scaled {method}')


def test_saliency(net):
    name, arguments = net
    assert_equal(np.abs(attribution.gradient(*arguments)), name, 'saliency')


def test_smooth_gradient(net):
    name, arguments = net
    side, _ = NETS[name]
    noise = NOISE * seeded.image((SAMPLES, side, side, 3), 'noise')
    assert_equal(attribution.mean_gradient(*arguments, noise), name, 'smoothgrad')


def test_integrated_gradients(net):
    name, arguments = net
    assert_equal(attribution.integrated_gradients(*arguments, steps=STEPS), name, 'integrated')


def test_guided_backpropagation(net):
    name, arguments = net
    assert_equal(attribution.guided_backpropagation(*arguments), name, 'guided')


def test_deconvolution(net):
    name, arguments = net
    assert_equal(attribution.deconvolution(*arguments), name, 'deconv')


def test_occlusion(net):
    name, arguments = net
    found = attribution.occlusion(*arguments, window=WINDOW, stride=STRIDE)
    assert_equal(np.repeat(found[..., None], 3, -1), name, 'occlusion')
