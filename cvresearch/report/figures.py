"""Pictures for papers: cvresearch report plots KIND --out FILE.pdf [--runs DIR...].

KIND is `balls` (accuracy against --x macs, params, latency_ms or memory_mib, balls as large as the net: of
--table EfficientNet-T2, or of runs; latency and memory are measured on this machine), `curves` (learning
curves of runs with bands over their seeds), `schedule` (the learning rate of --config or of runs, with its
restarts), `layers` (deviations of --metric activations or gradients by layer, at the first step of runs that
watch them), `study` (the settings of the sweep of --config, training and test), `shifts` (accuracy over the
shift of the images, from the FILEs of `cvresearch evaluate shifts`), `ensemble` (accuracy over the number of
snapshots, from --curve FILE), `sensitivity` (accuracy over the share of a layer that is pruned, from --curve FILE
of `cvresearch compress sensitivity`) or `parallel` (coordinates of a search). The end of FILE says what is
written: .png, .pdf or .svg.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp

from cvresearch.base import at_hand, cli
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError, lookup
from cvresearch.engine.experiment import Experiment
from cvresearch.models import registry
from cvresearch.report import balls, initialisation, ours, plots, published, results, runs, shifts, studies

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
    held = cast(Any, forward.memory_analysis())
    size = held.argument_size_in_bytes + held.output_size_in_bytes + held.temp_size_in_bytes
    return {'latency_ms': 1e3 * statistics.median(seconds), 'memory_mib': size / 2**20}


def points(options: SimpleNamespace) -> list[dict]:
    """Returns the balls: of a published table's single views, of finished runs, or of both."""
    lines = [line for line in published.table(options.table) if line.model] if options.table else []
    single = [line for line in lines if line.views == published.SINGLE] or lines
    balls_drawn = [ball for line in single if (ball := _published(line, single))]
    if options.runs or options.rest[1:]:
        balls_drawn += ours.balls(single, results.take(options.runs + options.rest[1:]))
    elif not options.table:
        raise UserError('expected --table NAME or --runs DIR...')
    if {options.x, options.size} & {'latency_ms', 'memory_mib'}:
        balls_drawn = [ball | measured(ball['model']) for ball in balls_drawn]
    return balls_drawn


def _published(line: published.Line, lines: list[published.Line]) -> dict | None:
    """Returns the ball of a published figure, named by its line where the table has that net in several."""
    figure, variant = line.paper.get('top1'), registry.variant(str(line.model))
    if figure is None or figure.value is None:
        return None
    alone = sum(other.model == line.model for other in lines) == 1
    return {
        'name': line.model if alone else line.label,
        'model': line.model,
        'family': ours.family(str(line.model)),
        'top1': figure.value if figure.unit == '% accuracy' else 100 - figure.value,
        'series': 'published',
        'params': variant.params,
        'macs': variant.macs,
    }


def _balls(options: SimpleNamespace):
    for axis in (options.x or 'macs', options.size or 'params'):
        lookup('axis', balls.AXES, axis)
    drawn = points(options)
    return lambda axes: balls.draw(axes, drawn, options.x or 'macs', options.size or 'params')


def _curves(options: SimpleNamespace):
    groups = {name: [run.rows for run in group] for name, group in runs.by_recipe(_runs(options)).items()}
    highest = cli.positive('highest', options.highest) if options.highest else None
    return lambda axes: plots.curves(axes, groups, options.split or 'test', options.metric or 'top1', highest)


def _schedule(options: SimpleNamespace):
    programs = {}
    if options.config:
        programs[Path(configs.parts_of(options.config)[0]).stem] = Experiment.from_config(cli.config_of(options))
    for run in _runs(options) if _paths(options) else ():
        programs[run.name] = Experiment.from_config(run.whole_config)
    if not programs:
        raise UserError('expected --config FILE or --runs DIR...')
    rates = {name: [float(p.schedule(step)) for step in range(p.plan.steps)] for name, p in programs.items()}
    per_epoch = next(iter(programs.values())).plan.steps_per_epoch
    return lambda axes: plots.schedule(axes, rates, per_epoch)


def _study(options: SimpleNamespace):
    if not options.config:
        raise UserError('expected --config FILE, the experiment file of the study, and --runs DIR...')
    settings = studies.groups(options.config, _paths(options))
    rows = [
        (group.name, group.training('top1'), statistics.mean(group.tests) if group.runs else None, group.interval())
        for group in settings
    ]
    return lambda axes: plots.study(axes, rows, 'top-1 (%)')


def _ensemble(options: SimpleNamespace):
    record = _record(options.curve, 'what `cvresearch.evaluate --ensemble=snapshots` printed')
    if 'curve' not in record:
        raise UserError(f'{options.curve} has no curve; expected the record of an ensemble of snapshots or runs')
    curve = [(row['m'], row['top1']) for row in record['curve']]
    latest_first = [row['top1'] for row in reversed(record['members'])]
    return lambda axes: plots.ensemble(axes, curve, latest_first)


def _shifts(options: SimpleNamespace):
    records = shifts.read(options.rest[1:])
    return lambda axes: plots.shifts(axes, records)


def _layers(options: SimpleNamespace):
    sides = {name: name for name in ('activations', 'gradients')}
    what = lookup('metric', sides, options.metric or 'activations')
    nets = initialisation.read(_paths(options))
    keys = ('model.act', 'model.norm', 'model.kernel_init')
    differ = [key for key in keys if len({run.config.get(key) for run in nets}) > 1] or list(keys)
    lines = {}
    for run in nets:
        words = [('batch norm' if run.config.get(key) else '') if key == keys[1] else run.config[key] for key in differ]
        deviations = [layer['std'] for layer in initialisation.by_layer(run, what).values()]
        lines[', '.join(word for word in words if word)] = deviations
    return lambda axes: plots.by_layer(axes, lines, what)


def _sensitivity(options: SimpleNamespace):
    record = _record(options.curve, 'what `cvresearch compress sensitivity` wrote')
    if not {'layers', 'shares', 'top1', 'whole'} <= set(record):
        raise UserError(f'{options.curve} is of no scan; expected what `cvresearch compress sensitivity` wrote')
    return lambda axes: plots.sensitivity(axes, record)


def _record(path: Path | None, expected: str) -> dict:
    if not path:
        raise UserError(f'--curve is missing: {expected}')
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read as JSON ({type(error).__name__}: {error})') from error
    return record if isinstance(record, dict) else {}


def _parallel(options: SimpleNamespace):
    records = _runs(options)
    keys = [key for key in runs.differing(records) if key != 'seed']
    split = options.split or ('minival' if any(run.last('minival') is not None for run in records) else 'test')
    trials = [{**run.config, 'top1': run.last(split, 'top1')} for run in records]
    return lambda axes: plots.parallel(axes, trials, keys)


KINDS: dict[str, Callable] = {
    'balls': _balls,
    'curves': _curves,
    'schedule': _schedule,
    'layers': _layers,
    'study': _study,
    'shifts': _shifts,
    'ensemble': _ensemble,
    'parallel': _parallel,
    'sensitivity': _sensitivity,
}


def _paths(options: SimpleNamespace) -> list[Path]:
    return at_hand.read_all([*options.runs, *options.rest[1:]])


def _runs(options: SimpleNamespace) -> list[runs.RunRecord]:
    """Returns the runs that --runs names, finished or not: their folders, or the folders of their sweeps."""
    if not _paths(options):
        raise UserError('expected --runs DIR..., folders of runs or of a sweep')
    return runs.of_folders(_paths(options))


def main(argv: list[str]) -> int:
    """Draws a picture; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('out',),
        positional='kind and folders',
        places=('out', 'runs', 'curve'),
        buckets=('runs',),
        repeated=('runs',),
        out='file to write: .png, .pdf or .svg',
        runs='folders of runs or of sweeps',
        table='a published table',
        config='experiment file',
        curve='record of an ensemble, as `cvresearch evaluate` prints it, or of a scan of layers',
        x='axis of balls: macs (default), params, latency_ms, memory_mib',
        size='area of balls: params (default) or as --x',
        split='test (default), minival or train',
        metric='top1 (default), top5 or loss; of layers: activations (default) or gradients',
        highest='of curves, the vertical axis goes from 0 to it; by default it holds everything',
        width='inches; 3.4, a column, by default',
        height='inches; 2.4 by default',
    )
    draw = lookup('picture', KINDS, options.rest[0] if options.rest else '')(options)
    size = [
        _inches(name, getattr(options, name), usual)
        for name, usual in (('width', plots.WIDTH), ('height', plots.HEIGHT))
    ]
    print(plots.saved(draw, options.out, *size))
    return 0


def _inches(flag: str, text: str | None, usual: float) -> float:
    try:
        value = float(text) if text else usual
    except ValueError:
        value = 0.0
    if not 1 <= value <= 40:
        raise UserError(f'--{flag} is {text!r}; expected inches, 1 to 40')
    return value
