"""Deviations by layer at the first step: cvresearch report initialisation RUN... [--format NAME].

Each RUN is of an MLP with hidden layers of one width, trained with `--config.watch.name=layers`. One row for each: the
standard deviation of what the first, the middle and the last hidden layer give (after norm and activation), of the
gradient of the loss by it, how much both grew on their way, beside the closed form, and what the run came to.

The closed form is of nets without norms: through a linear layer of n inputs, whose weights have the deviation s, a
signal grows by s * sqrt(n), forwards as backwards; a ReLU halves its mean square (He et al. 2015, arXiv:1502.01852,
equations 9 and 13). There the growth of a ReLU net is of root mean squares; for tanh there is none.
`cvresearch report plots layers` draws all layers.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from cvresearch.base import cli, tables
from cvresearch.base.errors import UserError
from cvresearch.engine.watching import SPLIT
from cvresearch.report import runs
from cvresearch.report.runs import RunRecord

# Standard deviation of the weights of a layer with so many inputs, by the name of the initialiser.
DEVIATIONS = {
    'normal_0.01': lambda inputs: 0.01,
    'normal_0.05': lambda inputs: 0.05,
    'normal_1.0': lambda inputs: 1.0,
    'lecun_fan_in': lambda inputs: inputs**-0.5,
    'he_fan_in': lambda inputs: (2 / inputs) ** 0.5,
}
KEPT = {'linear': 1.0, 'relu': 0.5}  # share of the mean square that an activation lets through
COLUMNS = (
    'activation', 'norm', 'weights', 'activations, first', 'middle', 'last', 'growth', 'closed form',
    'gradients, first', 'gradients, last', 'backward growth', 'training loss', 'test top-1',
)  # fmt: skip


def growth(init: str, act: str, width: int, layers: int) -> float | None:
    """Returns by what factor a signal grows through so many layers of one width; None where no closed form is known."""
    if init not in DEVIATIONS or act not in KEPT:
        return None
    return (DEVIATIONS[init](width) ** 2 * width * KEPT[act]) ** (layers / 2)


def by_layer(run: RunRecord, what: str) -> dict[str, Mapping]:
    """Returns what the first row says of each hidden layer, by its name: `what` is 'activations' or 'gradients'.

    Raises:
      UserError: the run has no such record.
    """
    first = next((row for row in run.rows if row['split'] == SPLIT), None)
    if first is None:
        raise UserError(f'{run.name} has no record of its layers; train with --config.watch.name=layers')
    prefix = 'norm' if run.config.get('model.norm') else 'hidden'
    return {name: one for name, one in first[what].items() if name.startswith(prefix)}


def read(folders: Sequence[str | Path]) -> list[RunRecord]:
    """Returns the runs, linear nets first, then by activation, norm, and deviation of the weights.

    Raises:
      UserError: none of the folders is a finished run of an MLP with such a record.
    """

    def one(path: Path) -> RunRecord:
        runs.finished(path)
        run = runs.read(path)
        if run.config['model.name'] != 'mlp' or len(set(run.config.get('model.widths', ()))) != 1:
            raise UserError(f'{path} is of no MLP whose hidden layers have one width')
        by_layer(run, 'activations')
        return run

    def order(run: RunRecord):
        init, width = run.config['model.kernel_init'], run.config['model.widths'][0]
        deviation = DEVIATIONS.get(init, lambda inputs: math.inf)(width)
        return run.config['model.act'], bool(run.config.get('model.norm')), deviation

    return sorted(runs.take(folders, one), key=order)


def _number(value: float | None) -> str | None:
    return None if value is None else f'{value:.2g}'


def _spread(layers: Mapping[str, Mapping]) -> list[float | None]:
    return [one['std'] for one in layers.values()]


def _root_mean_square(layer: Mapping) -> float | None:
    return None if layer['std'] is None else math.hypot(layer['std'], layer['mean'])


def rows(nets: Sequence[RunRecord]) -> list[dict]:
    """Returns the table."""
    table = []
    for run in nets:
        forward, backward = (by_layer(run, what) for what in ('activations', 'gradients'))
        values, slopes = _spread(forward), _spread(backward)
        ends = [_root_mean_square(layer) for layer in (*list(forward.values())[:1], *list(forward.values())[-1:])]
        act, norm, init = run.config['model.act'], bool(run.config.get('model.norm')), run.config['model.kernel_init']
        known = None if norm else growth(init, act, run.config['model.widths'][0], len(values) - 1)
        test = run.card['final']['test']
        table.append(
            {
                'activation': act,
                'norm': 'batch norm' if norm else 'none',
                'weights': init,
                'activations, first': _number(values[0]),
                'middle': _number(values[len(values) // 2]),
                'last': _number(values[-1]),
                'growth': _number(ends[1] / ends[0] if ends[0] and ends[1] is not None else None),
                'closed form': _number(known),
                'gradients, first': _number(slopes[0]),
                'gradients, last': _number(slopes[-1]),
                'backward growth': _number(slopes[0] / slopes[-1] if slopes[-1] and slopes[0] is not None else None),
                'training loss': 'diverged' if run.diverged else _number(run.last('train', 'loss')),
                'test top-1': f'{test["top1"]:.2f}',
            }
        )
    return table


def main(argv: list[str]) -> int:
    """Prints the table; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=(), positional='folders of runs', format='text (default), markdown, csv, latex or html'
    )
    if not options.rest:
        raise UserError('expected folders of runs with a record of their layers')
    print(tables.render(rows(read(options.rest)), COLUMNS, options.format or 'text'))
    return 0
