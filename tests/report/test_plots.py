"""Pictures hold what they are given, in three formats, the same bytes each time; the report needs nothing else."""

import json
import re

import pytest

from cvresearch.base.errors import UserError
from cvresearch.report import figures, plots, sweep_page

RECORDS = ['docs/records/lenet5_mnist5k_seed0', 'docs/records/lenet5_mnist5k_seed1', 'docs/records/mlp_mnist5k_seed0']


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['balls', '--table', 'EfficientNet-T2'], ['efficientnet_b7', 'top-1 accuracy (%)', 'largest 66.3 M']),
        (['curves', '--runs', *RECORDS], ['lenet5', 'mlp', 'epoch']),
        (['schedule', '--config', 'configs/lenet5_mnist5k.py', '--config.mesh.data=1'], ['learning rate']),
        (['ensemble', '--curve', 'CURVE'], ['ensemble of M', 'snapshot M alone']),
        (['parallel', '--runs', *RECORDS], ['model.name', 'lenet5', '98.4']),
    ],
)
def test_pictures_are_drawn_and_repeat(argv, words, tmp_path):
    curve = tmp_path / 'curve.json'
    members = [{'top1': 94.9}, {'top1': 95.0}]  # the latest is the last
    curve.write_text(json.dumps({'curve': [{'m': 1, 'top1': 95.0}, {'m': 2, 'top1': 95.8}], 'members': members}))
    argv = [str(curve) if word == 'CURVE' else word for word in argv]
    for name in ('a.svg', 'b.svg', 'a.pdf', 'a.png'):
        assert figures.main([*argv, '--out', str(tmp_path / name)]) == 0
    text = (tmp_path / 'a.svg').read_text()
    for word in words:
        assert word.removeprefix('model.') in text, word
    assert (tmp_path / 'b.svg').read_text() == text
    assert (tmp_path / 'a.pdf').read_bytes().startswith(b'%PDF') and (tmp_path / 'a.png').read_bytes()[1:4] == b'PNG'


def test_neighbours_in_the_palette_differ_in_luminance_or_line():
    """Two curves of one line style are never neighbours: print in grey tells them apart."""
    styles = [(plots.LINES[i % len(plots.LINES)], plots.MARKERS[i % len(plots.MARKERS)]) for i in range(7)]
    assert len(set(styles)) == 7


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['ball', '--table', 'EfficientNet-T2', '--out', 'a.png'], 'did you mean balls'),
        (['balls', '--table', 'EfficientNet-T2', '--out', 'a.gif'], 'unknown kind of picture'),
        (['balls', '--table', 'EfficientNet-T2', '--x', 'mac', '--out', 'a.png'], 'did you mean macs'),
        (['curves', '--out', 'a.png'], 'expected --runs'),
        (['curves', '--runs', 'tests', '--out', 'a.png'], 'has no runs'),
        (['curves', '--runs', *RECORDS, '--split', 'minival', '--out', 'a.png'], 'nothing to draw'),
    ],
)
def test_bad_requests_are_one_line(argv, message, tmp_path):
    argv = [str(tmp_path / word) if word.startswith('a.') else word for word in argv]
    with pytest.raises(UserError, match=message):
        figures.main(argv)
    assert not [path for path in tmp_path.iterdir() if path.suffix != '.tmp']


def test_measured_axes_are_of_the_compiled_program():
    found = figures.measured('lenet5')
    # At least the weights: 61,706 in float32.
    assert found['memory_mib'] * 2**20 >= 61_706 * 4 and found['latency_ms'] > 0


def test_the_report_of_a_sweep_is_one_page_that_loads_nothing():
    page = sweep_page.page('docs/records')
    assert not re.search(r'(src|href)\s*=\s*"(?!#)|@import|url\((?!#)', page)
    assert page.count('<svg') == 2 and page.count('</svg>') == 2 and '98.27' in page and 'model.name' in page
