"""Writes a state dict as torch.save does, without PyTorch: a zip archive of a pickle and of the tensors' bytes."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cvresearch.interop.pickles import STORAGES

_STORAGE_OF = {dtype: name for name, dtype in STORAGES.items() if name != 'UntypedStorage'}
_ALIGNED = 64  # bytes: where PyTorch, which maps files into memory, expects a tensor to begin


def write(path: Path, tensors: Mapping[str, np.ndarray], version: int | None = None) -> None:
    """Writes arrays as the tensors of an OrderedDict that `torch.load(path, weights_only=True)` gives back.

    Args:
      path: of the file.
      tensors: arrays by name.
      version: of the net's class. PyTorch keeps it as an attribute of the dict, and some nets of torchvision
        (MNASNet) refuse to load without it.

    Raises:
      ValueError: an array of a type that PyTorch's storages do not have.
    """
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    with open(path, 'wb') as target, zipfile.ZipFile(target, 'w') as archive:
        _add(archive, 'archive/data.pkl', _pickle(arrays, version))
        _add(archive, 'archive/byteorder', b'little')
        for key, array in enumerate(arrays.values()):
            _add(archive, f'archive/data/{key}', array.astype(array.dtype.newbyteorder('<')).tobytes())
        _add(archive, 'archive/version', b'3\n')


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name)  # of 1980, so that equal weights are equal files
    assert archive.fp is not None  # it is open
    start = archive.fp.tell() + 30 + len(name) + 4
    padding = -start % _ALIGNED
    entry.extra = struct.pack('<2sH', b'FB', padding) + bytes(padding)
    archive.writestr(entry, content)


def _pickle(arrays: Mapping[str, np.ndarray], version: int | None) -> bytes:
    """Returns the program that builds the dict. Its bytes are written here, since what it names is not installed."""
    entries = b''.join(_text(name) + _tensor(str(key), array) for key, (name, array) in enumerate(arrays.items()))
    metadata = (
        b''
        if version is None
        else (b'}' + _text('_metadata') + _ORDERED + _text('') + b'}' + _text('version') + _whole(version) + b'sssb')
    )
    return b'\x80\x02' + _ORDERED + b'(' + entries + b'u' + metadata + b'.'


_ORDERED = b'ccollections\nOrderedDict\n)R'


def _tensor(key: str, array: np.ndarray) -> bytes:
    if array.dtype.name not in _STORAGE_OF:
        raise ValueError(f'PyTorch has no storage of {array.dtype.name}')
    kind = f'ctorch\n{_STORAGE_OF[array.dtype.name]}\n'.encode()
    storage = b'(' + _text('storage') + kind + _text(key) + _text('cpu') + _whole(array.size) + b'tQ'
    shape, strides = (_tuple(numbers) for numbers in (array.shape, [s // array.itemsize for s in array.strides]))
    window = storage + _whole(0) + shape + strides + b'\x89' + _ORDERED
    return b'ctorch._utils\n_rebuild_tensor_v2\n(' + window + b'tR'


def _text(text: str) -> bytes:
    data = text.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def _whole(number: int) -> bytes:
    return b'\x8a\x08' + struct.pack('<q', number)


def _tuple(numbers) -> bytes:
    return b'(' + b''.join(map(_whole, numbers)) + b't'
