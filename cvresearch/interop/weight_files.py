"""Files of weights: named arrays, read from the formats in which libraries publish them.

A file is data from a stranger: nothing in it is ever executed, and one that is damaged, of another
format, or hostile is an error of one line with nothing half loaded.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy

from cvresearch.base.errors import RunError, UserError
from cvresearch.base.paths import local
from cvresearch.interop import deep_compression, foreign, numbers, shards, state_dicts, torch_files, torch_writer
from cvresearch.interop.archives import open_zip

Arrays = dict[str, np.ndarray]
Read = tuple[Arrays, list[str]]
# The types of safetensors that its own reader gives as arrays of NumPy, and the others.
_PLAIN = {
    'F64': 'f8',
    'F32': 'f4',
    'F16': 'f2',
    'I64': 'i8',
    'I32': 'i4',
    'I16': 'i2',
    'I8': 'i1',
    'U64': 'u8',
    'U32': 'u4',
    'U16': 'u2',
    'U8': 'u1',
    'BOOL': '?',
}
_TYPES = _PLAIN | {
    'BF16': 'bfloat16',
    'F8_E4M3': 'float8_e4m3fn',
    'F8_E5M2': 'float8_e5m2',
    'F8_E8M0': 'float8_e8m0fnu',
    'F8_E4M3FNUZ': 'float8_e4m3fnuz',
    'F8_E5M2FNUZ': 'float8_e5m2fnuz',
}


def say(note: str) -> None:
    """Prints a note for a person."""
    print(f'note: {note}', file=sys.stderr)


def read(path: str | Path, note: Callable[[str], None] = say) -> Arrays:
    """Returns the arrays of a file of weights by their names in it; bfloat16 and float8 come as float32.

    The first bytes of a file decide its format, not its name. State dicts inside training checkpoints are found,
    averaged weights before others, and 'module.' and '_orig_mod.' are taken out of names. Arrays may be read-only.

    Args:
      path: of a file of safetensors, PyTorch, NumPy (.npz) or Keras (HDF5, .keras), of the index of weights in
        several files, or of a folder with such an index.
      note: takes each line that a person should know, such as which of several weights are taken.

    Raises:
      UserError: no such file, another format, damaged, or more than weights.
    """
    path = local(path, 'the weights file')
    if path.is_dir():
        path = shards.in_folder(path)
    if not path.is_file():
        raise UserError(f'no weights file {str(path)!r}')
    kind = 'a file of weights'
    try:
        kind, reader = _format_of(path)
        several = reader is not _read_shards and shards.files(path) != [path]
        tensors, notes = _read_shards(path) if several else reader(path)
        tensors = {name: _number(name, tensor) for name, tensor in tensors.items()}
    except Exception as error:  # whatever a parser meets in a damaged file
        why = f'{error}' if isinstance(error, ValueError) else f'damaged or cut off ({type(error).__name__}: {error})'
        raise UserError(f'cannot read {path} as {kind}: {" ".join(why.split())}') from error
    for text in notes:
        note(f'{path}: {text}')
    return tensors


def write(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    version: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays under their names; the file is at every instant the old one or the new one.

    Args:
      path: ends in .safetensors, .npz, .pth or .pt (as torch.save writes a state dict), or .h5 (as Keras 2 wrote
        weights, 'layer/weight').
      tensors: arrays by name.
      version: of the net's class, which PyTorch keeps beside the tensors (.pth and .pt alone can hold it).
      metadata: text by name, kept beside the tensors (.safetensors alone can hold it).

    Raises:
      UserError: another ending.
      RunError: the file cannot be written; the disk is full.
    """
    path = local(path, 'the weights file')
    if path.suffix.lower() not in WRITERS:
        raise UserError(f'cannot write weights in {str(path)!r}: its name ends in none of {", ".join(WRITERS)}')
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        temporary.touch()
        mode = (
            temporary.stat().st_mode
        )  # others may read it where they may read other files; safetensors would not let them
        # Safetensors would take the memory of a strided array as it lies.
        arrays = {name: np.asarray(tensor, order='C') for name, tensor in tensors.items()}
        WRITERS[path.suffix.lower()](temporary, arrays, version, metadata)
        temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, safetensors.SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        why = getattr(error, 'strerror', None) or ' '.join(str(error).split())
        raise RunError(f'cannot write {path}: {why}') from error


def _format_of(path: Path) -> tuple[str, Callable[[Path], Read]]:
    """Returns the format of a file, for messages, and its reader, by its first bytes.

    Raises:
      ValueError: no format that is known here.
    """
    with open(path, 'rb') as file:
        start = file.read(foreign.START)
    if start.startswith(b'PK\x03\x04'):
        return _format_of_zip(path)
    if start.startswith(b'\x89HDF\r\n\x1a\n'):
        return 'an HDF5 file of Keras', _read_h5
    if start[4:9] == b'\0\0\0\0{':
        return 'a file of safetensors', _read_safetensors
    if start.lstrip().startswith(b'{'):
        return 'an index of weights in several files', _read_shards
    # A pickle of the protocols from 2 on, of 0 and 1 (PyTorch's magic number in digits), or a tar.
    if start.startswith((b'\x80', b'L119547037146038801333356L')) or start[257:262] == b'ustar':
        return 'a file of PyTorch', torch_files.read
    if path.suffix.lower() == '.net' or deep_compression.fits(path):
        return 'the compressed SqueezeNet of Deep Compression', lambda path: (deep_compression.read(path), [])
    raise ValueError(foreign.described(start))


def _format_of_zip(path: Path) -> tuple[str, Callable[[Path], Read]]:
    with open_zip(path) as archive:
        names = archive.namelist()
    if any(name.endswith('/data.pkl') for name in names):
        return 'a file of PyTorch', torch_files.read
    if any(name.endswith('.npy') for name in names):
        return 'an archive of NumPy', _read_npz
    if 'config.json' in names or 'model.weights.h5' in names:
        return 'a .keras file', _read_keras
    raise ValueError(foreign.described_zip(names))


def _read_h5(path: Path) -> Read:
    from cvresearch.interop import keras_files  # h5py is loaded for such files alone

    return keras_files.read_h5([path])


def _read_keras(path: Path) -> Read:
    from cvresearch.interop import keras_files

    return keras_files.read_keras(path)


def _read_shards(path: Path) -> Read:
    """Returns the tensors of all files that `path` is one of, or the index of."""
    tensors: Arrays = {}
    files = shards.files(path)
    if all(file.name.endswith('.h5') for file in files):
        from cvresearch.interop import keras_files

        return keras_files.read_h5(files)  # its index has layers, which may go on in the next file
    renamed = state_dicts.bare_names(shards.names(path)) if shards.is_index(path) else {}
    for file in files:
        reader = _format_of(file)[1]
        if reader is _read_shards:
            raise ValueError(f'{file.name} is an index too')
        shard, _ = reader(file)
        for name, tensor in shard.items():
            if renamed.get(name, file.name) != file.name:
                continue
            if name in tensors:
                raise ValueError(f'two of its files hold {name!r}')
            tensors[name] = tensor
    if missing := sorted(renamed.keys() - tensors.keys()):
        raise ValueError(f'{renamed[missing[0]]} does not hold {missing[0]!r}, which the index says')
    return tensors, [f'the weights lie in {len(files)} files'] if not renamed else []


def _read_safetensors(path: Path) -> Read:
    with safetensors.safe_open(path, 'np') as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (it is no dict)
    if types <= set(_PLAIN):
        tensors = safetensors.numpy.load_file(path)
    else:
        tensors = {name: _of_entry(entry) for name, entry in safetensors.deserialize(path.read_bytes())}
    return state_dicts.bare({name: numbers.widened(tensor) for name, tensor in tensors.items()}), []


def _of_entry(entry: dict) -> np.ndarray:
    """Returns the array of what safetensors gives for a tensor where NumPy alone does not know its type."""
    if entry['dtype'] not in _TYPES:
        raise ValueError(f'its tensors are of type {entry["dtype"]}, which is not known here')
    return np.frombuffer(entry['data'], _TYPES[entry['dtype']]).reshape(entry['shape'])


def _read_npz(path: Path) -> Read:
    with open_zip(path), np.load(path, allow_pickle=False) as file:
        return state_dicts.bare({name: file[name] for name in file.files}), []


def _number(name: str, array) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in 'fiub':
        raise ValueError(f'{name!r} is no array of numbers')
    return array


def _write_npz(path: Path, tensors: Arrays, *_) -> None:
    with open(path, 'wb') as file:
        np.savez(file, **cast(dict[str, Any], tensors))


def _write_safetensors(path: Path, tensors: Arrays, version: int | None, metadata: Mapping[str, str] | None) -> None:
    safetensors.numpy.save_file(tensors, path, dict(metadata) if metadata else None)


def _write_torch(path: Path, tensors: Arrays, version: int | None, metadata: Mapping[str, str] | None) -> None:
    torch_writer.write(path, tensors, version)


def _write_keras(path: Path, tensors: Arrays, version: int | None, metadata: Mapping[str, str] | None) -> None:
    from cvresearch.interop import keras_files  # HDF5 takes its time to import

    keras_files.write_h5(path, tensors)


WRITERS: dict[str, Callable[[Path, Arrays, int | None, Mapping[str, str] | None], None]] = {
    '.safetensors': _write_safetensors,
    '.npz': _write_npz,
    '.pth': _write_torch,
    '.pt': _write_torch,
    '.h5': _write_keras,
}
