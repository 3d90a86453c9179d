"""Trains `:smoke` of experiment files, and tells the loss before and after: python tests/smokes.py > docs/smoke.md

With names after it, of those files only. The compiler is asked not to optimise: it takes most of the time.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base import tables

COLUMNS = ('config', 'model', 'data', 'steps', 'loss of the first steps', 'of the last', 'test loss', 'n_seen', 'CPU s')
# One device, as on a laptop; nothing saved but what is logged, nothing evaluated before the end.
OVERRIDES = {'mesh.data': '1', 'save_every_epochs': '0', 'evaluate_every_epochs': '0.5'}


HEAD = """# Smoke runs

The output of `python tests/smokes.py`: each experiment file as `:smoke`, four steps on synthetic images, or half
an epoch where the images come with the packages. Losses of four steps say that a recipe runs, and no more.
"""
FOOT = """
## Next

- [Experiments](experiments.md): how to run one in full, and change it."""


def files() -> list[Path]:
    """Returns the experiment files."""
    return [path for path in sorted(Path('configs').glob('*.py')) if path.stem not in ('__init__', 'common')]


def run(file: Path, workdir: Path) -> dict:
    """Trains a file's `:smoke` in `workdir`; returns a row of the table.

    Raises:
      RuntimeError: the run did not finish.
    """
    config = configs.load(f'{file}:smoke', OVERRIDES)
    began, unoptimised = time.process_time(), jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', True)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            code = train.run(config, workdir)
    finally:
        jax.config.update('jax_disable_most_optimizations', unoptimised)
    if code:
        raise RuntimeError(f'{file}:smoke ended with exit code {code}')
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    losses = [row['loss'] for row in rows if row['split'] == 'train']
    test = [row for row in rows if row['split'] == 'test'][-1]
    return {
        'config': file.stem,
        'model': config.model.name,
        'data': config.data.name,
        'steps': test['step'],
        'loss of the first steps': f'{losses[0]:.3f}',
        'of the last': f'{losses[-1]:.3f}',
        'test loss': f'{test["loss"]:.3f}',
        'n_seen': test['n_seen'],
        'CPU s': round(time.process_time() - began),
    }


def main(names: list[str]) -> int:
    """Prints the table; returns 1 if a run failed, else 0."""
    rows, failed = [], []
    for file in files():
        if names and file.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as workdir:
            try:
                rows.append(run(file, Path(workdir)))
                print(rows[-1], file=sys.stderr)
            except Exception as error:  # the others are still of use
                failed.append(f'- `{file.stem}`: {type(error).__name__}: {" ".join(str(error).split())}')
                print(failed[-1], file=sys.stderr)
    print(HEAD)
    print(tables.render(rows, COLUMNS, 'markdown'))
    print('\n'.join(['\nFailed:\n', *failed] if failed else []))
    print(FOOT)
    return bool(failed)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
