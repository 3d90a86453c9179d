"""How fast a training step is: python -m cvresearch.benchmark --model lenet5 --batch_size 64.

One update (forward, backward, SGD with momentum) on random images already on the device: median
step time, images/s, multiply-adds/s, time to the first step, memory. With --config instead of
--model: a recipe's images/s, memory and time to the first step, without and with the compiler's cache, and what the
loop (stream, logging, progress) adds to its bare step. With --model and --probe: a whole update beside one in which the
head alone learns (configs/finetune.py:probe), in turns: time, memory of the compiled step, bytes of AdamW's moments.
"""

import dataclasses
import math
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cvresearch.base import cli, compile_cache, records, tables
from cvresearch.base.errors import UserError, lookup
from cvresearch.engine import augment, steps
from cvresearch.engine import state as states
from cvresearch.engine.experiment import DTYPES, Experiment
from cvresearch.engine.freezing import Freezing, held
from cvresearch.engine.session import Session
from cvresearch.inspect import cost
from cvresearch.inspect.groups import param_groups
from cvresearch.models import registry
from cvresearch.nn import devices, overrides
from cvresearch.nn.stacked import unrolled, with_stacked
from cvresearch.objectives import losses
from cvresearch.optim import optimizers
from cvresearch.optim.updates import PLAIN, OptimizerOptions
from cvresearch.train import Training

TURN = 10  # steps of the loop, then as many bare ones


@dataclasses.dataclass(eq=False)
class Step:
    """One compiled update of a variant, ready to be timed.

    Attributes:
      model: the net.
      image_shape: (height, width, channels).
      initialise_s: seconds to make the state, compiling included.
      compile_s: seconds to trace and compile the update.
      compiled: the update.
    """

    model: nn.Module
    image_shape: tuple[int, int, int]
    initialise_s: float
    compile_s: float
    compiled: Callable
    _state: states.State
    _batch: dict

    @classmethod
    def of(cls, name: str, batch_size: int, image_size: int | None = None, dtype: str = 'float32') -> 'Step':
        """Compiles the update of a variant; see `step_benchmark` for the arguments."""
        shape = registry.variant(name).input_shape
        shape = (image_size, image_size, shape[2]) if image_size else shape
        return cls.of_net(with_stacked(registry.build(name, dtype=lookup('dtype', DTYPES, dtype))), shape, batch_size)

    @classmethod
    def of_net(
        cls,
        model: nn.Module,
        shape: tuple[int, int, int],
        batch_size: int,
        optimizer: str = 'sgd',
        options: OptimizerOptions = PLAIN,
    ) -> 'Step':
        """Compiles the update of a net for images (height, width, channels), by an optimizer and what is around it."""
        tx = optimizers.make({'name': optimizer}, lambda step: 0.01, options)
        loss = losses.make({'name': 'softmax_cross_entropy'})
        learning, recipe = _frozen(model, shape, options)
        train_step = steps.make_train_step(learning, tx, loss, augment.Augment(), (0.5,), (0.25,), recipe)
        random = np.random.default_rng(0)
        batch = jax.device_put(
            {
                'image': random.integers(0, 256, (batch_size, *shape), np.uint8),
                'label': random.integers(0, model.num_classes, batch_size).astype(np.int32),
                'epoch': np.zeros(batch_size, np.int32),
                'index': np.arange(batch_size, dtype=np.int32),
            }
        )
        started = time.perf_counter()
        state = jax.block_until_ready(jax.jit(lambda seed: states.create(model, tx, shape, seed))(jnp.uint32(0)))
        built = time.perf_counter()
        in_place = devices.compiler_options(jax.default_backend())
        compiled = jax.jit(train_step, donate_argnums=0).lower(state, batch).compile(in_place)
        done = time.perf_counter()
        return cls(model, shape, built - started, done - built, compiled, state, batch)

    @property
    def moments(self) -> int:
        """The bytes of what the optimizer keeps."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state.opt_state))

    def __call__(self) -> float:
        """Makes one update; returns its seconds."""
        start = time.perf_counter()
        self._state = jax.block_until_ready(self.compiled(self._state, self._batch))
        return time.perf_counter() - start


def _frozen(model: nn.Module, shape: tuple, options: OptimizerOptions) -> tuple[nn.Module, steps.UpdateOptions]:
    """Returns the net and the options of its first update, as `Experiment.training_at` has them for a run."""
    freezing = Freezing(options, 1.0)
    if not freezing.inference:
        return model, steps.UpdateOptions()
    modules = freezing.modules(cost.shapes(model, shape)['params'], 0)
    recipe = steps.UpdateOptions(never_learns=freezing.never_learns, held=held(modules, freezing))
    return overrides.frozen_in(model, modules), recipe


def probe_benchmark(
    name: str, batch_size: int = 64, image_size: int | None = None, dtype: str = 'float32', repeats: int = 30
) -> dict:
    """Returns the time and memory of a whole update of a variant, and of one in which its head alone learns.

    Both are made by AdamW, as configs/finetune.py has it, in turns in one process. Bytes are exact: XLA's account of
    the compiled step beside its arguments, and the optimizer's arrays.

    Args:
      name: of the variant.
      batch_size: images a step.
      image_size: height and width; the variant's own by default.
      dtype: 'float32' or 'bfloat16', of the computation.
      repeats: pairs timed, after two that are not.
    """
    shape = registry.variant(name).input_shape
    shape = (image_size, image_size, shape[2]) if image_size else shape
    model = registry.build(name, dtype=lookup('dtype', DTYPES, dtype))
    below = tuple(group.pattern for group in param_groups(model, shape)[:-1])
    options = OptimizerOptions(freeze=below, frozen='inference')
    full = Step.of_net(with_stacked(model), shape, batch_size, 'adamw')
    probe = Step.of_net(unrolled(model), shape, batch_size, 'adamw', options)
    seconds = []
    for number in tqdm(range(repeats + 2), desc=name, leave=False):
        # In turns, and each as often first: a machine that drifts favours neither.
        times = {step: step() for step in ((full, probe) if number % 2 else (probe, full))}
        seconds.append((times[full], times[probe]))
    seconds = seconds[2:]
    return dict(
        model=name,
        device=jax.devices()[0].device_kind,
        dtype=dtype,
        batch_size=batch_size,
        image_size=shape[0],
        step_ms=round(1e3 * statistics.median(pair[0] for pair in seconds), 3),
        probe_ms=round(1e3 * statistics.median(pair[1] for pair in seconds), 3),
        ratio=round(statistics.median(full_s / probe_s for full_s, probe_s in seconds), 3),
        temporary_mib=_memory(full.compiled)['temporary_mib'],
        probe_temporary_mib=_memory(probe.compiled)['temporary_mib'],
        moments_bytes=full.moments,
        probe_moments_bytes=probe.moments,
    )


def step_benchmark(
    name: str, batch_size: int = 64, image_size: int | None = None, dtype: str = 'float32', repeats: int = 30
) -> dict:
    """Returns the speed of one training step of a variant.

    Args:
      name: of the variant.
      batch_size: images a step.
      image_size: height and width; the variant's own by default.
      dtype: 'float32' or 'bfloat16', of the computation.
      repeats: steps timed, after two that are not.
    """
    step = Step.of(name, batch_size, image_size, dtype)
    first = step()
    step()
    median = statistics.median(step() for _ in tqdm(range(repeats), desc=name, leave=False))
    macs = cost.macs(step.model, step.image_shape)
    return dict(
        model=name,
        device=jax.devices()[0].device_kind,
        dtype=dtype,
        batch_size=batch_size,
        image_size=step.image_shape[0],
        step_ms=round(1e3 * median, 3),
        images_per_second=round(batch_size / median, 1),
        # A gradient costs about twice the forward pass: 3 * multiply-adds a training step, by convention.
        gmacs_per_second=round(3 * macs * batch_size / median / 1e9, 2),
        first_step_s=round(step.compile_s + first, 3),
        compile_s=round(step.compile_s, 3),
        initialise_s=round(step.initialise_s, 3),
        **_memory(step.compiled),
    )


def loop_benchmark(config: ConfigDict, pairs: int = 20) -> dict:
    """Returns the speed and memory of a recipe: of the training loop, of the bare jitted step, and their ratio.

    Both run the same compiled step in the same process, `TURN` steps of one and `TURN` of the other in turns: a machine
    that drifts favours neither. The loop has its stream, its records and its progress bar; evaluations and saves, which
    it counts apart, are switched off. So is the schedule, which may be longer than what is timed: the rate is the peak
    throughout.

    Args:
      config: the recipe.
      pairs: how many turns of each are timed, after one of each that is not.

    Returns:
      Medians over the turns. `ratio` is the median of the pairs' ratios, `ratios` all of them, and `ratio_interval`
      where the median of many would lie with 95 % confidence, by ranks.
    """
    config = config.copy_and_resolve_references()
    examples = Experiment.from_config(config).plan.examples
    with config.unlocked():
        config.evaluate_every_epochs = config.save_every_epochs = 0.0
        config.epochs = (pairs + 1) * TURN * config.batch_size / examples
        config.schedule = dict(name='constant', peak=config.schedule.peak)
        if 'start_epochs' in config.average:
            config.average.start_epochs = 0.0
    cold, warm, experiment = first_steps(config)
    with tempfile.TemporaryDirectory() as folder, Session.open(experiment, folder) as session:
        assert session is not None  # of a new folder
        training = Training(session)
        ours, bare = _in_turns(training, pairs)
        memory = _memory(training.phases.compiled(0))
    ratios = sorted(a / b for a, b in zip(ours, bare, strict=True))
    aside = round(0.98 * math.sqrt(pairs))  # ranks that a median's lie within, of 95 % of all samples
    interval = ratios[max(pairs // 2 - aside, 0)], ratios[min(pairs // 2 + aside, pairs - 1)]
    return dict(
        model=config.model.name,
        device=jax.devices()[0].device_kind,
        batch_size=config.batch_size,
        loop_ms=round(statistics.median(ours), 3),
        bare_ms=round(statistics.median(bare), 3),
        ratio=round(statistics.median(ratios), 4),
        ratio_interval=[round(ratio, 4) for ratio in interval],
        ratios=[round(ratio, 4) for ratio in ratios],
        images_per_second=round(1e3 * config.batch_size / statistics.median(ours), 1),
        first_step_cold_s=round(cold, 3),
        first_step_warm_s=round(warm, 3),
        **memory,
    )


def _in_turns(training: Training, pairs: int) -> tuple[list[float], list[float]]:
    """Returns milliseconds a step of the loop and of the bare step, turn by turn; the first of each is left out."""
    batch, train_step = training.phases.batch(0), training.phases.compiled(0)
    state = jax.tree.map(jnp.copy, training.state)

    def loop():
        for _ in range(TURN):
            training.arrive(training.step)
            training.update(training.step)
        jax.block_until_ready(training.state)

    def bare():
        nonlocal state
        for _ in range(TURN):
            state = train_step(state, batch)
        jax.block_until_ready(state)

    milliseconds = {loop: [], bare: []}
    for number in tqdm(range(pairs + 1), desc='turns', leave=False):
        for work in (loop, bare) if number % 2 else (bare, loop):
            start = time.perf_counter()
            work()
            milliseconds[work].append(1e3 * (time.perf_counter() - start) / TURN)
    return milliseconds[loop][1:], milliseconds[bare][1:]


def first_steps(config: ConfigDict) -> tuple[float, float, Experiment]:
    """Returns the seconds from a configuration to the end of its first step, and the last program.

    Without anything compiled, and with all of it in the compiler's cache on disk.
    """
    seconds = []
    with compile_cache.empty(), tempfile.TemporaryDirectory() as folder:
        for name in ('cold', 'warm'):
            jax.clear_caches()
            start = time.perf_counter()
            experiment = Experiment.from_config(config)
            with Session.open(experiment, Path(folder) / name) as session:
                assert session is not None  # of a new folder
                training = Training(session)
                jax.block_until_ready(training.phases.update(0, training.state, next(training.batches)))
            seconds.append(time.perf_counter() - start)
    return *seconds, experiment


def _memory(compiled) -> dict:
    """Returns XLA's account of what a step needs beside its arguments, and the most that the process had."""
    analysis = compiled.memory_analysis()
    return dict(
        temporary_mib=round(analysis.temp_size_in_bytes / 2**20, 1) if analysis else None,
        peak_rss_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


def main(argv: list[str]) -> int:
    """Prints a benchmark; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        places=('record',),
        switches=dict(probe='with --model: beside an update in which the head alone learns'),
        model='variants whose training step is timed, with commas between',
        config='experiment whose loop is compared with its bare step',
        batch_size='images a step (64)',
        image_size="height and width; the variant's own by default",
        dtype='float32 (default) or bfloat16',
        steps='steps timed (30; of the loop 200, in turns of 10)',
        format='text (default) or json: one line for each',
        record='file for the record: docs/records/NAME.json',
    )
    numbers = cli.integers(options, 'batch_size', 'image_size', 'steps')
    repeats = numbers.pop('steps', None)
    if bool(options.model) == bool(options.config):
        raise UserError('expected either --model or --config')
    if options.probe and not options.model:
        raise UserError('--probe goes with --model: the net whose head alone learns')
    if options.config:
        results = [loop_benchmark(cli.config_of(options), math.ceil((repeats or 200) / TURN))]
    else:
        measured = probe_benchmark if options.probe else step_benchmark
        dtype = options.dtype or 'float32'
        results = [measured(name, **numbers, dtype=dtype, repeats=repeats or 30) for name in options.model.split(',')]
    if options.record:
        shown = {key: results[0][key] for key in results[0] if key == 'ratios'}  # too many for a table
        rows = [{key: result[key] for key in result if key not in shown} for result in results]
        records.write_measurement(options.record, rows, **shown)
    for result in results:
        print(tables.of_one(result, options.format or 'text'))
    return 0


if __name__ == '__main__':
    cli.run(main)
