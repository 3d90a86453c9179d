"""The environment that the tests run in: what a person's own says to JAX and to the programs is taken out of it."""

import os
import tempfile

DEVICES = '--xla_force_host_platform_device_count='
# What changes numbers, what is found, or what is printed. Compiled programs alone may have a folder of a person's own.
FOREIGN = (
    'JAX_',
    'CVRESEARCH_',
    'SLURM_',
    'GIT_',
    'CUDA_VISIBLE_',
    'TPU_',
    'PYTHONIOENCODING',
    'PYTHONUTF8',
    'PYTHONWARNINGS',
    'PYTHONOPTIMIZE',
    'PYTHONSAFEPATH',
    'PYTHON_COLORS',
    'FORCE_COLOR',
    'COLUMNS',
    'LC_',
    'LANG',
    'GCE_METADATA_',
    'NO_GCE_CHECK',
    'MPLBACKEND',
)
KEPT = (
    'JAX_COMPILATION_CACHE_DIR',
    'JAX_TRACEBACK_FILTERING',
    'CVRESEARCH_TENSORFLOW_PYTHON',
    'CVRESEARCH_COMPRESSED_SQUEEZENET',
)


# Without the optimisations of LLVM: for programs whose compiling takes longer than their run.
QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


def xla_flags(*flags: str) -> str:
    """Returns XLA_FLAGS with a person's own, such as --xla_cpu_max_isa, and these in place of a number of devices."""
    own = [flag for flag in os.environ.get('XLA_FLAGS', '').split() if not flag.startswith(DEVICES)]
    return ' '.join([*own, *flags])


def fix() -> str | None:
    """Fixes the environment of this process and of those that it starts, before JAX is imported.

    Returns:
      The folder of compiled programs, where it is this call's own.
    """
    for name in list(os.environ):
        if name.startswith(FOREIGN) and name not in KEPT:
            del os.environ[name]
    os.environ['LC_ALL'] = 'C.UTF-8'  # messages of git and of compilers in English, in the order of code points
    # Eight host devices, so that sharding is tested on any machine; one thread each would be another program, so the
    # number of threads is left alone.
    os.environ['XLA_FLAGS'] = xla_flags(f'{DEVICES}8')
    os.environ['JAX_PLATFORMS'] = 'cpu'
    # Many tests compile the same small programs: the second time they are read from here.
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        return None
    os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='cvresearch-tests-')
    return os.environ['JAX_COMPILATION_CACHE_DIR']
