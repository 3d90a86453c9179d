"""The programs of the data room, and what the stream promises of time and memory."""

import resource

import numpy as np
import pytest
from PIL import Image

from cvresearch.base.errors import UserError
from cvresearch.data import explain, imagenet, prepare, sources
from cvresearch.data.stream import Stream
from tests.data.photographs import ilsvrc, jpeg, tar

CROPS = dict(train=dict(crop=dict(name='random_resized_crop', size=64)), eval=dict(crop=dict(name='resize', size=64)))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def test_explain_shows_every_step_and_writes_the_sheet(tmp_path, capsys):
    sheet = tmp_path / 'sheet.png'
    knobs = ['--config.transform.train.lighting=0.1', '--config.transform.train.erasing=1.0']
    arguments = ['--config', 'configs/resnet18.py:smoke', '--examples', '2', '--epochs', '3', '--output', str(sheet)]
    assert explain.main([*arguments, *knobs]) == 0
    text = capsys.readouterr().out
    for part in ('source: ', 'decode, exactly and whole', 'flip', 'lighting', 'erase', 'batch 0: (8, 64, 64, 3)'):
        assert part in text
    with Image.open(sheet) as image:
        assert image.size == (4 * 164 + 4, 2 * 178 + 4)
        pixels = np.asarray(image)
    assert len({pixels[18:178, 4 + 164 * k : 164 * (k + 1)].tobytes() for k in range(4)}) == 4


def test_explain_says_that_arrays_are_left_to_the_device(tmp_path, capsys):
    arguments = ['--config', 'configs/lenet5_mnist5k.py', '--output', str(tmp_path / 'sheet.png')]
    assert explain.main(arguments) == 0
    assert 'on the host: nothing; on the device: shift=2' in capsys.readouterr().out


def test_prepare_passes_a_whole_copy_and_names_what_is_wrong(tmp_path, monkeypatch, capsys):
    ilsvrc(tmp_path / 'whole', classes=2)
    assert prepare.main([str(tmp_path / 'whole')]) == 1  # far from 1,281,167
    report = capsys.readouterr().out
    assert '1,281,167' in report and 'train: images ' in report and len(report.splitlines()) < 24
    images = {f'n01440764_{k}.JPEG': jpeg(k) for k in range(3)}
    images['n01440764_1.JPEG'] = images['n01440764_1.JPEG'][:300]
    images['n01443537_2.JPEG'] = images.pop('n01440764_2.JPEG')
    (tmp_path / 'whole' / imagenet.TRAIN_TAR).write_bytes(tar({'n01440764.tar': tar(images)})[:-10_500])
    rows = {row['check']: row for row in prepare.check(str(tmp_path / 'whole'))[0]}
    assert rows['training tar is whole']['verdict'] == 'WRONG'
    assert 'n01440764_1.JPEG' in rows['train: damaged images']['got']
    assert 'n01443537_2.JPEG' in rows['train: names agree with classes']['got']


def test_known_odd_files_are_those_that_tfds_mends():
    import importlib.util
    import re
    from pathlib import Path

    folder = Path(importlib.util.find_spec('tensorflow_datasets').origin).parent / 'datasets' / 'imagenet2012'
    text = (folder / 'imagenet2012_dataset_builder.py').read_text()
    for name in ('CMYK', 'PNG'):
        listed = re.search(rf'{name}_IMAGES = \[(.*?)\]', text, re.DOTALL)[1]
        assert sorted(re.findall(r'n\d+_\d+\.JPEG', listed)) == sorted(getattr(prepare, name))


def test_prepare_without_a_copy_says_where_it_looked(tmp_path):
    with pytest.raises(UserError, match="the data of 'imagenet' is not on this machine"):
        prepare.check(str(tmp_path / 'nothing'))


def test_memory_does_not_depend_on_the_size():
    spec = dict(name='fake_photographs', train=1_000_000, most_damaged=0.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    streams = [Stream(sources.load(spec, 0, CROPS).splits['train'], 0, 16) for _ in range(2)]
    for stream, step in zip(streams, (0, 400_000), strict=True):  # 400,000 steps of 16: the seventh epoch
        batch = stream.batch(step)
        assert batch['image'].shape == (16, 64, 64, 3)
    assert set(batch['epoch']) == {6}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_options_of_explain_are_checked():
    with pytest.raises(UserError, match="--epochs is 'many'"):
        explain.main(['--config', 'configs/lenet5_mnist5k.py', '--epochs', 'many'])
