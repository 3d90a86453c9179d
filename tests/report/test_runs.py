"""`--runs FOLDER/*`: what is a run is taken, once, the rest is named; beside a paper stands only what fits."""

import json
import shutil
from pathlib import Path

import pytest

from cvresearch import evaluate
from cvresearch.base.errors import UserError
from cvresearch.report import figures, ours, published, results, runs, sweep_page, tables
from cvresearch.report.published import Figure, Line

RECORD = Path('docs/records/lenet5_mnist5k_seed0').absolute()
WRONG = {
    'sweep.json': 'is a file',
    'folder': 'is no run',
    'running': 'is running',
    'no_card': 'is not begun',
    'cut_card': 'cannot be read',
    'list_card': 'cannot be read',
    'no_result': 'cannot be read',
    'cut_config': 'cannot be read',
    'bytes_config': 'cannot be read',
    'gone': 'is not there',
    'sweep': 'give ',
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two finished runs, and beside them whatever may lie in a folder of runs."""
    for seed in (0, 1):
        shutil.copytree(f'docs/records/lenet5_mnist5k_seed{seed}', tmp_path / f'seed={seed},a')
    monkeypatch.chdir(tmp_path)
    Path('sweep.json').write_text('{"runs": []}', encoding='utf-8')
    for name in ('running', 'no_card', 'cut_card', 'list_card', 'no_result', 'cut_config', 'bytes_config', 'sweep/a'):
        shutil.copytree(RECORD, name)
    Path('folder').mkdir()
    Path('gone').symlink_to('nowhere')
    card = json.loads(Path('running/run.json').read_text(encoding='utf-8'))
    Path('running/run.json').write_text(json.dumps(card | {'status': 'running'}), encoding='utf-8')
    Path('no_card/run.json').unlink()
    Path('cut_card/run.json').write_text(json.dumps(card)[:50], encoding='utf-8')
    Path('list_card/run.json').write_text('[]', encoding='utf-8')
    Path('no_result/run.json').write_text('{"status": "finished", "final": {}}', encoding='utf-8')
    Path('cut_config/config.json').write_text('{"seed": ', encoding='utf-8')
    Path('bytes_config/config.json').write_bytes(b'\xff\xfe{')
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('flag', [[], ['--runs']])
def test_tables_take_what_is_a_finished_run_and_name_the_rest(flag, folder, capsys):
    assert tables.main([*flag, *names(folder)]) == 0
    out, err = capsys.readouterr()
    assert '98.4, 98.1' in out and len(out.splitlines()) == 3
    for name, why in WRONG.items():
        assert sum(line.startswith(f'left out: {name} ') and why in line for line in err.splitlines()) == 1, name
    assert len(err.splitlines()) == len(WRONG)


def test_where_no_run_is_left_that_is_an_error_with_all_reasons(folder):
    with pytest.raises(UserError, match='none of the 2 paths') as error:
        tables.main(['--runs', 'sweep.json', 'running'])
    assert error.value.code == 2 and len(error.value.details) == 2


def test_rows_of_no_image_have_no_means_whatever_an_older_version_wrote(folder):
    row = {'step': 9000, 'epoch': 40.0, 'split': 'train', 'loss': 0.0, 'top1': 0.0, 'top5': 0.0, 'n_seen': 0}
    with open('seed=0,a/metrics.jsonl', 'a', encoding='utf-8') as file:
        file.write(json.dumps(row) + '\n')
    run = runs.read(Path('seed=0,a'))
    assert run.diverged and 0 < run.last('train', 'loss') < 1


def test_a_run_given_twice_by_any_path_counts_once_and_that_is_said(folder, capsys):
    Path('link').symlink_to('seed=0,a')
    again = ['link', str(folder / 'seed=0,a'), 'seed=1,a/../seed=0,a']
    tables.main(['seed=0,a', *again])
    out, err = capsys.readouterr()
    assert out.splitlines()[2].split()[-3:] == ['98.40', '-', '1,000'] and err.count('is given twice') == 3


def test_a_copy_of_a_run_is_refused_in_both_tables(folder):
    shutil.copytree('seed=0,a', 'copy')
    with pytest.raises(UserError, match='the same seed'):
        tables.main(['seed=0,a', 'copy'])


def test_pictures_take_unfinished_runs_too_but_balls_do_not(folder, capsys):
    assert figures.main(['curves', '--runs', *names(folder), '--out', 'a.svg']) == 0
    err = capsys.readouterr().err
    assert 'running' not in err and 'no_card' not in err
    for name in ('sweep.json', 'folder', 'cut_card', 'cut_config', 'bytes_config', 'gone'):
        assert err.count(f'left out: {name} ') == 1
    assert figures.main(['balls', '--runs', 'running', '--runs', 'seed=0,a', '--out', 'b.svg']) == 0
    assert 'left out: running ' in capsys.readouterr().err


def test_the_report_of_a_sweep_leaves_out_damaged_runs(folder, capsys):
    assert 'seed=1,a' in sweep_page.page(folder) and 'cut_card' in capsys.readouterr().err


def test_an_ensemble_takes_each_finished_run_once(folder, capsys):
    shutil.rmtree('no_result')  # an ensemble evaluates its members itself
    assert evaluate._others(Path('seed=0,a'), names(folder)) == (Path('seed=1,a'),)
    assert capsys.readouterr().err.count('left out: ') == len(WRONG)
    assert evaluate._others(Path('seed=0,a'), ['sweep.json']) == ()


def test_runs_of_before_and_after_a_key_are_seeds_of_one_row(folder):
    """`mesh.rules` is absent in old runs, and [] in new ones."""
    for seed, mesh in ((0, {'data': 1}), (1, {'data': 1, 'shard': 1, 'least': 16384, 'rules': []})):
        path = Path(f'seed={seed},a/config.json')
        path.write_text(json.dumps(json.loads(path.read_text(encoding='utf-8')) | {'mesh': mesh}), encoding='utf-8')
    found = results.take(['seed=0,a', 'seed=1,a'])
    assert results.measured('a', found).seeds == 2


def line(**changes):
    figures = {'top1': Figure('99.0', '% accuracy', 'recalled')}
    return Line(**dict(label='LeNet-5', protocol='test', paper=figures, model='lenet5', data='mnist5k') | changes)


@pytest.mark.parametrize(
    ('change', 'series'),
    [
        ({}, 'ours'),
        ({'data': 'mnist'}, 'ours, other data: mnist5k'),
        ({'views': '10-crop'}, 'ours, other protocol'),
        ({'where': {'optimizer.name': 'none'}}, 'ours, other protocol'),
        ({'model': 'mlp'}, 'ours, other net'),
    ],
)
def test_a_run_is_beside_a_published_figure_only_where_a_table_would_set_it(change, series):
    (ball,) = ours.balls([line(**change)], results.take([RECORD, RECORD.parent / 'lenet5_mnist5k_seed1']))
    assert ball['series'] == series and ball['top1'] == pytest.approx((98.4 + 98.1) / 2)


def test_a_published_figure_is_not_averaged_with_runs_or_with_other_data():
    options = figures.cli.parse(
        ['balls', '--table', 'DenseNet-T2'],
        '',
        (),
        positional='',
        places=('runs',),
        repeated=('runs',),
        table='',
        runs='',
        x='',
        size='',
    )
    found = {ball['name']: ball for ball in figures.points(options)}
    lines = [one for one in published.table('DenseNet-T2') if one.model and one.views == 'single']
    assert len(found) == len(lines) == len({one.label for one in lines})
    # Table 2 of the paper: DenseNet (L = 40, k = 12) has 5.24 % on C10+ and 24.42 % on C100+.
    assert found['DenseNet L=40 k=12, C10+']['top1'] == pytest.approx(100 - 5.24)
    assert found['DenseNet L=40 k=12, C100+']['top1'] == pytest.approx(100 - 24.42)


def test_the_cost_of_a_ball_is_of_the_net_that_was_trained():
    """ResNet-8 for 28 x 28 grey digits, by hand: 3 x 3 convolutions of 16, 32 and 64 maps, no weights in shortcuts."""
    (ball,) = ours.balls([], results.take([RECORD.parent / 'resnet8_mnist5k_seed0']))
    stages = [28**2 * 9 * (16 + 2 * 16**2), 14**2 * 9 * (16 * 32 + 32**2), 7**2 * 9 * (32 * 64 + 64**2)]
    assert ball['params'] == 75_002 and ball['macs'] == sum(stages) + 640
