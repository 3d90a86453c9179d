"""Evaluates a run's checkpoint: python -m cvresearch.evaluate --workdir DIR [--split test].

Prints one line of JSON. Every image of the split counts exactly once, at any batch size.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from cvresearch.base import cli
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError, lookup
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.evaluate import evaluate
from cvresearch.engine.program import Program


def run(workdir: str | Path, split: str = 'test', batch_size: int | None = None, step: int | None = None) -> dict:
    """Returns the metrics of one checkpoint on one split, with its step and `n_seen`.

    Args:
      workdir: of the run; nothing in it is changed.
      split: 'test', 'train', or 'minival' where the run holds one out.
      batch_size: images a step; the configuration's where not given.
      step: of the checkpoint; the newest where not given.

    Raises:
      UserError: no run, no such checkpoint or split.
    """
    path = Path(workdir)
    if not (path / 'config.json').is_file():
        raise UserError(f'{path} holds no run (it has no config.json); expected the --workdir of a training')
    config = ConfigDict(json.loads((path / 'config.json').read_text()))
    program = Program.of(config)
    examples = lookup('split', program.source.splits, split)
    batch_size = batch_size or config.eval_batch_size
    meshes.check_batch('eval_batch_size', batch_size, program.mesh)
    checkpoints = Checkpoints(path / 'checkpoints', read_only=True)
    state = checkpoints.restore(program.abstract_state(), step)
    if state is None:
        there = ', '.join(map(str, checkpoints.steps())) or 'none'
        raise UserError(f'{path} has no whole checkpoint{f" of step {step}" if step else ""}; there are: {there}')
    values = evaluate(program.eval_step(), state, examples, batch_size, program.mesh)
    return {'step': int(state.step), 'split': split, **values}


def main(argv: list[str]) -> int:
    """Prints the metrics; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=('workdir',), workdir='folder of the run', split='test (default), train or minival',
        batch_size='images a step; the run\'s own by default', step='of the checkpoint; the newest by default',
    )  # fmt: skip
    numbers = {name: cli.integer(name, value) for name in ('batch_size', 'step') if (value := getattr(options, name))}
    print(json.dumps(run(options.workdir, options.split or 'test', **numbers)))
    return 0


if __name__ == '__main__':
    cli.run(main)
