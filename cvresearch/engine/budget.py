"""What a run will cost, told before it is begun: images, multiply-adds, hours on the devices that are here."""

import contextlib
import dataclasses
import statistics
import time

import jax
from ml_collections import ConfigDict

from cvresearch.engine import teacher
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.phases import Phases

UPDATES = 5  # timed, after one that is not


@dataclasses.dataclass(frozen=True)
class Budget:
    """The cost of training; evaluations and checkpoints are not in it.

    Attributes:
      images: that the net sees, each as often as it is seen.
      macs: multiply-adds of all updates; an update counts as three forward passes.
      seconds: of training, at the speed of the first updates here; a phase of other images counts by its multiply-adds.
    """

    images: int
    macs: int
    seconds: float

    @property
    def text(self) -> str:
        """The budget in one line."""
        return (
            f'{self.images:,} images, {self.macs / 1e12:.3g} tera multiply-adds, '
            f'about {self.seconds / 3600:.2g} hours of training here (evaluations and saving not counted)'
        )


def of(config: ConfigDict) -> Budget:
    """Returns the budget of a run; compiles its first update and times some, and writes nothing.

    Raises:
      UserError: as `Experiment.from_config`.
    """
    experiment = Experiment.from_config(config)
    with contextlib.closing(Phases(experiment, teacher.of(experiment))) as phases:
        macs = multiply_adds(phases, experiment.plan.steps)
        first = phases.experiment(0).training_flops() // 2
        seconds = _seconds_of_an_update(experiment, phases) * macs / first
    return Budget(experiment.plan.steps * config.batch_size, macs, seconds)


def multiply_adds(phases: Phases, steps: int) -> int:
    """Returns the multiply-adds of all updates of a run of `steps` steps."""
    begins = [phase.first for phase in phases.phases]
    lengths = [end - begin for begin, end in zip(begins, [*begins[1:], steps], strict=True)]
    return sum(
        phases.experiment(begin).training_flops() // 2 * length for begin, length in zip(begins, lengths, strict=True)
    )


def _seconds_of_an_update(experiment: Experiment, phases: Phases) -> float:
    """Returns the median seconds of an update of the first phase, the making of its batch included."""
    state, seconds = experiment.initial_state(), []
    for step in range(min(UPDATES + 1, experiment.plan.steps)):
        started = time.perf_counter()
        state = jax.block_until_ready(phases.update(step, state, phases.batch(step)))
        seconds.append(time.perf_counter() - started)
    # Without the first, which waits for the compiler; the median, since other programs slow down single updates.
    return statistics.median(seconds[1:] or seconds)
