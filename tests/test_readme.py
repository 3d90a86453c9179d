"""Numbers in the README have run records behind them, and its commands are those that CI runs."""

import json
import re
import statistics
from pathlib import Path

README = Path('README.md').read_text(encoding='utf-8')
TEST_IMAGES = {'mnist5k': 1_000, 'mnist500': 1_000, 'fashion_mnist': 10_000}
RECORDS = sorted(path.parent for path in Path('docs/records').glob('**/run.json'))


def test_records_are_whole_and_made_by_their_configuration():
    for path in RECORDS:
        card, config = (json.loads((path / name).read_text()) for name in ('run.json', 'config.json'))
        rows = [json.loads(line) for line in (path / 'metrics.jsonl').read_text().splitlines()]
        last = [row for row in rows if row['split'] == 'test' and row.get('weights', 'raw') == 'raw'][-1]
        assert last == card['final']['test'] and last['n_seen'] == TEST_IMAGES[card['data']]
        assert card['uncommitted_changes'] is False and re.fullmatch('[0-9a-f]{40}', card['revision'])
        assert card['seed'] == config['seed'] and len(card['params_sha256']) == 64


def test_lenet5_reaches_97_percent_and_the_order_is_as_expected():
    def mean(model):
        paths = [path for path in RECORDS if path.name.startswith(f'{model}_mnist5k')]
        cards = [json.loads((path / 'run.json').read_text()) for path in paths]
        assert sorted(card['seed'] for card in cards) == [0, 1, 2]
        return statistics.mean(card['final']['test']['top1'] for card in cards)

    assert mean('lenet5') >= 97.0
    assert mean('softmax_regression') < mean('mlp') < mean('lenet5')


def test_best_net_of_the_digits_has_three_seeds_and_reaches_98_5_percent():
    accuracies = {}
    for path in Path('docs/records').glob('*_mnist5k_seed?'):
        card, config = (json.loads((path / name).read_text()) for name in ('run.json', 'config.json'))
        average = config['average']['name'] if 'average' in config else 'none'
        final = card['final']['test' if average == 'none' else f'test_{average}']
        accuracies.setdefault(path.name[:-1], []).append(final['top1'])
    best = max(accuracies.values(), key=statistics.mean)
    assert len(best) == 3 and statistics.mean(best) >= 98.5


def test_readme_has_exactly_two_setup_commands():
    blocks = re.findall(r'<!-- (train|test) command -->\n```bash\n(.*?)```', README, re.S)
    assert [name for name, _ in blocks] == ['train', 'test']
    assert 'configs/lenet5_mnist5k.py' in blocks[0][1] and 'pytest' in blocks[1][1]


def test_readme_has_at_most_150_lines_and_a_picture_in_its_first_screen():
    assert len(README.splitlines()) <= 150
    assert re.search(r'^!\[', README.partition('## ')[0], re.M)
