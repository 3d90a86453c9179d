"""A run knows its data: what has changed is refused with names, and labels go by the names of classes.

The images are of one colour a class, so that a net which has learned them is right for all of them.
"""

import csv
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import common
from cvresearch import evaluate, train
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.engine import teacher
from cvresearch.engine.experiment import Experiment
from cvresearch.evaluation import robustness, score
from cvresearch.evaluation.predictions import Predictions
from cvresearch.report import ensembles

COLOURS = {'cat': (220, 40, 40), 'dog': (40, 220, 40), 'horse': (40, 40, 220)}
NFC, NFD = 'caf\xe9', 'cafe\u0301'


def paint(folder, colours=COLOURS, count=10, first=0):
    """Writes images of one colour and a little noise into a folder for each class."""
    rng = np.random.default_rng(first)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            pixels = np.clip(np.array(colour) + rng.integers(-20, 20, (12, 14, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f'img{number:02d}.png')


def images(root, colours=COLOURS):
    paint(root / 'train', colours)
    paint(root / 'val', colours, 4, first=50)
    return root


def training(root, **overrides):
    """Returns a linear net on 8 pixels that learns the colours in a second."""
    c = common.imagenet(epochs=6, batch_size=5, image_size=8)
    for part in ('train', 'eval'):
        c.transform[part].crop = dict(name='resize_center_crop', size=8, resize=8)
    c.eval_batch_size = 6
    c.data = dict(name='image_folder', root=str(root))
    c.model, c.optimizer = dict(name='softmax_regression'), dict(name='sgd', momentum=0.9)
    c.schedule = dict(name='constant', peak=0.01)
    c = common.finish(c, '')
    for key, text in ({'mesh.data': '1'} | overrides).items():
        configs.override(c, key.replace('__', '.'), text)
    return c


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished run and the folder of its images, neither of which a test changes."""
    base = tmp_path_factory.mktemp('base')
    assert train.run(training(images(base / 'images')), base / 'run') == 0
    return base


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run, whose images may be changed: they lie in `images` beside it."""
    return moved(shutil.copytree(finished, tmp_path / 'here', symlinks=True))


def moved(base):
    file = base / 'run' / 'config.json'
    config = configs.from_json(file.read_text())
    config.data.root = str(base / 'images')
    file.write_text(configs.to_json(config))
    return base


def unfinished(base):
    """Returns the workdir as if its process had been killed after the last but one checkpoint."""
    file = base / 'run' / 'run.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | {'status': 'running'}))
    return base / 'run'


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file() and path.name != 'lock'}


def test_a_run_records_its_data_at_its_start(finished):
    dataset = read_card(finished / 'run')['dataset']
    assert dataset['class_names'] == ['cat', 'dog', 'horse']
    splits = {name: (split['examples'], split['per_class']) for name, split in dataset['splits'].items()}
    assert splits == {'train': (30, [10, 10, 10]), 'test': (12, [4, 4, 4])}
    assert '"class_names": ["cat", "dog", "horse"]' in (finished / 'run/run.json').read_text()  # a line, not a thousand
    assert evaluate.run(finished / 'run')['top1'] == 100


def rename(root, was, is_now):
    for split in ('train', 'val'):
        os.rename(root / split / was, root / split / is_now)


def grow(root):
    paint(root / 'train', {'dog': COLOURS['dog']}, 6, first=20)


CHANGES = {
    'renamed': (lambda root: rename(root, 'cat', 'zcat'), r"without class 'cat', with the new class 'zcat'"),
    'case': (lambda root: rename(root, 'cat', 'Cat'), r"with the new class 'Cat' \(did you mean 'cat'\?\)"),
    'grown': (grow, r"train had 30 images, now 36; 'dog' 10 -> 16; sha256 \w{12}, now \w{12}"),
    'removed': (lambda root: (root / 'val/dog/img50.png').unlink(), r"test had 12 images, now 11; 'dog' 4 -> 3"),
    'other image': (
        lambda root: os.rename(root / 'train/dog/img01.png', root / 'train/dog/new.png'),
        'train has as many images .* other ones',
    ),
    'new class': (
        lambda root: [paint(root / s, {'zebra': (9, 9, 9)}) for s in ('train', 'val')],
        "now 4 .*with the new class 'zebra'",
    ),
    'lost class': (lambda root: [shutil.rmtree(root / s / 'dog') for s in ('train', 'val')], "without class 'dog'"),
}


@pytest.mark.parametrize('change', CHANGES)
def test_going_on_with_other_data_is_refused_and_nothing_is_written(run, change):
    make, message = CHANGES[change]
    workdir = unfinished(run)
    make(run / 'images')
    before = snapshot(workdir)
    with pytest.raises(UserError, match=message) as caught:
        train.run(training(run / 'images'), workdir)
    assert '\n' not in str(caught.value) and snapshot(workdir) == before


def test_going_on_with_the_same_data_elsewhere_and_in_another_form_of_unicode(tmp_path):
    colours = {NFC: COLOURS['cat'], 'dog': COLOURS['dog']}
    assert train.run(training(images(tmp_path / 'images', colours)), tmp_path / 'run') == 0
    before = read_card(tmp_path / 'run')['dataset']
    os.rename(tmp_path / 'images', tmp_path / 'moved')
    os.renames(tmp_path / 'moved' / 'val' / NFC, tmp_path / 'moved' / 'val' / NFD)
    os.symlink(tmp_path / 'moved', tmp_path / 'images')
    assert evaluate.run(moved(tmp_path) / 'run', split='train')['top1'] == 100
    assert evaluate.run(tmp_path / 'run', data='image_folder', root=str(tmp_path / 'moved/val'))['top1'] == 100
    assert read_card(tmp_path / 'run')['dataset'] == before


def test_a_run_without_a_record_goes_on_and_records(run, capsys):
    file = unfinished(run) / 'run.json'
    card = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in card.items() if key != 'dataset'}))
    assert evaluate.run(run / 'run')['top1'] == 100
    assert capsys.readouterr().err.count('has no record of its data') == 1
    assert train.run(training(run / 'images'), run / 'run') == 0
    assert capsys.readouterr().err.count('has no record of its data') == 1
    assert read_card(run / 'run')['dataset'] == card['dataset']


def test_the_data_of_a_finished_run_may_change_but_it_is_said(run, capsys):
    grow(run / 'images')
    assert train.run(training(run / 'images'), run / 'run') == 0
    assert 'warning: the data of' in (said := capsys.readouterr().err) and "'dog' 10 -> 16" in said


def test_a_renamed_class_is_refused_with_names(run):
    rename(run / 'images', 'cat', 'zcat')
    for evaluation in (evaluate.run, robustness.measure):
        with pytest.raises(UserError, match=r"class 'zcat' \(did you mean 'cat'\?\) that the net does not know"):
            evaluation(run / 'run')


def test_a_new_class_is_refused_by_name_and_not_as_another_version(run):
    paint(run / 'images/train', {'zebra': (9, 9, 9)})
    with pytest.raises(UserError, match="class 'zebra' that the net does not know"):
        evaluate.run(run / 'run')


def test_changed_test_images_are_evaluated_and_it_is_said(run, capsys):
    (run / 'images/val/dog/img50.png').unlink()
    record = evaluate.run(run / 'run')
    assert (record['top1'], record['n_seen']) == (100, 11)
    assert 'warning: the data of' in (said := capsys.readouterr().err) and 'test had 12 images, now 11' in said
    assert evaluate.run(run / 'run', split='train')['n_seen'] == 30 and not capsys.readouterr().err


def test_a_folder_with_some_of_the_classes_is_evaluated_by_name(finished, tmp_path):
    """Answered right, all of them: 0.0 % where labels are ranks in the folder."""
    paint(tmp_path / 'two', {name: COLOURS[name] for name in ('dog', 'horse')})
    record = evaluate.run(finished / 'run', data='image_folder', root=str(tmp_path / 'two'), keep=True)
    assert (record['top1'], record['n_seen'], record['split']) == (100, 20, 'test')
    (step,) = {record['step']}
    kept = Predictions.load(finished / f'run/predictions/image_folder_test_step{step}.npz')
    assert kept.class_names == ('cat', 'dog', 'horse') and set(kept.labels.tolist()) == {1, 2}


def test_the_command_takes_another_folder(finished, tmp_path, capsys):
    paint(tmp_path / 'two', {name: COLOURS[name] for name in ('dog', 'horse')})
    flags = f'--workdir={finished}/run', '--data=image_folder', f'--root={tmp_path}/two', '--discard'
    assert evaluate.main([*flags]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record['top1'], record['n_seen']) == (100, 20)


def test_numbers_of_classes_are_names_too(finished, tmp_path):
    paint(tmp_path / 'numbers', {'2': COLOURS['horse'], '0': COLOURS['cat']})
    assert evaluate.run(finished / 'run', data='image_folder', root=str(tmp_path / 'numbers'))['top1'] == 100


def test_another_folder_is_evaluated_where_the_runs_own_is_gone(run, tmp_path):
    paint(tmp_path / 'new')
    shutil.rmtree(run / 'images')
    assert evaluate.run(run / 'run', data='image_folder', root=str(tmp_path / 'new'))['n_seen'] == 30
    with pytest.raises(UserError, match='image_folder'):
        evaluate.run(run / 'run')


def test_the_folder_of_training_keeps_its_split_where_it_is_named(tmp_path):
    """All images of another bare folder are test images; of its own they would be training images."""
    paint(tmp_path / 'images')
    assert train.run(training(tmp_path / 'images'), tmp_path / 'run') == 0
    test = read_card(tmp_path / 'run')['dataset']['splits']['test']['examples']
    assert 0 < test < 30
    named = dict(data='image_folder', root=str(tmp_path / 'run' / '..' / 'images'))
    assert evaluate.run(tmp_path / 'run', **named)['n_seen'] == test


def test_images_held_out_anew_may_have_been_trained_on(tmp_path):
    images(tmp_path / 'images')
    assert train.run(training(tmp_path / 'images', minival='6'), tmp_path / 'run') == 0
    assert evaluate.run(tmp_path / 'run', 'minival')['n_seen'] == 6
    grow(tmp_path / 'images')
    with pytest.raises(UserError, match='may have been trained on'):
        evaluate.run(tmp_path / 'run', 'minival')
    assert evaluate.run(tmp_path / 'run', 'minival', force=True)['n_seen'] == 6


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """Two runs of the same classes in opposite order: a name sorts before or after by its form of Unicode."""
    base = tmp_path_factory.mktemp('pair')
    for name, form in (('one', NFC), ('other', NFD)):
        colours = {form: COLOURS['cat'], 'cafz': COLOURS['dog'], 'horse': COLOURS['horse']}
        assert train.run(training(images(base / name, colours)), base / f'run_{name}') == 0
    names = [read_card(base / run)['dataset']['class_names'] for run in ('run_one', 'run_other')]
    assert [list(each).index('cafz') for each in names] == [0, 1]
    paint(base / 'test', {NFC: COLOURS['cat'], 'cafz': COLOURS['dog'], 'horse': COLOURS['horse']}, 6, first=70)
    return base


def test_members_of_an_ensemble_answer_in_one_order_of_classes(pair):
    how = evaluate.How(data='image_folder', root=str(pair / 'test'))
    record = evaluate.run_ensemble(pair / 'run_one', 'runs', (pair / 'run_other',), (pair / 'run_other',), how)
    assert record['top1'] == 100 and record['disagreement'] == [[0, 0], [0, 0]]
    assert record['correlation'][0][1] > 0.9 and [row['top1'] for row in record['members']] == [100, 100]
    assert record['controls'][0]['mcnemar']['only_first'] == 0
    with pytest.raises(UserError, match=r'the same order; .* in another order'):
        evaluate.run_ensemble(pair / 'run_one', 'weights', (pair / 'run_other',), how=how)


def test_members_of_other_classes_or_images_are_refused(pair, finished, tmp_path):
    with pytest.raises(UserError, match=r'on the same images and classes .* of other images'):
        evaluate.run_ensemble(pair / 'run_one', 'runs', (finished / 'run',))
    paint(tmp_path / 'horses', {'horse': COLOURS['horse']})  # which both know
    how = evaluate.How(data='image_folder', root=str(tmp_path / 'horses'))
    with pytest.raises(UserError, match=r"expected the same classes: .*with the new classes 'cat'"):
        evaluate.run_ensemble(pair / 'run_one', 'runs', (finished / 'run',), how=how)


def test_a_teacher_answers_in_the_order_of_the_pupils_classes(pair):
    student = Experiment.from_config(training(pair / 'one'))
    shown, labels = student.source.splits['test'].take(np.arange(12))
    pixels = (shown / 255.0 - np.array(student.mean)) / np.array(student.std)
    logits = teacher.load(str(pair / 'run_other'), student)(pixels.astype(np.float32))
    assert (np.argmax(logits, -1) == labels).all()


def test_a_teacher_of_other_classes_is_refused_with_names(pair, finished):
    student = Experiment.from_config(training(pair / 'one'))
    with pytest.raises(UserError, match=r"cannot teach this net: .*with the new classes 'cat'.*, 'dog'"):
        teacher.load(str(finished / 'run'), student)


def test_kept_predictions_have_names_and_are_paired_by_them(pair, tmp_path, capsys):
    kept = []
    for name in ('run_one', 'run_other'):
        how = dict(data='image_folder', root=str(pair / 'test'), keep=True)
        step = evaluate.run(pair / name, **how)['step']
        kept.append(pair / name / f'predictions/image_folder_test_step{step}.npz')
    flags = [f'--{name}={tmp_path}/{name}.csv' for name in ('confusion', 'classes')]
    assert score.main([*map(str, kept), *flags]) == 0
    assert json.loads(capsys.readouterr().out)['mcnemar']['p'] == 1
    rows = list(csv.DictReader((tmp_path / 'confusion.csv').open()))
    assert [row['true'] for row in rows] == ['cafz', NFC, 'horse'] and {rows[1][NFC], rows[0]['cafz']} == {'6'}
    rows = list(csv.DictReader((tmp_path / 'classes.csv').open()))
    assert [(row['class'], row['number'], row['images']) for row in rows][1] == (NFC, '1', '6')


def test_predictions_of_the_training_itself_have_names(finished):
    kept = Predictions.load(finished / 'run/predictions/test.npz')
    assert kept.class_names == ('cat', 'dog', 'horse')
    assert kept.record['images_sha256'] == evaluate.run(finished / 'run')['images_sha256']


def test_predictions_of_other_images_with_the_same_labels_are_not_paired(finished, tmp_path):
    kept = Predictions.load(finished / 'run/predictions/test.npz')
    paint(tmp_path / 'others', count=4, first=80)
    record = evaluate.run(finished / 'run', data='image_folder', root=str(tmp_path / 'others'))
    other = dataclasses.replace(kept, record=record)
    with pytest.raises(UserError, match='of other images'):
        score.score(kept, other)
    older = dataclasses.replace(kept, record={}, class_names=())  # knows neither
    assert score.score(kept, older)['mcnemar']['p'] == 1


def test_a_picture_takes_any_name(tmp_path):
    names = ('$x_1$', '100 % of a name that is far too long for a picture', 'true')
    found = Predictions(np.eye(3, dtype=np.float32), np.arange(3), {}, names)
    score.write_confusion(found, tmp_path / 'confusion.csv')
    rows = list(csv.DictReader((tmp_path / 'confusion.csv').open()))
    assert [row['true'] for row in rows] == [*names[:2], 'true'] and rows[2]['true (2)'] == '1'


def test_seeds_that_saw_other_images_are_not_one_table(tmp_path):
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        record = dict(controls=[], curve=[], members=[{'seed': seed}], images_sha256=str(seed))
        (tmp_path / str(seed) / 'ensemble.json').write_text(json.dumps(record))
        (tmp_path / str(seed) / 'average.json').write_text('{}')
    with pytest.raises(UserError, match='different images'):
        ensembles.read([tmp_path / '0', tmp_path / '1'])
