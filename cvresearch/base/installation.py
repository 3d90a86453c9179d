"""What is installed and how the machine is set up, against what JAX and the package ask for; JAX is not imported."""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).parents[2] / 'pyproject.toml'
# The oldest NVIDIA driver for the CUDA that JAX's packages bring (docs.jax.dev, installation).
DRIVERS = {'12': 525, '13': 580}
PLUGIN = re.compile(r'jax-cuda(\d+)-(?:plugin|pjrt)')


def required() -> list[str]:
    """Returns what the package needs, 'flax>=0.12' each: of the clone that runs, or as it was installed."""
    if PROJECT.is_file():
        return tomllib.loads(PROJECT.read_text(encoding='utf-8'))['project']['dependencies']
    return metadata.requires('cvresearch') or []


def unmet(requirements: Iterable[str], extra: str = '') -> list[str]:
    """Returns a phrase for each requirement that no installed package meets.

    Args:
      requirements: as packages state them, 'jaxlib<=0.10.2,>=0.10.1'.
      extra: whose requirements count too, 'tpu'.
    """
    from packaging.requirements import Requirement

    missing = []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({'extra': extra}):
            continue
        installed = version(requirement.name)
        if installed is None:
            missing.append(f'{requirement.name} is missing')
        elif not requirement.specifier.contains(installed, prereleases=True):
            missing.append(f'{requirement.name} is {installed}, expected {requirement.specifier}')
    return missing


def version(package: str) -> str | None:
    """Returns the version of an installed package, None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cuda_plugins() -> dict[str, str]:
    """Returns the versions of JAX's installed plugins for CUDA by name, {'jax-cuda13-plugin': '0.10.2'}."""
    names = {
        _normal(distribution.metadata['Name'] or ''): distribution.version for distribution in metadata.distributions()
    }
    return {name: number for name, number in sorted(names.items()) if PLUGIN.fullmatch(name)}


def bad_combinations(
    plugins: dict[str, str], jaxlib: str | None, driver: str | None, library_path: str = ''
) -> Iterator[str]:
    """Yields a line for each combination with which JAX is known not to use a GPU, or to use it wrongly.

    Args:
      plugins: as `cuda_plugins` returns them.
      jaxlib: its version.
      driver: the version of NVIDIA's, '580.65.06'; None if there is none.
      library_path: the environment variable LD_LIBRARY_PATH.
    """
    for name, number in plugins.items():
        if number != jaxlib:
            yield f'{name} {number} beside jaxlib {jaxlib}: JAX leaves the plugin out; install the same version of both'
    cudas = sorted({match[1] for match in map(PLUGIN.fullmatch, plugins) if match})
    if len(cudas) > 1:
        yield f'plugins for CUDA {" and ".join(cudas)}: JAX takes one by chance; uninstall those of CUDA {cudas[0]}'
    for cuda in cudas[-1:]:
        least = DRIVERS.get(cuda)
        if driver and least and int(driver.partition('.')[0]) < least:
            yield f'NVIDIA driver {driver} is too old for CUDA {cuda}: expected {least} or newer'
    if plugins and any('cuda' in folder.lower() or 'cudnn' in folder.lower() for folder in library_path.split(':')):
        yield f"LD_LIBRARY_PATH={library_path} puts another CUDA before the one of JAX's packages; unset it"


def nvidia_driver(file: Path = Path('/proc/driver/nvidia/version')) -> str | None:
    """Returns the version of NVIDIA's kernel driver, None if there is none."""
    if not file.exists():
        return None
    match = re.search(r'Module.*?\s(\d+(?:\.\d+)+)', file.read_text(encoding='utf-8', errors='replace'))
    return match[1] if match else None


def accelerators() -> list[str]:
    """Returns the device files of GPUs and TPUs on this machine, whatever JAX makes of them."""
    from cvresearch.base import metadata as google

    tpus = [*Path('/dev').glob('accel[0-9]*')]
    if google.server():  # elsewhere a vfio group may be any device
        tpus += Path('/dev/vfio').glob('[0-9]*')
    return sorted(map(str, [*Path('/dev').glob('nvidia[0-9]*'), *tpus]))


def memory_limit() -> int:
    """Returns the bytes of memory that this process may use: of the machine, or of its control group, if less."""
    physical = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    for file in ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'):
        if Path(file).exists() and (text := Path(file).read_text(encoding='utf-8').strip()).isdecimal():
            return min(physical, int(text))
    return physical


def _normal(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()
