"""What an update costs on a machine that is not here: memory, bytes, operations, and the least time they take."""

import dataclasses
from collections.abc import Iterator

from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.base.machines import Machine
from cvresearch.data import resizing
from cvresearch.engine import memory_plan, phases
from cvresearch.engine.experiment import Experiment
from cvresearch.inspect import hlo, traffic

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Compiled:
    """An update as a machine's compiler made it.

    Attributes:
      text: of the optimised program of one device.
      arguments: bytes of a device's memory that the state and the batch take.
      outputs: that the new state takes where it does not lie in the old one's place.
      temporaries: that come and go within an update.
      fits: whether the compiler found room for all of it.
      seconds: from the launch of the compiling process.
    """

    text: str
    arguments: int
    outputs: int
    temporaries: int
    fits: bool
    seconds: float

    @property
    def total(self) -> int:
        """All of the memory."""
        return self.arguments + self.outputs + self.temporaries


def of(config: ConfigDict, target: Machine, compiled: Compiled) -> dict:
    """Returns what an update costs on a machine for which it is compiled. Bytes and seconds are of one device.

    Args:
      config: of the run, with images of one size.
      target: the machine.
      compiled: the update.

    Raises:
      UserError: the run cannot be made on so many devices.
    """
    experiment = memory_plan.experiment_for(config, target.devices)
    program = hlo.parse(compiled.text)
    moved = traffic.traffic(program, on_chip=target.chip.platform == 'tpu')
    sent = traffic.collectives(program)
    images = experiment.plan.batch_size / experiment.mesh.size
    flops = operations(experiment)
    times = dict(
        arithmetic=flops * images / target.chip.flops[config.dtype],
        hbm=moved.padded / target.chip.hbm,
        links=sum(collective.wire_bytes for collective in sent) / target.chip.link,
    )
    least = max(times.values())
    return dict(
        machine=target.name,
        devices=experiment.mesh.size,
        model=config.model.name,
        dtype=config.dtype,
        batch_size=experiment.plan.batch_size,
        images_per_device=images,
        accumulate=experiment.recipe.accumulate,
        data=experiment.mesh.shape['data'],
        shard=experiment.mesh.shape['shard'],
        remat=config.remat,
        fits=compiled.fits,
        memory=_memory(experiment, compiled, target),
        temp_bytes=compiled.temporaries,
        hbm_bytes_per_image=round(moved.hbm / images),
        hbm_bytes_per_image_padded=round(moved.padded / images),
        flops_per_image=flops,
        collectives=[dataclasses.asdict(collective) for collective in sent],
        estimated_cycles=moved.cycles,
        seconds=times,
        bound_by=max(times, key=times.__getitem__),
        least_step_seconds=least,
        least_epoch_seconds=least * experiment.plan.steps_per_epoch,
        most_images_per_second=experiment.plan.batch_size / least,
        compile_seconds=compiled.seconds,
    )


def of_largest_images(config: ConfigDict, target: Machine) -> ConfigDict:
    """Returns the configuration of a run with progressive resizing as if all of it had its largest images."""
    experiment = memory_plan.experiment_for(config, target.devices)
    plan = experiment.plan
    phase = max(resizing.make(config.resize, plan.all_steps, plan.steps_per_epoch), key=lambda part: part.size or 0)
    if phase.size is None and not phase.values:
        return config
    return phases.config_of(config, phase, experiment.source.encoded)


def operations(experiment: Experiment) -> int:
    """Returns the floating-point operations of an image in an update; blocks that are computed anew count again."""
    flops = experiment.training_flops() // experiment.plan.batch_size
    return flops * 4 // 3 if experiment.config.remat else flops  # three passes become four


def _memory(experiment: Experiment, compiled: Compiled, target: Machine) -> dict[str, int]:
    """Returns the bytes of a device by kind: as compiled, and what of it is whose by the shapes of the state."""
    need = memory_plan.of(experiment, kept=0)
    return dict(
        total=compiled.total,
        limit=target.chip.memory,
        arguments=compiled.arguments,
        outputs=compiled.outputs,
        temporaries=compiled.temporaries,
        parameters=need.params,
        optimizer=need.optimizer,
        averages=need.average,
    )


def missing(forecast: dict) -> int:
    """Returns the bytes by which a forecast's update is larger than a device's memory; 0 where it fits."""
    return max(forecast['memory']['total'] - forecast['memory']['limit'], 0 if forecast['fits'] else 1)


def complaint(config: ConfigDict, target: Machine, forecast: dict) -> str:
    """Returns one line that says how much is missing, and what would mend it."""
    limit, cures = forecast['memory']['limit'] / GIB, list(remedies(config, target, forecast))
    hint = (
        f'would fit by estimate: {", or ".join(cures)}'
        if cures
        else (
            'neither a smaller batch, config.remat=True nor a larger config.mesh.shard would mend it; take more devices'
        )
    )
    return (
        f'{config.model.name} with batch {forecast["batch_size"]} does not fit {target.name}: it needs '
        f'{forecast["memory"]["total"] / GIB:.2f} GiB of each device, which has {limit:.2f}: '
        f'{missing(forecast) / GIB:.2f} GiB are missing; {hint}'
    )


def remedies(config: ConfigDict, target: Machine, forecast: dict) -> Iterator[str]:
    """Yields changes with which an update that does not fit would: the smallest of each kind.

    They are estimated from shapes, in proportion to what the compiled update needs beyond its state.
    """
    here = _estimate(config, target, {})
    if here is None:
        return
    factor = forecast['memory']['temporaries'] / max(sum(here) - here[0], 1)
    for changes in _kinds(config, forecast['devices']):
        for change in changes:
            then = _estimate(config, target, change)
            if then and then[0] + then[1] * factor <= forecast['memory']['limit']:
                yield ' '.join(f'--config.{key}={value}' for key, value in change.items())
                break


def _kinds(config: ConfigDict, devices: int) -> Iterator[list[dict]]:
    """Yields the changes of each kind, the smallest first."""
    sizes, size = [], config.batch_size // 2
    now = config.updates.get('accumulate', 1)
    while size >= devices * now and size % (devices * now) == 0:
        sizes.append(size)
        size //= 2
    yield [dict(batch_size=size) for size in sizes]
    parts = [2**power for power in range(1, 10)]
    yield [
        {'updates.accumulate': now * number} for number in parts if config.batch_size % (devices * now * number) == 0
    ]
    if not config.remat:
        yield [dict(remat=True)]
    shards = [2**power for power in range(1, 10) if devices % 2**power == 0]
    yield [{'mesh.shard': shard} for shard in shards if shard > config.mesh.shard]


def _estimate(config: ConfigDict, target: Machine, changes: dict) -> tuple[int, int] | None:
    """Returns the bytes of the state and of all else, by shapes; None where a run cannot be made so."""
    config = config.copy_and_resolve_references()
    try:
        for key, value in changes.items():
            configs.override(config, key, str(value))
        need = memory_plan.of(memory_plan.experiment_for(config, target.devices))
    except UserError:
        return None
    state = need.params + need.optimizer + need.average
    return state, need.total - state
