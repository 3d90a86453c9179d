"""One net by each of its names: a run, the folder and the file that it is exported as, and the hub's cache."""

import jax
import numpy as np
import pytest
from huggingface_hub import constants

from configs import common
from cvresearch import export
from cvresearch.base import config as configs
from cvresearch.engine import classifiers
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.models import registry
from tests.data.photographs import jpeg
from tests.interop.nets import seeded_variables
from tests.interop.test_hub import add

NET, SIDE = 'mnasnet_small', 32


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run on photographs of two classes, whose only checkpoint has seeded weights."""
    root, workdir = tmp_path_factory.mktemp('photos'), tmp_path_factory.mktemp('named') / 'run'
    for split in ('train', 'test'):
        for label in ('cat', 'dog'):
            (root / split / label).mkdir(parents=True)
            (root / split / label / '0.jpg').write_bytes(jpeg(0))
    config = common.imagenet(epochs=1, batch_size=2, image_size=SIDE)
    config.data = dict(name='image_folder', root=str(root))
    config.model = dict(name=NET, **registry.reference(f'timm/{NET}').arguments)
    config.optimizer, config.schedule = dict(name='sgd'), dict(name='constant', peak=0.01)
    config = common.finish(config, '')
    configs.override(config, 'mesh.data', '1')
    experiment = Experiment.from_config(config)
    state = experiment.initial_state(seeded_variables(experiment.model, (SIDE, SIDE, 3)))
    checkpoints = Checkpoints(workdir / 'checkpoints')
    checkpoints.save(state, 0, must=True)
    checkpoints.close()
    (workdir / 'config.json').write_text(configs.to_json(config))
    return workdir


def test_each_name_gives_the_same_logits_to_the_bit(workdir, tmp_path, monkeypatch):
    folder, cache = tmp_path / 'exported', tmp_path / 'cache'
    assert export.main([f'--weights=run:{workdir}', '--to=hub', f'--out={folder}']) == 0
    for name in ('config.json', 'model.safetensors'):
        add(cache, name, (folder / name).read_bytes(), f'somebody/{NET}')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    file = f'{folder}/model.safetensors#timm/{NET}'
    names = (f'run:{workdir}', workdir, f'file:{file}', file, folder, f'hub:somebody/{NET}')
    run, *others = map(classifiers.load, names)
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    apply = jax.jit(lambda module, variables, x: module.apply(variables, x, train=False), static_argnums=0)
    said = np.asarray(apply(run.module, run.variables, run.normalize(pixels)))
    assert np.ptp(said) > 0
    for net in others:
        assert net.digest == run.digest
        np.testing.assert_array_equal(apply(net.module, net.variables, run.normalize(pixels)), said)
    for net in (others[0], *others[-2:]):  # a file alone does not say what its classes are called
        assert net.class_names == ('cat', 'dog') and net.input_shape == run.input_shape
        np.testing.assert_array_equal(net.normalize(pixels), run.normalize(pixels))
