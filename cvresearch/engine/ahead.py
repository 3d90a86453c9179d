"""Compiles the update of a run for a machine that is not here, by that machine's own compiler, in a process of its own.

The process dumps the program with its buffers. They are known long before machine code is made, which a caller need not
wait for; and where the compiler aborts, it takes no caller with it.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import RunError
from cvresearch.base.machines import Machine, machine
from cvresearch.engine import forecast, memory_plan, teacher
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.forecast import Compiled

MODULE = 'jit_train_step'
OPTIMIZED = '*after_optimizations.txt'  # the scheduled program
BUFFERS = '*after_optimizations-buffer-assignment.txt'
BEFORE_CODE = '*after_optimizations_after_buffer_assignment.txt'  # of a TPU, once its buffers fit
GENERATED = '*after_codegen.txt'  # of a TPU, the program with its cycles
TOO_LARGE = 'RESOURCE_EXHAUSTED'
_ALLOCATION = re.compile(r'^allocation \d+: size (\d+),(?: color (\d+),)? (.*)$', re.M)


def forecast_of(config: ConfigDict, target: Machine, early: bool = False) -> dict:
    """Returns what the update of a run costs on a machine; see `forecast.of` and `compile_step`."""
    config = forecast.of_largest_images(config, target)
    return forecast.of(config, target, compile_step(config, target, early))


def compile_step(config: ConfigDict, target: Machine, early: bool = False) -> Compiled:
    """Returns the update of a run, compiled for a machine.

    Args:
      config: of the run.
      target: the machine, whose compiler is installed.
      early: stop before machine code is made; a GPU's compiler is not stopped.

    Raises:
      RunError: the compiler fails for another reason than too little memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'config.json').write_text(configs.to_json(config), encoding='utf-8')
        command = [sys.executable, '-m', 'cvresearch.engine.ahead', folder, target.name]
        return compile_by(command, Path(folder), target, early)


def compile_by(command: list[str], path: Path, target: Machine, early: bool = False) -> Compiled:
    """Returns a function that another process compiles, from what its compiler dumps.

    Args:
      command: of the process, which compiles a jitted function `train_step` for the machine.
      path: a folder for it alone.
      target: the machine.
      early: as of `compile_step`.

    Raises:
      RunError: as of `compile_step`.
    """
    started = time.perf_counter()
    with open(path / 'log', 'w', encoding='utf-8') as log:
        process = subprocess.Popen(command, env=_environment(path), stdout=log, stderr=log)
    try:
        stopped = _wait(process, path, early and target.chip.platform == 'tpu')
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    text = (path / 'log').read_text(encoding='utf-8', errors='replace')
    fits = stopped or process.returncode == 0
    if not fits and not (TOO_LARGE in text and _dumped(path, BUFFERS)):
        last = (text.strip().splitlines() or ['no word'])[-1]
        raise RunError(f'the compiler for {target.name} ended with code {process.returncode}: {last}')
    program = (_dumped(path, GENERATED) or _dumped(path, OPTIMIZED))[-1].read_text(encoding='utf-8')
    sizes = _sizes(_dumped(path, BUFFERS)[-1].read_text(encoding='utf-8'), target.chip.platform == 'tpu')
    fits = fits and sum(sizes.values()) <= target.chip.memory
    return Compiled(program, **sizes, fits=fits, seconds=time.perf_counter() - started)


def _environment(path: Path) -> dict[str, str]:
    dump = f'--xla_dump_to={path} --xla_dump_hlo_as_text=true --xla_dump_hlo_module_re={MODULE}'
    # The host's own devices are left alone: the compiler is told what the machine is.
    return os.environ | dict(
        JAX_PLATFORMS='cpu',
        JAX_ENABLE_COMPILATION_CACHE='false',
        XLA_FLAGS=dump,
        TPU_SKIP_MDS_QUERY='1',
        ALLOW_MULTIPLE_LIBTPU_LOAD='1',
        TPU_LOG_DIR='disabled',
    )


def _wait(process: subprocess.Popen, path: Path, early: bool) -> bool:
    """Waits until a process has ended, or is killed since what is wanted of it is there; whether it was killed."""
    sizes: list[int] = []
    while process.poll() is None:
        written = [file.stat().st_size for pattern in (BEFORE_CODE, BUFFERS) for file in _dumped(path, pattern)]
        if early and len(written) == 2 and min(written) > 0 and written == sizes:  # and no longer written
            process.kill()
            process.wait()
            return True
        sizes = written
        time.sleep(0.5)
    return False


def _dumped(path: Path, pattern: str) -> list[Path]:
    return sorted(path.glob(f'*{MODULE}.{pattern}'))


def _sizes(buffers: str, on_chip: bool) -> dict[str, int]:
    """Returns the bytes of a buffer assignment by kind; what is on the chip is not counted."""
    sizes = dict(arguments=0, outputs=0, temporaries=0)
    for size, color, what in _ALLOCATION.findall(buffers):
        if (on_chip and int(color or 0) > 0) or 'thread-local' in what:
            continue
        kind = 'arguments' if 'parameter' in what else 'outputs' if 'maybe-live-out' in what else 'temporaries'
        sizes[kind] += int(size)
    return sizes


def devices_of(target: Machine) -> list:
    """Returns the devices of a machine, for compiling alone."""
    from jax.experimental import topologies

    if target.chip.platform == 'cuda':
        # GPUs are numbered by slices, hosts, and devices of a host.
        topology, facts = f'1x1x{target.shape}', dict(target_config=target.chip.target)
        return list(topologies.get_topology_desc('', platform='cuda', topology=topology, **facts).devices)
    # A host has four chips, unless it is said that it has one.
    alone = dict(chips_per_host_bounds=(1, 1, 1)) if target.devices == 1 else {}
    name = f'{target.name.partition(":")[0].lower()}:{target.shape}'
    return list(topologies.get_topology_desc(name, platform='tpu', **alone).devices)


def _compile(path: Path, target: Machine) -> None:
    """Compiles, in the process that is there for it."""
    config = configs.from_json((path / 'config.json').read_text(encoding='utf-8'))
    shape = meshes.Layout.of_config(config, target.devices).mesh.axis_sizes
    devices = np.array(devices_of(target))[: shape[0] * shape[1]]
    mesh = Mesh(devices.reshape(shape), meshes.AXES)
    experiment = memory_plan.experiment_for(config, target.devices, mesh)
    step = experiment.train_step(teacher.of(experiment))
    traced = step.trace(experiment.abstract_state(), batch_of(experiment))
    traced.lower(lowering_platforms=(target.chip.platform,)).compile()


def batch_of(experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a training batch."""
    several = (1,) if experiment.task.several else ()  # labels of an image, filled up
    number = dict.fromkeys(('epoch', 'index'), jnp.zeros((1,), jnp.int32))
    image = jax.ShapeDtypeStruct((1, *experiment.source.facts.image_shape), jnp.uint8)
    one = dict(image=image, label=jnp.zeros((1, *several), jnp.int32), **number)
    return meshes.shapes_of(one, experiment.plan.batch_size, experiment.mesh)


if __name__ == '__main__':
    _compile(Path(sys.argv[1]), machine(sys.argv[2]))
