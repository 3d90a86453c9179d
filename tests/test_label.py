"""Labels of a whole source by any net: resumable, refused where they do not fit, and learned from by a student."""

import jax
import numpy as np
import pytest

from cvresearch import train
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.data import sources
from cvresearch.data.given_labels import LabelFile
from cvresearch.engine import classifiers
from cvresearch.evaluation import label


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    from cvresearch.base import config as configs
    from tests.conftest import SMOKE

    overrides = {
        'mesh.data': '1',
        'model.name': 'softmax_regression',
        'data.train': '256',
        'data.labels': '64',
        'batch_size': '16',
        'epochs': '2.0',
    }
    path = tmp_path_factory.mktemp('runs') / 'teacher'
    assert train.run(configs.load(SMOKE, overrides), path) == 0
    return path


def student(smoke, **overrides):
    return smoke(
        **{
            'data__train': 256,
            'data__labels': 64,
            'unlabelled__name': 'rest',
            'unlabelled__ratio': 2,
            'batch_size': 16,
            'epochs': 2.0,
            **overrides,
        }
    )


def images_of(config, net):
    return sources.load(config.data, preparation=net.preprocessing, without_labels=config.unlabelled).unlabelled


def test_labelling_goes_on_where_it_was_stopped_and_a_student_learns_from_it(smoke, teacher, tmp_path, capsys):
    net = classifiers.load(f'run:{teacher}')
    images = images_of(student(smoke), net)
    whole = label.label(net, images, tmp_path / 'whole', part=50)

    class Stops:
        """Gives the images of the first two parts, and then no more."""

        base, taken = images.base, 0

        def __len__(self):
            return len(images)

        def take(self, index, keys=None):
            self.taken += 1
            if self.taken > 2:
                raise KeyboardInterrupt
            return images.take(index, keys)

    with pytest.raises(KeyboardInterrupt):
        label.label(net, Stops(), tmp_path / 'parts', part=50)
    assert not (tmp_path / 'parts' / label.FILE).exists()
    again = label.label(net, images, tmp_path / 'parts', part=50)
    np.testing.assert_array_equal(whole.probabilities, again.probabilities)
    assert sorted(path.name for path in (tmp_path / 'parts').iterdir()) == [label.RECORD, label.FILE]
    shown = images.take(np.arange(7))[0]
    expected = jax.nn.softmax(net.logits(shown))
    np.testing.assert_allclose(whole.probabilities[:7], expected, atol=1e-5)

    labels = tmp_path / 'parts' / label.FILE
    taught = student(smoke, method__name='soft_labels', unlabelled__labels=labels, unlabelled__per_class=20)
    assert train.run(taught, tmp_path / 'student') == 0
    card = read_card(tmp_path / 'student')
    assert card['dataset']['unlabelled']['examples'] == 200 and card['final']['test']['top1'] > 50


@pytest.mark.parametrize('more', [[], ['--config.unlabelled.labels=none.npz']])
def test_the_command_labels_what_the_configuration_leaves_without(teacher, tmp_path, capsys, more):
    from tests.conftest import SMOKE

    given = ['--config.data.train=256', '--config.data.labels=64', '--config.unlabelled.name=rest', *more]
    out = tmp_path / 'out'
    assert label.main(['--weights', f'run:{teacher}', '--config', SMOKE, *given, '--out', str(out)]) == 0
    assert '192 images, 10 classes' in capsys.readouterr().out
    assert LabelFile.load(out / label.FILE).probabilities.shape == (192, 10)


def test_labels_by_another_net_are_not_written_over(smoke, teacher, tmp_path):
    net = classifiers.load(f'run:{teacher}')
    images = images_of(student(smoke), net)
    label.label(net, images, tmp_path / 'out')
    before = (tmp_path / 'out' / label.FILE).read_bytes()
    with pytest.raises(UserError, match='name another --out'):
        label.label(net, images_of(student(smoke, data__labels=32), net), tmp_path / 'out')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/photo.png').write_text('mine')
    with pytest.raises(UserError, match='something else'):
        label.label(net, images, tmp_path / 'other')
    assert (tmp_path / 'out' / label.FILE).read_bytes() == before


def test_soft_labels_need_a_file_and_others_want_none(smoke, tmp_path):
    for overrides in (dict(method__name='soft_labels'), dict(method__name='fixmatch', unlabelled__labels='x.npz')):
        with pytest.raises(UserError, match='label'):
            train.run(student(smoke, **overrides), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_the_table_counts(tmp_path):
    said = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], np.float32)
    lines = label.table(LabelFile(said, ('cat', 'dog'), '', 'a net'))
    assert lines[0].startswith('3 images, 2 classes') and 'fewest 1 (cat), most 2 (dog)' in lines[1]
    assert '2 images; fewest 1 (cat), most 1 (cat)' in lines[4]
