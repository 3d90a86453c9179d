"""The table of few labels: what it says of a record, by hand, and a small one made, stopped and gone on with."""

import copy
from types import SimpleNamespace

import pytest

from cvresearch.base.errors import UserError
from launch import few_labels, study


def record(**top1):
    return {
        'tuning': [],
        'cases': [
            {'data': 'digits', 'labels': 100, 'method': method, 'seed': seed, 'top1': value, 'images': 30_000}
            for method, values in top1.items()
            for seed, value in enumerate(values)
        ],
    }


def test_means_deviations_and_intervals_by_hand():
    """Student's t for two degrees of freedom is 4.3027 at 97.5 % (any table); its share is 4.3027 / sqrt(3) = 2.484."""
    values = {name: [80.0, 81.0, 82.0] for name in few_labels.METHODS} | {'uda': [91.0, 92.0, 93.0]}
    values['fixmatch'] = [88.0, 89.0, 93.0]
    made = record(**values)
    assert '| digits | UDA | 30 k | 92.00 ± 1.00 | - | - | - |' in few_labels.answers(made)
    (line,) = few_labels.winners(made).splitlines()[2:]
    # Above FixMatch by 3, 3 and 0: mean 2, deviation sqrt(3), half of the interval 2.484 * 1.732 = 4.30.
    assert line == '| digits | 100 | UDA | 92.00 ± 2.48 | FixMatch | +2.00 ± 4.30 | +11.00 ± 0.00 |'


def test_a_cell_that_is_not_whole_has_no_winner_and_says_how_many_seeds():
    values = {name: [80.0, 81.0, 82.0] for name in few_labels.METHODS} | {'uda': [91.0, 92.0]}
    assert few_labels.winners(record(**values)) == '' and '91.50 ± 0.71 (2)' in few_labels.answers(record(**values))


def test_the_cost_counts_every_pass_of_an_image():
    """600 updates of 50 labelled images and 100 others: the teacher sees 50 + 2 x 100, the student 50 + 100 twice."""
    card = dict(images_seen=600 * 50, hyperparameters={'method.name': 'meta_pseudo_labels', 'unlabelled.ratio': 2})
    assert few_labels.passes(card) == 600 * (50 + 200 + 2 * 150)


def test_a_small_record_is_made_whole_and_nothing_of_it_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(few_labels, 'CONFIG', 'tests/launch/tiny_few_labels.py')
    monkeypatch.setattr(few_labels, 'CELLS', [('digits', 100)])
    monkeypatch.setattr(few_labels, 'SEEDS', (0,))
    monkeypatch.setattr(few_labels, 'HELD_OUT', 16)
    monkeypatch.setattr(few_labels, 'GRID', [{'schedule.peak': 0.1, 'longer': 1}, {'schedule.peak': 0.2, 'longer': 3}])
    methods = ('supervised', 'tuned', 'noisy_student', 'meta_pseudo_labels')
    monkeypatch.setattr(few_labels, 'METHODS', {name: few_labels.METHODS[name] for name in methods})
    monkeypatch.setattr(few_labels, 'SET', {'meta_pseudo_labels_set': ''})
    made, kept, both = {}, [], SimpleNamespace(data=None, method=None)
    few_labels.fill(made, tmp_path / 'runs', both, lambda: kept.append(copy.deepcopy(made)))
    rows = {row['method']: row for row in made['cases']}
    assert list(rows) == [*methods, 'meta_pseudo_labels_set'] and len(kept) == 2 + 5 and kept[-1] == made
    assert rows['supervised']['top1'] == rows['noisy_student']['generations'][0]
    assert [len(rows[name]['generations']) for name in ('noisy_student', 'meta_pseudo_labels')] == [2, 2]
    # Four updates of 8; a student's have 16 others, and its teacher answered to all 96; its student's last are alone.
    assert rows['supervised']['images'] == 32 and rows['noisy_student']['images'] == 32 + 4 * 24 + 96
    assert rows['meta_pseudo_labels']['images'] == 4 * (8 + 32 + 2 * 24) + 32
    assert (
        rows['tuned']['setting']
        == rows['meta_pseudo_labels_set']['setting']
        == few_labels.GRID[few_labels.best_setting(made, 'digits', 100)]
    )
    monkeypatch.setattr(study, 'trained', lambda *_: pytest.fail('trained again'))
    few_labels.fill(made, tmp_path / 'runs', both, lambda: None)


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        ([], '--workdir is missing'),
        (['--table', 'nothing.json'], 'nothing is there'),
        (['--workdir', 'x', '--data', 'digit'], 'did you mean digits'),
    ],
)
def test_bad_input_is_one_line(argv, words):
    with pytest.raises(UserError, match=words):
        few_labels.main(argv)
