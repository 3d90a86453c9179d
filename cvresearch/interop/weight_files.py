"""Files of weights: named arrays, read from the formats in which libraries publish them.

A file is data from a stranger: nothing in it is ever executed, and one that is damaged, of another
format, or hostile is an error of one line with nothing half loaded.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import ml_dtypes  # noqa: F401  (teaches NumPy the name bfloat16, which safetensors asks for)
import numpy as np
import safetensors.numpy

from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.interop import keras_files, torch_files
from cvresearch.interop.archives import open_zip

# What data parallelism and compilation put before every name.
PREFIXES = ('module.', '_orig_mod.')


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file of weights by their names in it; bfloat16 comes as float32.

    State dicts inside training checkpoints ('state_dict', 'model', 'state_dict_ema') are found, and
    a 'module.' before every name is taken off. Arrays may be read-only.

    Args:
      path: ends in .safetensors, .pth, .pt, .bin (PyTorch), .npz, .h5 or .keras (Keras).

    Raises:
      UserError: no such file, another format, damaged, or more than weights.
    """
    path = local(path, 'the weights file')
    kind, reader = _by_suffix(path, READERS, 'read')
    if not path.is_file():
        raise UserError(f'no weights file {str(path)!r}')
    try:
        tensors = reader(path)
    except Exception as error:  # whatever a parser meets in a damaged file
        why = f'{error}' if isinstance(error, ValueError) else f'damaged or cut off ({type(error).__name__}: {error})'
        raise UserError(f'cannot read {path} as {kind}: {" ".join(why.split())}') from error
    while prefix := _prefix_of_all(tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _prefix_of_all(names: Iterable[str]) -> str | None:
    names = tuple(names)
    return next((prefix for prefix in PREFIXES if names and all(name.startswith(prefix) for name in names)), None)


def write(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes arrays under their names; the file is at every instant the old one or the new one.

    Args:
      path: ends in .safetensors or .npz.
      tensors: arrays by name.
      metadata: kept beside them; an .npz file has no place for it.

    Raises:
      UserError: another ending, or the file cannot be written.
    """
    path = local(path, 'the weights file')
    _, writer = _by_suffix(path, WRITERS, 'write')
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        # Safetensors would take the memory of a strided array as it lies.
        writer(temporary, {name: np.asarray(tensor, order='C') for name, tensor in tensors.items()}, metadata)
        os.replace(temporary, path)
    except (OSError, safetensors.SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f'cannot write {path}: {error}') from error


def _by_suffix(path: Path, table: Mapping[str, tuple[str, Callable]], verb: str) -> tuple[str, Callable]:
    if path.suffix not in table:
        raise UserError(f'cannot {verb} weights in {str(path)!r}: its name ends in none of {", ".join(table)}')
    return table[path.suffix]


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    tensors = safetensors.numpy.load_file(path)
    return {
        name: tensor.astype(np.float32) if tensor.dtype == 'bfloat16' else tensor for name, tensor in tensors.items()
    }


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with open_zip(path), np.load(path, allow_pickle=False) as file:
        return {name: _number(name, file[name]) for name in file.files}


def _number(name: str, array) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in 'fiub':
        raise ValueError(f'{name!r} is no array of numbers')
    return array


def _write_safetensors(path: Path, tensors: dict[str, np.ndarray], metadata: Mapping[str, str] | None) -> None:
    safetensors.numpy.save_file(tensors, path, dict(metadata) if metadata else None)


def _write_npz(path: Path, tensors: dict[str, np.ndarray], metadata: Mapping[str, str] | None) -> None:
    with open(path, 'wb') as file:
        np.savez(file, **tensors)


_TORCH, _SAFETENSORS, _NPZ = 'a file of PyTorch', 'a file of safetensors', 'an archive of NumPy'
READERS: dict[str, tuple[str, Callable[[Path], dict[str, np.ndarray]]]] = {
    '.safetensors': (_SAFETENSORS, _read_safetensors),
    '.pth': (_TORCH, torch_files.read),
    '.pt': (_TORCH, torch_files.read),
    '.bin': (_TORCH, torch_files.read),
    '.npz': (_NPZ, _read_npz),
    '.h5': ('an HDF5 file of Keras', keras_files.read_h5),
    '.keras': ('a .keras file', keras_files.read_keras),
}
WRITERS: dict[str, tuple[str, Callable[[Path, dict, Mapping | None], None]]] = {
    '.safetensors': (_SAFETENSORS, _write_safetensors),
    '.npz': (_NPZ, _write_npz),
}
