"""Machines that need not be here: their peaks, and their compilers' names for them.

Peaks are from public data sheets. A TPU is v5e:ROWSxCOLUMNS or v5e:CHIPS, GPUs are h100:NUMBER of one host.
"""

import dataclasses
import importlib.util
import math
import os

from cvresearch.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device.

    Attributes:
      platform: 'tpu' or 'cuda'.
      flops: operations a second by the dtype of the computation, without sparsity. In float32 as JAX multiplies by
        default: rounded to bfloat16 on a TPU, to TensorFloat-32 on a GPU.
      hbm: bytes a second.
      link: bytes a second out of a device to the others, over all its links in one direction.
      memory: bytes that a program may use.
      shapes: of the slices that exist, for a TPU; numbers of devices, for a GPU.
      source: where the numbers are from.
      target: of a GPU, what XLA asks about it.
    """

    platform: str
    flops: dict[str, float]
    hbm: float
    link: float
    memory: int
    shapes: tuple[str, ...]
    source: str
    target: str = ''


# Of a GPU's memory JAX takes so much, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
JAX_SHARE = float(os.environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.75'))
# A compute capability 9.0 device with 132 multiprocessors; the name and the memory differ.
_HOPPER = """gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {hbm} l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: {memory} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 minor: 0 }} registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
runtime_version {{ major: 13 minor: 0 }}
device_description_str: "{name}"
"""


def _tpu(flops: float, hbm: float, link: float, memory: float, source: str) -> Chip:
    shapes = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
    return Chip('tpu', dict.fromkeys(('bfloat16', 'float32'), flops), hbm, link, int(memory), shapes, source)


def _hopper(name: str, hbm: float, memory: int) -> Chip:
    target = _HOPPER.format(hbm=int(hbm), memory=memory, name=name)
    flops = dict(bfloat16=989.4e12, float32=494.7e12)
    shapes = tuple(map(str, range(1, 9)))
    usable = int(memory * JAX_SHARE)
    return Chip('cuda', flops, hbm, 450e9, usable, shapes, f'NVIDIA {name.split()[1]} SXM data sheet', target)


CHIPS = {
    # As libtpu has it, a program has 15.75 of a v5e's 16 GiB, and 31.25 of a v6e's 32.
    'v5e': _tpu(197e12, 819e9, 200e9, 15.75 * 2**30, 'cloud.google.com/tpu/docs/v5e'),
    'v6e': _tpu(918e12, 1640e9, 448e9, 31.25 * 2**30, 'cloud.google.com/tpu/docs/v6e'),
    'h100': _hopper('NVIDIA H100 80GB HBM3', 3.35e12, 84_942_979_072),
    'h200': _hopper('NVIDIA H200', 4.8e12, 150_000_000_000),
}
# By platform: the modules that its compiler is in, and the extra of this package that brings them.
COMPILERS = {'tpu': (('libtpu',), 'tpu'), 'cuda': (('jax_plugins.xla_cuda13', 'jax_cuda13_plugin'), 'plan')}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices of one kind that are linked.

    Attributes:
      name: as it is asked for, 'v5e:2x4'.
      chip: each of them.
      shape: of a TPU's slice, or the number of GPUs.
      devices: how many.
    """

    name: str
    chip: Chip
    shape: str
    devices: int


def machine(name: str) -> Machine:
    """Returns the machine of a name: 'v5e:2x4', 'v5e:8' (the same), 'h100:8'.

    Raises:
      UserError: an unknown one.
    """
    kind, _, size = name.lower().partition(':')
    chip = CHIPS.get(kind)
    if chip:
        for shape in chip.shapes:
            devices = math.prod(map(int, shape.split('x')))
            if size in (shape, str(devices)):
                return Machine(name, chip, shape, devices)
    known = (f'{kind}:{{{",".join(chip.shapes)}}}' for kind, chip in CHIPS.items())
    raise UserError(f'unknown machine {name!r}; known: {", ".join(known)}')


def check_compiler(chip: Chip) -> None:
    """Raises UserError where the compiler of a chip is not installed."""
    modules, extra = COMPILERS[chip.platform]
    for module in modules:
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # the package around it
            spec = None
        if not spec:
            raise UserError(
                f'compiling for {chip.platform.upper()} needs the package {module.split(".")[-1]}, which is not '
                f'installed: pip install "cvresearch[{extra}]" (no device is needed)'
            )
