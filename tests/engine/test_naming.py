"""One net by three names: a run, the file that it is exported as, and the hub's cache hold the same net to the bit."""

import jax
import numpy as np
import pytest
from huggingface_hub import constants

from configs import common
from cvresearch import export, train
from cvresearch.base import config as configs
from cvresearch.engine import classifiers
from tests.data.photographs import jpeg
from tests.interop.test_hub import add

NET, SIDE = 'mobilenetv2_035', 32


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run of one step on four photographs."""
    root, workdir = tmp_path_factory.mktemp('photos'), tmp_path_factory.mktemp('named') / 'run'
    for split, count in (('train', 2), ('test', 1)):
        for label in ('cat', 'dog'):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                (root / split / label / f'{number}.jpg').write_bytes(jpeg(number))
    config = common.imagenet(epochs=1, batch_size=4, image_size=SIDE)
    config.data = dict(name='image_folder', root=str(root))
    config.model, config.optimizer = dict(name=NET), dict(name='sgd')
    config.schedule = dict(name='constant', peak=0.01)
    config = common.finish(config, '')
    configs.override(config, 'mesh.data', '1')
    assert train.run(config, workdir) == 0
    return workdir


def test_a_run_its_file_and_the_hub_say_the_same_to_the_bit(workdir, tmp_path, monkeypatch, capsys):
    folder, cache = tmp_path / 'exported', tmp_path / 'cache'
    assert export.main([f'--weights=run:{workdir}', '--to=hub', f'--out={folder}']) == 0
    for name in ('config.json', 'model.safetensors'):
        add(cache, name, (folder / name).read_bytes(), f'somebody/{NET}')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    file = f'{folder}/model.safetensors#timm/{NET}'
    run, *others = [
        classifiers.load(name) for name in (f'run:{workdir}', workdir, f'file:{file}', file, folder, f'hub:somebody/{NET}')
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    normalized = run.normalize(pixels)
    said = np.asarray(jax.jit(run.apply)(run.variables, normalized))
    assert np.ptp(said) > 0
    for net in others:
        assert net.digest == run.digest
        np.testing.assert_array_equal(jax.jit(net.apply)(net.variables, normalized), said)
    for net in (run, *others[-2:]):  # a file alone does not say what its classes are called
        assert net.class_names == ('cat', 'dog') and net.input_shape == run.input_shape
        np.testing.assert_array_equal(jax.jit(net.logits)(pixels), jax.jit(run.logits)(pixels))
