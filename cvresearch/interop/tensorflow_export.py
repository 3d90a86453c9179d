"""A net as a SavedModel or as a TFLite file, by JAX's own converter `jax2tf` and TensorFlow's.

A SavedModel holds the StableHLO program as one operation, so TensorFlow computes what XLA does. TFLite has operations
of its own, into which TensorFlow translates the program, for one image: of a free batch it translates some programs
alone.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jax

from cvresearch.base.errors import UserError

PLATFORMS = ('cpu', 'cuda', 'tpu')


def to_savedmodel(path: Path, function: Callable, images: jax.ShapeDtypeStruct, result: str) -> None:
    """Writes a folder: `tf.saved_model.load(path).signatures['serving_default'](images=...)`; the batch is free.

    Args:
      path: of the folder.
      function: images -> result, with the weights inside; see `inference.function`.
      images: shape, with a symbol as batch, and type; see `inference.image_spec`.
      result: how it is called, 'logits'.

    Raises:
      UserError: TensorFlow cannot hold the program.
      OSError: the folder cannot be written.
    """
    _save(path, function, (None, *images.shape[1:]), images.dtype, result)


def to_tflite(function: Callable, images: jax.ShapeDtypeStruct, result: str) -> bytes:
    """Returns a TFLite file of one image: input `images` (1, height, width, channels), output `result`.

    Args:
      function: images -> result, with the weights inside.
      images: shape and type; the batch becomes 1.
      result: how it is called, 'logits'.

    Raises:
      UserError: an operation that TensorFlow Lite does not have.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, _quiet():
        place = Path(folder) / 'net'
        _save(place, function, (1, *images.shape[1:]), images.dtype, result)
        try:
            return tf.lite.TFLiteConverter.from_saved_model(str(place), signature_keys=['serving_default']).convert()
        except Exception as error:  # the converter's own are of several kinds
            lines = [line for line in str(error).splitlines() if 'error' in line] or str(error).splitlines()[:1] or ['']
            raise UserError(f'TensorFlow Lite {tf.__version__} cannot hold the net: {lines[0][:300]}') from error


def _save(path: Path, function: Callable, shape: tuple, dtype, result: str) -> None:
    import tensorflow as tf
    from jax.experimental import jax2tf

    free = shape[0] is None
    try:
        converted = jax2tf.convert(
            function,
            with_gradient=False,
            polymorphic_shapes=['(batch, ...)'] if free else None,
            native_serialization_platforms=PLATFORMS if free else ('cpu',),
        )
        module = cast(Any, tf.Module())
        spec = tf.TensorSpec(shape, tf.dtypes.as_dtype(dtype), name='images')
        module.call = tf.function(lambda images: {result: converted(images)}, input_signature=[spec], autograph=False)
        signatures = {'serving_default': module.call.get_concrete_function()}
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
        why = ' '.join(str(error).split())[:300]
        versions = f'TensorFlow {tf.__version__} with JAX {jax.__version__}'
        raise UserError(f'{versions} cannot hold the net: {why}') from error
    try:
        tf.saved_model.save(module, str(path), signatures=signatures)
    except tf.errors.OpError as error:  # 'PATH; No space left on device'
        raise OSError(error.message.rpartition('; ')[2]) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the converter writes to standard error, past Python, out of a terminal."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
