"""Pictures for papers: python -m cvresearch.pictures KIND --out FILE.pdf [--runs DIR...].

KIND is `balls` (accuracy against --x macs, params, latency_ms or memory_mib, balls as large as the net: of
--table EfficientNet-T2, or of runs; latency and memory are measured on this machine), `curves` (learning
curves of runs with bands over their seeds), `schedule` (the learning rate of --config or of runs, with its
restarts), `ensemble` (accuracy over the number of snapshots, from --curve FILE) or `parallel`
(coordinates of a search). The end of FILE says what is written: .png, .pdf or .svg.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp

from cvresearch.base import cli
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError, lookup
from cvresearch.engine.program import Program
from cvresearch.models import registry
from cvresearch.report import pictures, published, runs

REPEATS = 5


def measured(name: str) -> dict:
    """Returns the latency (ms) and memory (MiB) of a variant's forward pass with one image, on this machine.

    The latency is the median of some passes; the memory is what the compiled program holds: weights,
    input, output and temporaries.
    """
    variant = registry.variant(name)
    model, images = registry.build(name), jnp.zeros((1, *variant.input_shape))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    forward = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(variables, images).compile()
    jax.block_until_ready(forward(variables, images))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(forward(variables, images))
        seconds.append(time.perf_counter() - start)
    held = forward.memory_analysis()
    size = held.argument_size_in_bytes + held.output_size_in_bytes + held.temp_size_in_bytes
    return {'latency_ms': 1e3 * statistics.median(seconds), 'memory_mib': size / 2**20}


def points(options: SimpleNamespace) -> list[dict]:
    """Returns the balls: of a published table's single views, or of finished runs."""
    found: dict[str, list[float]] = {}
    if options.table:
        for line in published.table(options.table):
            figure = line.paper.get('top1')
            if line.model and figure and figure.value is not None:
                value = figure.value if figure.unit == '% accuracy' else 100 - figure.value
                found.setdefault(line.model, []).append(value)
    for run in _runs(options):
        if (value := run.last('test')) is not None:
            found.setdefault(run.config['model.name'], []).append(value)
    balls = []
    for name, values in found.items():
        variant = registry.variant(name)
        ball = dict(name=name, family=variant.module.__module__.rpartition('.')[2], top1=statistics.mean(values),
                    params=variant.params, macs=variant.macs)  # fmt: skip
        need = {options.x or 'macs', options.size or 'params'}
        balls.append(ball | (measured(name) if need & {'latency_ms', 'memory_mib'} else {}))
    return balls


def _balls(options: SimpleNamespace):
    for axis in (options.x or 'macs', options.size or 'params'):
        lookup('axis', pictures.AXES, axis)
    found = points(options)
    return lambda axes: pictures.balls(axes, found, options.x or 'macs', options.size or 'params')


def _curves(options: SimpleNamespace):
    groups = {name: [run.rows for run in group] for name, group in runs.by_recipe(_runs(options)).items()}
    return lambda axes: pictures.curves(axes, groups, options.split or 'test', options.metric or 'top1')


def _schedule(options: SimpleNamespace):
    programs = {}
    if options.config:
        programs[Path(options.config.partition(':')[0]).stem] = Program.of(cli.config_of(options))
    for path in _paths(options):
        programs[path.name] = Program.of(configs.from_json((path / 'config.json').read_text()))
    if not programs:
        raise UserError('expected --config FILE or --runs DIR...')
    rates = {name: [float(p.schedule(step)) for step in range(p.plan.steps)] for name, p in programs.items()}
    per_epoch = next(iter(programs.values())).plan.steps_per_epoch
    return lambda axes: pictures.schedule(axes, rates, per_epoch)


def _ensemble(options: SimpleNamespace):
    if not options.curve:
        raise UserError('--curve is missing: what `cvresearch.evaluate --ensemble=snapshots` printed')
    record = json.loads(Path(options.curve).read_text())
    if 'curve' not in record:
        raise UserError(f'{options.curve} has no curve; expected the record of an ensemble of snapshots or runs')
    curve = [(row['m'], row['top1']) for row in record['curve']]
    latest_first = [row['top1'] for row in reversed(record['members'])]
    return lambda axes: pictures.ensemble(axes, curve, latest_first)


def _parallel(options: SimpleNamespace):
    found = _runs(options)
    keys = [key for key in runs.differing(found) if key != 'seed']
    split = options.split or ('minival' if any(run.last('minival') is not None for run in found) else 'test')
    trials = [{**run.config, 'top1': run.last(split)} for run in found]
    return lambda axes: pictures.parallel(axes, trials, keys)


KINDS: dict[str, Callable] = {
    'balls': _balls, 'curves': _curves, 'schedule': _schedule, 'ensemble': _ensemble, 'parallel': _parallel,
}  # fmt: skip


def _paths(options: SimpleNamespace) -> list[Path]:
    return [Path(path) for path in ([options.runs] if options.runs else []) + options.rest[1:]]


def _runs(options: SimpleNamespace) -> list[runs.Kept]:
    """Returns the runs that --runs names: folders of runs, or of sweeps."""
    paths = _paths(options)
    if not paths and not options.table:
        raise UserError('expected --runs DIR..., folders of runs or of a sweep')
    found = []
    for path in paths:
        found += [runs.read(path)] if (path / 'config.json').is_file() else runs.of_folder(path)
    return found


def main(argv: list[str]) -> int:
    """Draws a picture; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=('out',), positional='kind and folders', out='file to write: .png, .pdf or .svg',
        runs='folders of runs or of sweeps', table='a published table', config='experiment file',
        curve='record of an ensemble, as cvresearch.evaluate prints it',
        x='axis of balls: macs (default), params, latency_ms, memory_mib',
        size='area of balls: params (default) or as --x', split='test (default), minival or train',
        metric='top1 (default), top5 or loss', width='inches; 3.4, a column, by default',
        height='inches; 2.4 by default',
    )  # fmt: skip
    draw = lookup('picture', KINDS, options.rest[0] if options.rest else '')(options)
    size = [_inches(name, getattr(options, name), usual) for name, usual in
            (('width', pictures.WIDTH), ('height', pictures.HEIGHT))]  # fmt: skip
    print(pictures.saved(draw, options.out, *size))
    return 0


def _inches(flag: str, text: str | None, usual: float) -> float:
    try:
        value = float(text) if text else usual
    except ValueError:
        value = 0.0
    if not 1 <= value <= 40:
        raise UserError(f'--{flag} is {text!r}; expected inches, 1 to 40')
    return value


if __name__ == '__main__':
    cli.run(main)
