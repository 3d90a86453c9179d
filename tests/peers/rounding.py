"""How much rounding the seeded weights of tests/interop/nets.py amplify: logits in float32 from logits in float64.

    python -m tests.peers.rounding [VARIANT...]     # a minute each; rows go to docs/records/rounding.csv
    python -m tests.peers.rounding --table          # the table of docs/export.md

Of a net whose own float32 is 1e-4 from float64, two correct runtimes differ by as much; comparing them shows nothing.
So norms of some families get a larger variance, by which every layer's output shrinks.
"""

import argparse
import csv
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORD = ROOT / 'docs' / 'records' / 'rounding.csv'
NAMES = {
    'net': 'net', 'variance': 'variance', 'ours': 'ours from float64', 'onnxruntime': 'onnxruntime from float64',
    'between': 'between the two',
}  # fmt: skip
NETS = ('legacy_seresnet50', 'mnasnet_small', 'mobilenetv2_035')


def rows_of(name: str) -> list[dict]:
    """Returns a row for the variance 1 and for the one that the tests take; differences are parts of the largest."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import onnxruntime

    from cvresearch.interop import inference
    from cvresearch.interop.onnx_export import to_onnx
    from cvresearch.models import registry
    from cvresearch.nn.conv import plain_lowering
    from tests.goldens import seeded
    from tests.interop.nets import VARIANCES, relative_error, seeded_variables, small_shape

    jax.config.update('jax_enable_x64', True)
    module, shape = registry.build(name), small_shape(name)
    exact_module, images = module.clone(dtype=jnp.float64), seeded.image((2, *shape))
    ours = jax.jit(lambda variables, x: module.apply(variables, x, train=False))
    exact = jax.jit(lambda variables, x: exact_module.apply(variables, x, train=False))
    rows = []
    for variance in sorted({1.0, *(value for start, value in VARIANCES.items() if name.startswith(start))}):
        variables = seeded_variables(module, shape, variance)
        doubled = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        with plain_lowering():  # whose logits alone are rounded to float32
            expected = np.asarray(exact(doubled, images.astype(np.float64)))
        found = np.asarray(ours(variables, images))
        file = to_onnx(inference.function(module, variables), inference.image_spec(shape, raw=False))
        session = onnxruntime.InferenceSession(file.SerializeToString(), providers=['CPUExecutionProvider'])
        outside = session.run(['logits'], {'images': images})[0]
        pairs = {'ours': (found, expected), 'onnxruntime': (outside, expected), 'between': (outside, found)}
        errors = {key: f'{relative_error(*pair):.1e}' for key, pair in pairs.items()}
        rows.append(dict(net=name, variance=variance, **errors))
    return rows


def read() -> list[dict]:
    """Returns the rows of the record."""
    return [*csv.DictReader(RECORD.read_text().splitlines())] if RECORD.exists() else []


def table() -> str:
    """Returns the record as a table."""
    lines = [f'| {" | ".join(NAMES.values())} |', f'| --- |{" ---: |" * (len(NAMES) - 1)}']
    return '\n'.join([*lines, *(f'| {" | ".join(row[key] for key in NAMES)} |' for row in read())])


def main(argv: list[str] | None = None) -> int:
    """Measures and keeps rows, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', default=NETS, help='variants')
    parser.add_argument('--table', action='store_true', help='print the table of docs/export.md')
    options = parser.parse_args(argv)
    if options.table:
        print(table())
        return 0
    for name in options.names:
        rows = [*(row for row in read() if row['net'] != name), *rows_of(name)]
        with open(RECORD, 'w', newline='') as file:
            writer = csv.DictWriter(file, tuple(NAMES), lineterminator='\n')
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda row: row['net']))
        print(rows, flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
