"""A photograph has one set of logits: evaluation as the weights were published shows a net what `predict` shows it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvresearch import predict
from cvresearch.data import preprocessing, sources, transforms
from cvresearch.data.preparation import AsEvaluated
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.evaluation import measure
from cvresearch.interop.classifier import Classifier, Provenance
from tests.data.photographs import jpeg

SIDE = 24
NAMES = ('cat', 'dog')


class Places(nn.Module):
    """A net to which every pixel counts by its place and channel."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes, name='head')(x.reshape(len(x), -1))


def published(reference):
    """Returns how a reference's images are prepared, at a small size."""
    found, _ = preprocessing.of(reference, SIDE)
    return dataclasses.replace(found, crop=SIDE, resize=round(SIDE * found.resize / found.crop))


def as_a_run(channels):
    crop = dict(name='resize_center_crop', size=SIDE, resize=SIDE + 4)
    transform = transforms.make(dict(crop=crop, channels=channels))
    return AsEvaluated(transform, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1))


PREPARATIONS = {
    'bilinear': lambda: published('torchvision/resnet50'),
    'bicubic': lambda: published('timm/resnet50.a1_in1k'),
    'BGR': lambda: published('keras/ResNet50'),
    'squashed': lambda: published('timm/dm_nfnet_f0'),
    'as in digits': lambda: Preprocessing(SIDE, SIDE, squash=True, mean=(0.5,), std=(0.5,), channels='L'),
    'a run': lambda: as_a_run('RGB'),
    'a run in BGR': lambda: as_a_run('BGR'),
}


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Images of many sizes, modes and formats, in the folders of two classes."""
    root = tmp_path_factory.mktemp('photos')
    for name in NAMES:
        (root / name).mkdir()
    draw = np.random.default_rng(0)
    for number, (mode, height, width) in enumerate(
        [('RGB', 40, 31), ('RGB', 25, 90), ('L', 60, 33), ('RGBA', 200, 150), ('RGB', 24, 24), ('RGB', 9, 12)]
    ):
        image = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
        image.save(root / NAMES[number % 2] / f'{number}.png')
    for number in range(6, 9):
        (root / NAMES[number % 2] / f'{number}.jpg').write_bytes(jpeg(number))
    image.convert('P').save(root / 'cat' / '9.gif')
    return root


@pytest.fixture(params=PREPARATIONS)
def net(request):
    prepare, module = PREPARATIONS[request.param](), Places(len(NAMES))
    variables = module.init(jax.random.key(0), jnp.zeros((1, *prepare.input_shape)))
    return Classifier(module, variables, prepare, NAMES, Provenance('file', 'net', 'net', '0'))


def test_evaluation_shows_a_net_the_pixels_that_predict_shows_it(net, photos):
    spec = {'name': 'image_folder', 'root': str(photos), 'every': 1}
    examples = sources.load(spec, class_names=NAMES, preparation=net.preprocessing).splits['test']
    index = np.arange(len(examples))
    shown, _ = examples.take(index)
    alone = [preprocessing.of_file(photos / name, net.prepare) for name in examples.ids(index)]
    assert len(alone) == 10
    order = slice(None, None, -1) if net.preprocessing.channels == 'BGR' else slice(None)
    np.testing.assert_array_equal(shown[..., order], np.stack(alone))


def test_evaluation_and_predict_say_the_same_of_each_image(net, photos):
    found = measure.measure(net, {'name': 'image_folder', 'root': str(photos), 'every': 1})
    spec = {'name': 'image_folder', 'root': str(photos), 'every': 1}
    names = sources.load(spec, class_names=NAMES, preparation=net.preprocessing).splits['test'].ids(np.arange(10))
    images = np.stack([preprocessing.of_file(photos / name, net.prepare) for name in names])
    np.testing.assert_array_equal(np.asarray(jax.jit(net.logits)(images)), found.logits)
    answers = dict(predict.predict(net, [photos / name for name in names], top=1))
    said = [answers[photos / name][0]['class'] for name in names]
    assert said == found.predicted.tolist()


def test_a_protocol_shows_a_net_the_channels_that_it_takes(net, photos):
    spec = {'name': 'image_folder', 'root': str(photos), 'every': 1}
    found = measure.measure(net, spec, view=measure.View('centre', scales=(SIDE,)))
    name = sources.load(spec, class_names=NAMES, preparation=net.preprocessing).splits['test'].ids(np.array([0]))[0]
    # By hand: the short side to 24 by triangles, the middle square, grey where the net is.
    prepared = Preprocessing(SIDE, SIDE, channels='L' if net.input_shape[-1] == 1 else 'RGB')
    pixels = prepared.pixels((photos / name).read_bytes())
    np.testing.assert_allclose(found.logits[0], np.asarray(net.logits(pixels)), rtol=1e-4, atol=1e-4)
