"""Measures how far our logits are from the references', and writes cvresearch/report/parity.csv.

    python tests/goldens/measure.py [NAME...]

Of all golden files or of those named, with no package of the references at hand; the rows of others are kept.
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import jax
import numpy as np
from tqdm import tqdm

from cvresearch.inspect.summary import PARITY
from cvresearch.interop import conversion
from cvresearch.models import registry
from tests.goldens import seeded
from tests.models.test_parity import NAMES, load, relative_error


def measure(name: str) -> dict:
    """Returns one row: the reference, our variant, the image, and the relative error of the logits."""
    meta, logits, tensors = load(name)
    module, variables = conversion.to_variables(tensors, name)
    images = seeded.image((len(logits), *meta['image_shape']))
    ours = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images)
    return dict(
        reference=name,
        variant=registry.reference(name).variant,
        image='x'.join(map(str, meta['image_shape'])),
        relative_error=f'{relative_error(np.asarray(ours), logits):.2e}',
    )


def main(names: list[str]) -> None:
    """Writes the rows of `names`, each as soon as it is there."""
    rows = {}
    if names and PARITY.exists():
        with open(PARITY, encoding='utf-8', newline='') as file:
            rows = {row['reference']: row for row in csv.DictReader(file)}
    for name in tqdm(names or NAMES):
        rows[name] = measure(name)
        with open(PARITY, 'w', encoding='utf-8', newline='') as file:
            writer = csv.DictWriter(file, rows[name], lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows[each] for each in NAMES if each in rows)


if __name__ == '__main__':
    main(sys.argv[1:])
