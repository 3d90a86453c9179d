"""Training from image files: digests and damage in the records, progressive resizing, resumed bit for bit."""

import json

import numpy as np
import pytest

from configs import common
from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base.errors import PREEMPTED, RunError, UserError
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.data.stream import Stream
from cvresearch.engine.experiment import Experiment
from tests.data.photographs import jpeg
from tests.seams import at_step

NET = {'model.name': 'preact_resnet110_cifar10', 'model.stage_sizes': '(1,)', 'mesh.data': '1'}
STAGES = {'resize.name': 'efficientnet_v2', 'resize.stages': '2', 'resize.size': '(8, 16)'}


def photographs(folder, **overrides):
    """Returns a training of 16 steps in two epochs, of four files at a time."""
    c = common.imagenet(epochs=2, batch_size=4, image_size=16)
    c.eval_batch_size = 8
    c.data = dict(name='image_folder', root=str(folder), most_damaged=0.1)
    c.transform.train.policy = dict(name='rand_augment')
    c.model, c.optimizer = dict(name=''), dict(name='sgd', momentum=0.9)
    c.schedule = dict(name='constant', peak=0.01)
    c = common.finish(c, '')
    for key, text in (NET | overrides).items():
        configs.override(c, key, text)
    return c


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """32 files to train and 8 to test, one of the first cut off."""
    root = tmp_path_factory.mktemp('images')
    for split, count in (('train', 16), ('test', 4)):
        for label in ('cat', 'dog'):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                (root / split / label / f'{number}.jpg').write_bytes(jpeg(number))
    (root / 'train' / 'cat' / '3.jpg').write_bytes(jpeg(3)[:400])
    return root


@pytest.fixture(scope='module')
def alone(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('alone') / 'run'
    assert train.run(photographs(folder, **STAGES), workdir) == 0
    return workdir


def rows(workdir):
    found = read_metrics(workdir / 'metrics.jsonl')
    return [{key: value for key, value in row.items() if key not in SPEED} for row in found]


def test_records_hold_a_digest_of_each_epoch_and_what_was_damaged(alone, folder):
    data = [row for row in rows(alone) if row['split'] == 'data']
    assert [(row['step'], row['n_seen'], row['damaged']) for row in data] == [(8, 32, 1), (16, 32, 1)]
    stream = Stream(Experiment.from_config(photographs(folder)).source.splits['train'], 0, 4)
    assert [row['sha256'] for row in data] == [stream.digest(0), stream.digest(1)]
    assert read_card(alone)['damaged'] == ['cat/3.jpg']
    assert [json.loads(line)['id'] for line in (alone / 'damaged.jsonl').read_text().splitlines()] == ['cat/3.jpg']


@pytest.mark.parametrize('step', [3, 8, 13])
def test_a_run_from_files_goes_on_bit_for_bit_in_either_stage(alone, folder, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        at_step(patch, step)
        assert train.run(photographs(folder, **STAGES), tmp_path / 'run') == PREEMPTED
    assert train.run(photographs(folder, **STAGES), tmp_path / 'run') == 0
    assert read_card(tmp_path / 'run')['params_sha256'] == read_card(alone)['params_sha256']
    assert rows(tmp_path / 'run') == rows(alone)


def test_sizes_grow_at_their_steps_and_the_next_is_compiled_ahead(folder, tmp_path, monkeypatch):
    sizes, compiled = [], []
    update, compile_one = train.Phases.update, train.Phases._compile

    def seen(stages, step, state, batch):
        sizes.append(batch['image'].shape[1])
        return update(stages, step, state, batch)

    def counted(stages, number):
        compiled.append((number, len(sizes)))
        return compile_one(stages, number)

    monkeypatch.setattr(train.Phases, 'update', seen)
    monkeypatch.setattr(train.Phases, '_compile', counted)
    assert train.run(photographs(folder, **STAGES), tmp_path / 'run') == 0
    assert sizes == [8] * 8 + [16] * 8
    assert [number for number, _ in compiled] == [0, 1] and compiled[1][1] < 8  # before its first step


def test_arrays_are_resized_on_the_device(smoke):
    arrays = NET | STAGES | {'data.image_size': 16, 'data.channels': 3}
    config = smoke(**{key.replace('.', '__'): value for key, value in arrays.items()})
    stages = train.Phases(Experiment.from_config(config))
    assert [part.augment.resize for part in stages._experiments] == [8, 16]
    stages.close()


def test_a_damaged_image_in_the_evaluation_ends_the_run_and_names_it(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / 'images')
    (tmp_path / 'images' / 'test' / 'dog' / '1.jpg').write_bytes(b'')
    with pytest.raises(RunError, match=r'the image dog/1\.jpg cannot be decoded \(the file is empty\)'):
        train.run(photographs(tmp_path / 'images'), tmp_path / 'run')
    assert read_card(tmp_path / 'run')['status'] == 'failed'


def test_a_strength_that_the_experiment_lacks_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r'magnitude'):
        config = photographs(folder, **STAGES, **{'resize.magnitude': '(5, 15)', 'transform.train.policy.name': 'none'})
        train.run(config, tmp_path / 'run')


def test_digests_are_equal_for_any_number_of_hosts_and_are_of_what_is_shown(folder):
    import hashlib

    examples = Experiment.from_config(photographs(folder)).source.splits['train']
    whole = Stream(examples, 7, 4)
    for hosts in (1, 2, 4):
        parts = [Stream(examples, 7, 4, host, hosts) for host in range(hosts)]
        assert {part.digest(1) for part in parts} == {whole.digest(1)}
        shown = [np.concatenate([part.batch(step)['image'] for part in parts]) for step in range(8, 16)]
        expected = [whole.batch(step)['image'] for step in range(8, 16)]
        assert [hashlib.sha256(x).hexdigest() for x in shown] == [hashlib.sha256(x).hexdigest() for x in expected]
    assert whole.digest(0) != whole.digest(1) != Stream(examples, 8, 4).digest(1)
