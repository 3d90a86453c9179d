"""Deep Compression's LeNets: trained, pruned, shared, coded, and the table: python -m launch.deep_compression.

    python -m launch.deep_compression --workdir runs/deep_compression [--out docs/records/deep_compression.json]
    python -m launch.deep_compression --table docs/records/deep_compression.json

Two nets, two data sets and three seeds, one run after another (configs/deep_compression.py). Each stage begins with the
weights of the one before; the coded file is evaluated as any net. The same command goes on where it was interrupted.
"""

import itertools
import json
import statistics
from pathlib import Path
from types import SimpleNamespace

from cvresearch.base import cli, tables
from cvresearch.base import config as configs
from cvresearch.base.records import read_card
from cvresearch.compress import __main__ as program
from cvresearch.evaluation import measure
from cvresearch.interop import compressed
from launch import study

CONFIG = 'configs/deep_compression.py'
OUT = Path('docs/records/deep_compression.json')
SEEDS = (0, 1, 2)
NETS = {'LeNet-300-100': '', 'LeNet-5 (Caffe)': 'lenet5'}
DATA = {'digits': '', 'Fashion-MNIST': 'fashion'}
STAGES = ('', 'pruned', 'shared')
# Deep Compression (arXiv:1510.00149), table 1: with 60,000 MNIST digits.
PUBLISHED = {'LeNet-300-100': (40, 27), 'LeNet-5 (Caffe)': (39, 44)}
COLUMNS = (
    'net',
    'images',
    'n_seen',
    'top-1',
    'pruned',
    'shared',
    'coded',
    'kept',
    'KB',
    'ratio',
    'published ratio',
    'published KB',
    'seeds',
)


def case(net: str, data: str, seed: int, folder: Path) -> dict:
    """Trains and codes a net; returns the row of the record.

    Args:
      net: of `NETS`.
      data: of `DATA`.
      seed: of all stages.
      folder: of its runs.
    """
    row, before = dict(net=net, data=data, seed=seed), ''
    for stage in STAGES:
        workdir = folder / (stage or 'dense')
        spec = f'{CONFIG}:{",".join(filter(None, (NETS[net], DATA[data], stage)))}'
        start = {'init.weights': f'run:{before}'} if before else {}
        study.trained(configs.load(spec, {'seed': str(seed), **start}), workdir)
        row[stage or 'dense'] = measured(f'run:{workdir}')
        before = workdir
    row |= {key: read_card(folder / 'pruned')['compression'][key] for key in ('weights', 'nonzero', 'layers')}
    out = folder / 'coded'
    if not out.exists():
        # The weights are shared already: 8 bits are room for all of a layer's values.
        program.main(['--weights', f'run:{before}', '--bits', '8', '--code', '--out', str(out)])
    record = json.loads((out / compressed.RECORD).read_text(encoding='utf-8'))
    row |= {'bytes': record['total_bytes'], 'original_bytes': record['original']['bytes']}
    row['coded'] = measured(str(out), configs.load(spec).data.name)
    for layer in record['layers']:
        row['layers'][layer['layer']] |= {'bytes': layer['bytes'], 'distinct': layer['distinct']}
    return row


def measured(name: str, data: str | None = None) -> dict:
    """Returns the accuracy of a net on test images, a run's own by default, in percent, and their number."""
    result = measure.run([name], data)
    return {'top1': result['top1'], 'n_seen': result['n_seen']}


def table(record: dict) -> str:
    """Returns the Markdown table of a record: means over the seeds, and deviations."""
    rows = []
    for net, data in itertools.product(NETS, DATA):
        of = [row for row in record['cases'] if (row['net'], row['data']) == (net, data)]
        if not of:
            continue
        size = statistics.mean(row['bytes'] for row in of)
        kept = statistics.mean(row['nonzero'] / row['weights'] for row in of)
        rows.append(
            {
                'net': net,
                'images': data,
                'n_seen': f'{of[0]["dense"]["n_seen"]:,}',
                'top-1': _top1(of, 'dense'),
                **{stage: _top1(of, stage) for stage in ('pruned', 'shared', 'coded')},
                'kept': f'{kept:.1%}',
                'KB': f'{size / 1000:.1f}',
                'ratio': f'{of[0]["original_bytes"] / size:.1f}',
                'published ratio': PUBLISHED[net][0],
                'published KB': PUBLISHED[net][1],
                'seeds': len(of),
            }
        )
    return tables.render(rows, COLUMNS, 'markdown')


def _top1(rows: list[dict], stage: str) -> str | None:
    return study.spread([row[stage]['top1'] for row in rows])


def fill(record: dict, folder: Path, chosen: SimpleNamespace, save: study.Save) -> None:
    """Makes what is missing of the record; `save` is called after each net."""
    rows = record.setdefault('cases', [])
    done = {(row['net'], row['data'], row['seed']) for row in rows}
    for data, net, seed in itertools.product(DATA, NETS, SEEDS):
        wanted = net == (chosen.net or net) and data == (chosen.data or data)
        if wanted and (net, data, seed) not in done:
            rows.append(case(net, data, seed, folder / f'{DATA[data] or "digits"}_{NETS[net] or "lenet300"}_{seed}'))
            save()


def main(argv: list[str]) -> int:
    """Makes what is missing of the record, or prints its table."""
    return study.run(argv, __doc__, OUT, fill, table, {'net': NETS, 'data': DATA})


if __name__ == '__main__':
    cli.run(main)
