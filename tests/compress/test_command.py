"""The command: a folder that every program takes, the record beside it, and bad input."""

import json

import jax
import jax.export
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from cvresearch import evaluate, export, look
from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.compress import __main__ as command
from cvresearch.data import transforms
from cvresearch.data.preparation import AsEvaluated
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine import classifiers
from cvresearch.interop import compressed, exports
from cvresearch.interop.classifier import Classifier, Provenance
from cvresearch.models import registry


def original(name='lenet5'):
    module = registry.build(name, 3)
    variables = jax.device_get(module.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32)))
    preparation = Preprocessing(crop=28, resize=28, squash=True, mean=(0.5,), std=(0.25,), channels='L')
    return Classifier(module, variables, preparation, ('a', 'b', 'c'), Provenance('run', 'run:x', name, 'digest'))


@pytest.fixture
def net(monkeypatch, tmp_path):
    """The net that every name but a compressed one stands for."""
    net, load = original(), classifiers.load
    monkeypatch.setattr(classifiers, 'load', lambda name, model='': net if name == 'run:x' else load(name, model))
    return net


def run(tmp_path, *flags):
    assert command.main(['--weights', 'run:x', '--out', str(tmp_path / 'small'), *flags]) == 0
    return classifiers.load(tmp_path / 'small'), json.loads((tmp_path / 'small' / compressed.RECORD).read_text())


def test_pruned_shared_and_coded(net, tmp_path, capsys):
    small, record = run(tmp_path, '--prune', '0.8', '--bits', '4', '--code')
    for layer in record['layers']:
        assert layer['kept'] == pytest.approx(0.2, abs=0.03) and layer['distinct'] <= 16
    assert small.class_names == ('a', 'b', 'c') and small.preprocessing == net.preprocessing
    assert small.provenance.kind == 'compressed' and record['original']['params_sha256'] == net.digest
    assert record['sha256'] == trees.sha256(small.variables)
    assert record['total_bytes'] == (tmp_path / 'small' / 'net.cvr').stat().st_size < record['original']['bytes'] / 12
    assert 'times smaller' in capsys.readouterr().out


def test_what_is_not_compressed_is_the_same_net(net, tmp_path):
    small, _ = run(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    assert np.array_equal(small.logits(images), net.logits(images)) and small.digest == net.digest


@pytest.mark.parametrize(
    'flags',
    [
        ['--svd', 'size=0.5'],
        ['--svd', 'rank=3', '--svd_method', 'separable', '--layer', 'C3', '--bits', '5'],
        ['--scope', 'channels', '--prune', '0.4'],
        ['--scope', 'global', '--prune', '0.5'],
        ['--quality', '1'],
    ],
)
def test_each_way_makes_the_file_smaller_and_answers(net, tmp_path, flags):
    small, record = run(tmp_path, *flags)
    assert record['total_bytes'] < 0.98 * record['original']['bytes']
    assert small.logits(np.zeros((28, 28, 1), np.uint8)).shape == (3,)


def test_int8_is_a_quarter_and_near_the_original(net, tmp_path):
    (tmp_path / 'photos').mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / 'photos' / f'{number}.png')
    small, record = run(tmp_path, '--int8', 'minmax', '--images', str(tmp_path / 'photos'))
    assert record['total_bytes'] < record['original']['bytes'] / 3.8 and small.digest == record['sha256']
    expected = np.asarray(net.logits(pixels[..., None]))
    assert np.abs(np.asarray(small.logits(pixels[..., None])) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.fixture
def photos(net, tmp_path):
    """Images in the folders of their classes, as the original names them."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
    answers = np.asarray(net.logits(pixels[..., None])).argmax(-1)
    for number, (image, answer) in enumerate(zip(pixels, answers, strict=True)):
        folder = tmp_path / 'photos' / net.class_names[answer]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f'{number}.png')
    for name in net.class_names:
        (tmp_path / 'photos' / name).mkdir(exist_ok=True)
    return tmp_path / 'photos'


def test_the_record_has_the_accuracy_before_and_after(net, photos, tmp_path, capsys):
    small, record = run(tmp_path, '--prune', '0.97', '--data', 'image_folder', '--root', str(photos))
    before, after = record['accuracy']['before'], record['accuracy']['after']
    assert before['top1'] == 100 and before['n_seen'] == after['n_seen'] == 12
    assert (before['digest'], after['digest']) == (record['original']['digest'], record['sha256'])
    assert (before['kind'], after['kind'], after['of']) == ('run', 'compressed', 'run:x')
    files = sorted(photos.rglob('*.png'))
    pixels = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    right = np.asarray(small.logits(pixels)).argmax(-1) == [net.class_names.index(file.parent.name) for file in files]
    assert after['top1'] == pytest.approx(100 * right.mean()) and record['same_answers'] == pytest.approx(right.mean())
    assert record['latency_ms']['before'] > 0 < record['latency_ms']['after']
    assert 'top1 100.00 before' in capsys.readouterr().out


def test_int8_calibrates_on_training_images_where_it_is_given_no_others(net, photos, tmp_path):
    (tmp_path / 'whole').mkdir()
    for split in ('train', 'test'):
        (tmp_path / 'whole' / split).symlink_to(photos)
    flags = ['--int8', 'minmax', '--data', 'image_folder', '--root']
    small, _ = run(tmp_path, *flags, str(tmp_path / 'whole'))
    pixels = np.stack([np.asarray(Image.open(file))[..., None] for file in photos.rglob('*.png')])
    normal = np.asarray(net.normalize(pixels))
    low, high = min(normal.min(), 0), max(normal.max(), 0)
    assert small.variables['params']['C1']['input_scale'] == pytest.approx((high - low) / 255, rel=1e-5)
    with pytest.raises(UserError, match='no training images'):
        command.main(['--weights', 'run:x', '--out', str(tmp_path / 'other'), *flags, str(photos)])


def test_evaluate_takes_the_folder_and_finds_what_the_record_says(net, photos, tmp_path, capsys):
    _, record = run(tmp_path, '--prune', '0.97', '--data', 'image_folder', '--root', str(photos))
    capsys.readouterr()
    flags = ['--weights', str(tmp_path / 'small'), '--data', 'image_folder', '--root', str(photos)]
    assert evaluate.main(flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['kind'] == 'compressed' and found['top1'] == record['accuracy']['after']['top1']


def test_look_and_export_take_the_folder(net, photos, tmp_path, capsys):
    small, _ = run(tmp_path, '--prune', '0.5')
    file = str(next(photos.rglob('*.png')))
    flags = ['--weights', str(tmp_path / 'small'), '--out', str(tmp_path / 'map.png'), '--arrays', f'{tmp_path}/a.npz']
    assert look.main(['saliency', file, *flags]) == 0
    pixels = np.asarray(Image.open(file))[..., None]
    with np.load(tmp_path / 'a.npz') as arrays:
        np.testing.assert_allclose(arrays['logits'][0], small.logits(pixels), rtol=1e-5, atol=1e-6)
    out = tmp_path / 'net.stablehlo'
    assert export.main(['--weights', str(tmp_path / 'small'), '--to', 'stablehlo', '--out', str(out)]) == 0
    said = jax.export.deserialize(bytearray(out.read_bytes())).call(np.asarray(small.normalize(pixels[None])))
    logits = said['logits'] if isinstance(said, dict) else said
    np.testing.assert_allclose(np.asarray(logits)[0], small.logits(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'flags',
    [
        ['--bits', '4'],
        ['--svd', 'size=0.5'],
        ['--scope', 'channels', '--prune', '0.4'],
        ['--int8', 'minmax', '--images', 'photos'],
    ],
)
def test_what_was_made_small_leaves_as_onnx(net, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photos').mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(tmp_path / 'photos' / f'{number}.png')
    small, _ = run(tmp_path, *flags)
    # Pixels about a mean of a half lie halfway between two of eight bits: in int8 the last bit of their normalization
    # would decide. So that net is given the normalized ones.
    raw = '--int8' not in flags
    exports.export(small, 'onnx', tmp_path / 'net.onnx', exports.Options(raw=raw))
    options = onnxruntime.SessionOptions()  # as written: operations on integers are rounded once more
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / 'net.onnx', options, providers=['CPUExecutionProvider'])
    expected = np.asarray(small.logits(pixels))
    (logits,) = session.run(['logits'], {'images': pixels if raw else np.asarray(small.normalize(pixels))})
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


BEFORE_A_NET_IS_READ = [
    (['--root', 'somewhere'], 'give both'),
    (['--limit', '5'], 'give both'),
    (['--kmeans', 'optimal'], 'give both'),
    (['--scope', 'global', '--quality', '1'], 'give both'),
    (['--per_tensor'], 'give both'),
    (['--data', 'image_folders'], 'did you mean'),
    (['--data', 'image_folder', '--root', 'nowhere'], 'there is no'),
    (['--prune', '1.2'], 'from 0 to 1'),
    (['--prune', '-0.1'], 'at least 0'),
    (['--prune', 'nan'], 'at least 0'),
    (['--prune', 'much'], "--prune is 'much'"),
    (['--quality', 'inf'], 'at least 0'),
    (['--bits', '9'], 'from 1 to 8'),
    (['--bits', '0'], 'from 1 to 8'),
    (['--bits', '2.5'], 'whole number'),
    (['--bits', '3', '--kmeans', 'loyd'], 'did you mean lloyd'),
    (['--svd', 'rank=0'], 'at least 1'),
    (['--svd', 'rank=2.5'], 'such as'),
    (['--svd', 'energie=0.4'], 'did you mean energy'),
    (['--svd', 'energy=1.4'], 'from 0 to 1'),
    (['--svd', 'size=0.5', '--svd_method', 'seperable'], 'did you mean separable'),
    (['--scope', 'layers', '--prune', '0.1'], 'did you mean layer'),
    (['--int8', 'minmax'], '--images'),
    (['--int8', 'minmax', '--images', 'nowhere'], 'no image'),
    (['--int8', 'max', '--images', 'nowhere'], 'did you mean minmax'),
    (['--int8', 'minmax', '--bits', '3', '--images', 'nowhere'], 'one of them'),
    (['--prune', '0.1', '--quality', '0.1'], 'one of them'),
]


@pytest.mark.parametrize(('flags', 'message'), BEFORE_A_NET_IS_READ)
def test_what_needs_no_net_is_refused_before_one_is_read(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        command.main(['--weights', 'a net that is not there', '--out', str(tmp_path / 'small'), *flags])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--bits', '2', '--layer', 'C9'], "no layer 'C9'; did you mean"),
        (['--svd', 'rank=999', '--layer', 'F6'], 'expected 1 to 84'),
        (['--svd', 'rank=999'], 'makes no layer smaller'),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(net, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, *flags)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match='nothing is overwritten'):
        command.main(['--weights', 'nowhere', '--out', str(tmp_path)])


def test_a_net_of_another_variant_is_refused(net, tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match='is a lenet5, not a alexnet'):
        classifiers.load(tmp_path / 'small', 'alexnet')


def test_how_a_run_prepares_photographs_is_kept():
    spec = dict(crop=dict(name='resize_center_crop', size=64, resize=80), channels='BGR', antialias=True)
    preparation = AsEvaluated(transforms.make(spec), (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    record = json.loads(json.dumps(compressed.preparation_record(preparation)))
    assert compressed.preparation_from(record) == preparation
