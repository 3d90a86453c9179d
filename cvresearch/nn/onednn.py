"""Convolutions and matrix products by oneDNN, a library of machine code for CPUs that jaxlib has within it.

XLA hands it what is called by one of two names. They are of XLA's own use and may change with any version, so they are
only called where the version of jaxlib is one that the tests have run; elsewhere `available` is false.

XLA cannot write a program with such calls to a file: it reads memory that is not there. So such programs stay out of
JAX's cache on disk and are compiled anew in every process.
"""

import functools
import json
import os
import platform

import jax
from jaxlib import version

TESTED = ('0.10.2',)  # versions of jaxlib with which tests/nn/test_conv.py has passed
_PREFIX = '__onednn$'


@functools.cache
def available() -> bool:
    """Whether jaxlib is known to have oneDNN; `CVRESEARCH_ONEDNN=0` in the environment does without."""
    here = platform.system() == 'Linux' and platform.machine() == 'x86_64'
    return here and version.__version__ in TESTED and os.environ.get('CVRESEARCH_ONEDNN') != '0'


def convolution(
    x: jax.Array, kernel: jax.Array, padding, strides=(1, 1), dilation=(1, 1), groups: int = 1, axes: str = 'HWIO'
) -> jax.Array:
    """Returns the convolution of float32 images with a kernel, (batch, height', width', features).

    Args:
      x: (batch, height, width, channels).
      kernel: its depth is channels / groups.
      padding: ((top, bottom), (left, right)), none negative.
      strides: vertical and horizontal.
      dilation: distance between taps, vertical and horizontal.
      groups: of channels.
      axes: which of the kernel's are its height, width, depth (I) and features (O).
    """
    *size, depth, features = (axes.index(axis) for axis in 'HWIO')
    filters = dict(input_feature_dim=depth, output_feature_dim=features, spatial_dims=size)
    maps = dict(dims=4, data=dict(batch_dim=0, feature_dim=3, spatial_dims=[1, 2]))
    before, after = zip(*padding, strict=True)
    window = dict(pad_left=before, pad_right=after, strides=strides, window_dilations=dilation)
    layouts = dict(input=maps, kernel=dict(dims=4, filter=filters), output=maps)
    height_width = [kernel.shape[axis] for axis in size]
    config = dict(dims=4, **layouts, window=window | dict(size=height_width), feature_groups=groups)
    along = zip(x.shape[1:3], height_width, padding, strides, dilation, strict=True)
    height, width = ((n + sum(pad) - (k - 1) * gap - 1) // step + 1 for n, k, pad, step, gap in along)
    shape = (x.shape[0], height, width, kernel.shape[features])
    return _call('convolution', dict(onednn_conv_config=config), shape, x, kernel)


def turned_product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns left.T @ right of two float32 matrices."""
    shape = (left.shape[1], right.shape[1])
    return _call('matmul', dict(onednn_matmul_config=dict(transpose_a=True)), shape, left, right)


def _call(name: str, config: dict, shape: tuple[int, ...], *operands: jax.Array) -> jax.Array:
    _keep_out_of_cache()
    result, config_text = jax.ShapeDtypeStruct(shape, operands[0].dtype), json.dumps(config)
    call = jax.ffi.ffi_call(_PREFIX + name, result, custom_call_api_version=1, legacy_backend_config=config_text)
    return call(*operands)


@functools.cache
def _keep_out_of_cache() -> None:
    """Has JAX not write programs that call oneDNN into its cache on disk."""
    from jax._src import compilation_cache  # there is no public way

    write = compilation_cache.put_executable_and_time

    def write_others(key, name, executable, *rest):
        if any(_PREFIX in module.to_string() for module in executable.hlo_modules()):
            jax.monitoring.record_event('/jax/compilation_cache/cache_misses')  # as the other does
        else:
            write(key, name, executable, *rest)

    compilation_cache.put_executable_and_time = write_others
