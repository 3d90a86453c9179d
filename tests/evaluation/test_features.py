"""Features of data sets in files, and classifiers on them, beside scikit-learn's own call."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.engine import classifiers
from cvresearch.evaluation import feature_files, probes

DATA = {'name': 'fake', 'image_size': 28, 'channels': 1, 'train': 600, 'test': 50}


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('source') / 'run'
    assert train.run(configs.load('configs/lenet5_fake.py:smoke', {'mesh.data': '1'}), workdir) == 0
    return classifiers.load(f'run:{workdir}')


@pytest.fixture(scope='module')
def found(net, tmp_path_factory):
    return feature_files.extract(net, DATA, ['F6', 'penultimate', 'C3:mean'], tmp_path_factory.mktemp('f') / 'f.npz')


def test_features_are_the_nets_own_for_every_image_with_its_label_and_id(net, found):
    source = feature_files.sources.load(DATA, preparation=net.preprocessing)
    images, labels = source.splits['test'].take(np.arange(50))
    own = net.features(jnp.asarray(images), ['F6', 'C3'])
    test = found.splits == 'test'
    assert found.values['F6'].shape[0] == 650 and test.sum() == 50 and (found.labels[test] == labels).all()
    assert np.allclose(found.values['F6'][test], own['F6'], atol=1e-5)
    assert np.allclose(found.values['C3:mean'][test], np.asarray(own['C3']).mean((1, 2)), atol=1e-5)
    head = net.variables['params']['head']
    logits = found.values['penultimate'][test] @ head['kernel'] + head['bias']
    assert np.allclose(logits, net.logits(jnp.asarray(images)), atol=1e-4)


@pytest.mark.parametrize('ending', ['npz', 'h5'])
def test_file_is_read_back_whole(found, tmp_path, ending):
    feature_files.save(found, tmp_path / f'f.{ending}')
    again = feature_files.load(tmp_path / f'f.{ending}')
    assert again.record == found.record and again.class_names == found.class_names
    assert all(np.array_equal(again.values[name], found.values[name]) for name in found.values)
    assert all(np.array_equal(getattr(again, key), getattr(found, key)) for key in ('labels', 'ids', 'splits'))


def test_killed_extraction_goes_on_and_gives_the_same(net, found, tmp_path, monkeypatch):
    wanted, out, real, calls = list(found.values), tmp_path / 'f.npz', feature_files._of_chunk, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(feature_files, '_of_chunk', killed)
        feature_files.extract(net, DATA, wanted, out)
    assert not out.exists()
    monkeypatch.setattr(feature_files, '_of_chunk', lambda *arguments: calls.append(arguments) or real(*arguments))
    again = feature_files.extract(net, DATA, wanted, out)
    assert len(calls) == 4  # 600 images are two chunks, 50 one: the first was not made again
    assert all(np.array_equal(again.values[name], found.values[name]) for name in wanted)
    assert [path.name for path in tmp_path.iterdir()] == ['f.npz']


def test_logistic_probe_is_scikit_learns_own_on_the_same_features(found):
    ours = probes.probe(found, 'F6', strengths=[0.1])
    train_, test = found.splits == 'train', found.splits == 'test'
    x = found.values['F6'].astype(np.float64)
    own = LogisticRegression(C=0.1, max_iter=2000).fit(x[train_], found.labels[train_])
    assert ours['top1'] == 100 * own.score(x[test], found.labels[test]) and ours['n_seen'] == 50
    assert ours['C'] == 0.1 and 'held_out_top1' not in ours


def test_strength_is_chosen_without_the_test_images(found):
    changed = found._replace(labels=np.where(found.splits == 'test', (found.labels + 1) % 10, found.labels))
    one, other = (probes.probe(each, 'F6', method='knn') for each in (found, changed))
    assert one['neighbours'] == other['neighbours'] and one['held_out_top1'] == other['held_out_top1']
    assert one['top1'] > other['top1']
    assert probes.probe(found, 'F6', method='svm', unit_length=True, strengths=[1.0])['top1'] > 50


def test_bad_input_is_refused_in_one_line(net, found, tmp_path):
    with pytest.raises(UserError, match=r"unknown layer of lenet5 'F7'.*F6"):
        feature_files.extract(net, DATA, ['F7'], tmp_path / 'f.npz')
    with pytest.raises(UserError, match=r'ends with .npz or .h5'):
        feature_files.extract(net, DATA, ['F6'], tmp_path / 'f.csv')
    (tmp_path / 'there.npz').write_bytes(b'mine')
    with pytest.raises(UserError, match='which exists'):
        feature_files.extract(net, DATA, ['F6'], tmp_path / 'there.npz')
    with pytest.raises(UserError, match='is no file of features'):
        feature_files.load(tmp_path / 'there.npz')
    with pytest.raises(UserError, match='of 1 classes'):
        probes.probe(found._replace(labels=np.zeros_like(found.labels)), 'F6')
    with pytest.raises(UserError, match="unknown features 'fc7'"):
        probes.probe(found, 'fc7')
    assert (tmp_path / 'there.npz').read_bytes() == b'mine' and len(list(tmp_path.iterdir())) == 1


def test_programs_write_a_file_and_a_line_of_json(net, tmp_path, capsys):
    weights, out = f'run:{net.provenance.name.removeprefix("run:")}', tmp_path / 'f.npz'
    command = ['--weights', weights, '--data', 'digits', '--at', 'F6', '--out', str(out)]
    assert feature_files.main(command) == 0 and json.loads(capsys.readouterr().out)['shapes'] == {'F6': [1797, 84]}
    assert probes.main([str(out), '--method', 'knn', '--out', str(tmp_path / 'p.json')]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record['n_seen'] == 355 and record == json.loads((tmp_path / 'p.json').read_text())
