"""Memory: what a device has of it, and what the C library keeps instead of giving it back."""

import ctypes
import functools
import mmap
import os
import resource
from importlib import metadata, util
from pathlib import Path

DEV = Path('/dev')
# By a part of the name of JAX's plugin: what an accelerator that it can drive has in DEV.
DRIVERS = {'cuda': ('nvidia[0-9]*', 'dxg'), 'rocm': ('kfd',), 'tpu': ('accel[0-9]*', 'vfio/[0-9]*')}
_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8  # of glibc's malloc.h
HUGE_PAGES = 'CVRESEARCH_HUGE_PAGES'  # environment variable: 0 leaves pages as they are
_TRANSPARENT = Path('/sys/kernel/mm/transparent_hugepage')
_OVERCOMMIT = Path('/proc/sys/vm/overcommit_memory')


def of_device(device, sharing: int = 1) -> int:
    """Returns the bytes that a JAX device has for this process.

    Args:
      device: whose own account is taken, where it gives one; a share of this host's memory otherwise.
      sharing: devices of this host among which that is divided.
    """
    limit = (device.memory_stats() or {}).get('bytes_limit')
    return limit or os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // sharing


def has_accelerator() -> bool:
    """Whether the devices that JAX will take for this process are others than CPUs, asked without starting it.

    A plugin that is installed does not say so, as compilers are used without their devices: the device must be there.
    Of a plugin that is not known it is believed to be.
    """
    if platforms := os.environ.get('JAX_PLATFORMS'):
        return any(name.strip() != 'cpu' for name in platforms.split(','))
    plugins = [entry.name for entry in metadata.entry_points(group='jax_plugins')]
    plugins += ['tpu'] if util.find_spec('libtpu') else []
    for plugin in plugins:
        patterns = next((patterns for name, patterns in DRIVERS.items() if name in plugin), None)
        if patterns is None or any(True for pattern in patterns for _ in DEV.glob(pattern)):
            return True
    return False


@functools.cache
def keep_freed_pages() -> bool:
    """Has freed memory used again by this process, until it ends, where all devices are CPUs; returns whether it is so.

    A step compiled for CPU asks for hundreds of megabytes and frees them at its end. By default glibc returns such
    blocks to the system, which must clear every page anew for the next step: half of the time of some nets. What is
    kept lies in huge pages, where the system gives them to whoever asks; `HUGE_PAGES` in the environment says not to.
    To be called before JAX starts its threads, since each may have got an allocator of its own.
    """
    if has_accelerator():
        return False
    try:
        library = ctypes.CDLL(None)
        options = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))
        accepted = [library.mallopt(*option) for option in options]
    except (OSError, AttributeError, TypeError):  # another C library
        return False
    if all(accepted) and _huge_pages_are_to_be_asked_for():
        _ask_for_huge_pages(library)
    return all(accepted)


def _huge_pages_are_to_be_asked_for() -> bool:
    """Whether the system gives huge pages to whoever asks, and lets a process reserve more memory than it uses."""
    if os.environ.get(HUGE_PAGES, '1') == '0' or not hasattr(mmap, 'MADV_HUGEPAGE'):
        return False
    limits = [resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    try:
        on_advice = '[madvise]' in (_TRANSPARENT / 'enabled').read_text(encoding='ascii')
        overcommits = _OVERCOMMIT.read_text(encoding='ascii').strip() != '2'
    except OSError:
        return False
    return on_advice and overcommits and set(limits) == {resource.RLIM_INFINITY}


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """Has the heap, as far as half of this host's memory, lie in pages of 2 MiB: fewer misses of the TLB, fewer faults.

    Advice holds for addresses that are there, so the heap is made that long first. Of what is not used then, no page is
    ever there. (glibc.malloc.hugetlb=1 does the same, but is read before a process starts.)
    """
    size = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = library.malloc(size)
    if block:
        start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        library.madvise(start, (block + size - start) // mmap.PAGESIZE * mmap.PAGESIZE, mmap.MADV_HUGEPAGE)
        library.free(block)
