"""The compiler's cache on disk: what was compiled once is read the second time. On by default in every program.

`JAX_COMPILATION_CACHE_DIR` names another folder, and `JAX_ENABLE_COMPILATION_CACHE=false` does without. JAX keeps
what took a second or longer to compile, under a digest of the program, of the compiler's version and of its options.
"""

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

VARIABLE = 'JAX_COMPILATION_CACHE_DIR'
EVENTS = {'/jax/compilation_cache/cache_hits': 'cached', '/jax/compilation_cache/cache_misses': 'compiled'}


def folder() -> Path:
    """Returns where compiled programs are kept: in the user's cache folder, apart for each kind of processor.

    Code compiled for one processor may not run on another, and many machines can share a home directory.
    """
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text(encoding='utf-8').splitlines() if cpuinfo.exists() else []
    features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    kind = hashlib.sha256(f'{platform.machine()} {features}'.encode()).hexdigest()[:8]
    root = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return root / 'cvresearch' / 'compiled' / kind


def keep_compiled() -> None:
    """Has JAX keep what it compiles, unless the environment says where or that it should not."""
    if VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = str(folder())
    if 'jax' in sys.modules:  # it has read the environment already
        sys.modules['jax'].config.update('jax_compilation_cache_dir', os.environ[VARIABLE])


@contextlib.contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Yields {'cached', 'compiled'}: how many programs are read from the cache, and compiled, while the block lasts."""
    from jax import monitoring

    counts = dict.fromkeys(EVENTS.values(), 0)

    def count(event: str, **_) -> None:
        if event in EVENTS:
            counts[EVENTS[event]] += 1

    monitoring.register_event_listener(count)
    try:
        yield counts
    finally:
        monitoring.unregister_event_listener(count)


@contextlib.contextmanager
def empty() -> Iterator[None]:
    """Gives the block a cache of its own, empty at first, that keeps everything: to measure starts cold and warm."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    keys = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')
    before = [getattr(jax.config, key) for key in keys]
    with tempfile.TemporaryDirectory() as path:
        try:
            _configure(keys, (path, 0.0))
            compilation_cache.reset_cache()
            jax.clear_caches()
            yield
        finally:
            _configure(keys, before)
            compilation_cache.reset_cache()


def _configure(keys, values) -> None:
    import jax

    for key, value in zip(keys, values, strict=True):
        jax.config.update(key, value)
