"""Exported nets outside: logits of ONNX and StableHLO files beside ours, for a net of every family (docs/export.md).

    python -m tests.peers.exports [VARIANT...]      # each family's cheapest net, those that are not in the record
    python -m tests.peers.exports --float16         # of ONNX files in half precision, beside those in single: minutes
    python -m tests.peers.exports --table           # the table of docs/export.md

The files are run by another process, in which this package cannot be imported, at batches of 1 to 8
(tests/peers/outside.py). Images are the smallest at which a reference library has been run. Rows go to
docs/records/exports.csv.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORD = ROOT / 'docs' / 'records' / 'exports.csv'
OUTSIDE = Path(__file__).with_name('outside.py')
# With the seeded weights of the other columns some values of these are above 65,504, which float16 does not hold.
SMALLER = {'nasnet': 2.0, 'shufflenet_g3': 2.0}
FIELDS = ('family', 'net', 'image', 'onnx', 'stablehlo', 'float16', 'custom_calls', 'platforms', 'batch', 'megabytes')


def row_of(name: str) -> dict:
    """Returns a row of the record; differences of logits are the largest, as parts of the largest logit."""
    import numpy as np

    from cvresearch.interop import inference
    from cvresearch.interop.onnx_export import to_onnx
    from cvresearch.interop.stablehlo import to_stablehlo
    from tests.goldens import seeded
    from tests.interop.nets import logits, relative_error, small_net
    from tests.peers.outside import BATCHES

    module, variables, shape = small_net(name)
    function, spec = inference.function(module, variables), inference.image_spec(shape, raw=False)
    images = seeded.image((8, *shape))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / 'net.onnx').write_bytes(to_onnx(function, spec).SerializeToString())
        (folder / 'net.stablehlo').write_bytes(to_stablehlo(function, spec))
        np.save(folder / 'images.npy', images)
        found = run_outside(folder)
        megabytes = (folder / 'net.onnx').stat().st_size / 1e6
    expected = logits(module, variables, images)
    errors = {
        form: max(relative_error(found[f'{form}{batch}'], expected[:batch]) for batch in batches)
        for form, batches in BATCHES.items()
    }
    return dict(
        family=type(module).__module__.rpartition('.')[2],
        net=name,
        image='x'.join(map(str, shape)),
        **{form: f'{error:.1e}' for form, error in errors.items()},
        custom_calls=int(found['custom_calls']),
        platforms=str(found['platforms']).replace(',', ' '),
        batch=str(found['batch']),
        megabytes=f'{megabytes:.1f}',
    )


def half_of(name: str) -> str:
    """Returns the largest difference of an ONNX file's logits in float16 from those in float32."""
    import onnxruntime

    from cvresearch.base.errors import UserError
    from cvresearch.interop import inference
    from cvresearch.interop.onnx_export import to_onnx
    from tests.goldens import seeded
    from tests.interop.nets import relative_error, small_net

    variance = next((value for start, value in SMALLER.items() if name.startswith(start)), None)
    module, variables, shape = small_net(name, variance=variance)
    function, spec = inference.function(module, variables), inference.image_spec(shape, raw=False)
    images, found = seeded.image((3, *shape)), []
    for kind in ('float32', 'float16'):
        try:
            file = to_onnx(function, spec, kind).SerializeToString()
        except UserError as error:
            return f'refused: {error}'
        session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
        found.append(session.run(['logits'], {'images': images})[0])
    return f'{relative_error(found[1], found[0]):.1e}'


def run_outside(folder: Path) -> dict:
    """Returns what `outside.py` writes about the files in a folder."""
    import numpy as np

    packages = [place for place in sys.path if place.endswith('-packages')]
    command = [sys.executable, '-S', str(OUTSIDE), str(folder), *packages]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={'JAX_PLATFORMS': 'cpu'})
    if done.returncode:
        raise RuntimeError(done.stderr)
    with np.load(folder / 'logits.npz') as found:
        return dict(found)


def table() -> str:
    """Returns the record as a table, and of how many families it is."""
    from cvresearch.models import registry

    names = {key: key for key in ('family', 'net', 'image')}
    names |= {'onnx': 'ONNX', 'stablehlo': 'StableHLO', 'custom_calls': 'custom calls'}
    names |= {'float16': 'ONNX in float16'} if any(row['float16'] for row in read()) else {}
    lines = [f'| {" | ".join(names.values())} |', f'| --- | --- | --- |{" ---: |" * (len(names) - 3)}']
    for row in read():
        lines.append(f'| {" | ".join(row[key] for key in names)} |')
    return '\n'.join([*lines, '', f'{len(read())} of {len(registry.families())} families.'])


def read() -> list[dict]:
    """Returns the rows of the record."""
    return [*csv.DictReader(RECORD.read_text().splitlines())] if RECORD.exists() else []


def keep(row: dict) -> None:
    """Adds a row to the record, or what it has to an earlier one of the same net."""
    rows = {old['net']: old for old in read()}
    rows[row['net']] = rows.get(row['net'], {}) | row
    with open(RECORD, 'w', newline='') as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(sorted(rows.values(), key=lambda each: each['family']))
    print(row, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Exports nets and keeps their rows, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help='variants; by default those that have no row')
    parser.add_argument('--table', action='store_true', help='print the table of docs/export.md')
    parser.add_argument('--float16', action='store_true', help='of the nets in the record, how far float16 is')
    options = parser.parse_args(argv)
    if options.table:
        print(table())
        return 0
    from tests.interop.nets import CHEAPEST

    column = 'float16' if options.float16 else 'onnx'
    there = {row['net'] for row in read() if row.get(column)}
    for name in options.names or [name for name in reversed(CHEAPEST) if name not in there]:  # the quick ones first
        keep(dict(net=name, float16=half_of(name)) if options.float16 else row_of(name))
    return 0


if __name__ == '__main__':
    sys.exit(main())
