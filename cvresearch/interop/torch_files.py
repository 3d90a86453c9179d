"""Weights in files of `torch.save`, without PyTorch and without running the pickle inside.

Three layouts: a zip archive (PyTorch 1.6 and later, and TorchScript), a sequence of pickles followed by the storages
(earlier, and `_use_new_zipfile_serialization=False` to this day), and a tar (0.1.9 and before).
"""

import io
import math
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from cvresearch.interop import numbers, state_dicts
from cvresearch.interop.archives import open_zip, require_proportion
from cvresearch.interop.pickles import Storage, Tensor, a, sizes, storage_dtype, storage_of, unpickle

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
Record = Callable[[str], bytes]


def read(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the net's tensors in a file of `torch.save`, and notes for a person: which of several were chosen.

    bfloat16 and the kinds of float8 come as float32.

    Raises:
      ValueError: not such a file, damaged, or more than weights (the message says what); other
        exceptions of the parsers, where it is cut off.
    """
    with open(path, 'rb') as file:
        start = file.read(262)
    if start.startswith(b'PK\x03\x04'):
        return _read_zip(path)
    return _read_tar(path) if start[257:262] == b'ustar' else _read_legacy(path)


def _read_zip(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    with open_zip(path) as archive:
        names = [name for name in archive.namelist() if name.endswith('/data.pkl') and name.count('/') == 1]
        if len(names) != 1:
            raise ValueError('the archive has no data.pkl of PyTorch')
        folder = names[0].removesuffix('data.pkl')
        order = archive.read(f'{folder}byteorder') if f'{folder}byteorder' in archive.namelist() else b'little'
        tensors, notes = state_dicts.find(unpickle(io.BytesIO(archive.read(names[0]))))
        return _arrays(tensors, lambda key: archive.read(f'{folder}data/{key}'), order == b'big'), notes


def _read_legacy(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    with open(path, 'rb') as file:
        magic = unpickle(file)
        if magic != LEGACY_MAGIC or unpickle(file) != LEGACY_PROTOCOL:
            raise ValueError(f'it is a pickle, but not one of torch.save: {state_dicts.content(magic)}')
        dtypes = {}

        def persistent(identity: object) -> object:
            storage = storage_of(identity)
            if isinstance(storage, Storage):
                dtypes[storage.key] = storage.dtype
            return storage

        system, tree, keys = unpickle(file), unpickle(file, persistent), cast(list, unpickle(file))
        tensors, notes = state_dicts.find(tree)
        big = isinstance(system, dict) and system.get('little_endian') is False
        records = {}
        for key in keys:
            count = int.from_bytes(file.read(8), 'big' if big else 'little')
            records[key] = file.read(count * np.dtype(dtypes[key]).itemsize)
    return _arrays(tensors, records.__getitem__, big), notes


def _read_tar(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    with tarfile.open(path, 'r:') as archive:
        storages, records = _tar_storages(_member(archive, 'storages'))
        tensors = _tar_tensors(_member(archive, 'tensors'), storages)

        def persistent(identity: object) -> object:
            return identity[0] if isinstance(identity, tuple) else tensors[str(identity)]

        chosen, notes = state_dicts.find(unpickle(_member(archive, 'pickle'), persistent))
    return _arrays(chosen, records.__getitem__, big=False), notes


def _member(archive: tarfile.TarFile, name: str) -> BinaryIO:
    if name not in archive.getnames() or not archive.getmember(name).isfile() or archive.getmember(name).issparse():
        raise ValueError(f'it is a tar, but not one of torch.save (it has no file {name!r})')
    return cast(BinaryIO, archive.extractfile(name))


def _tar_storages(file: BinaryIO) -> tuple[dict[str, Storage], dict[str, bytes]]:
    """Returns the storages by key, with views of others among them, and the bytes by key."""
    storages, records = {}, {}
    for _ in range(a(int, unpickle(file))):
        key, _, kind = a(tuple, unpickle(file))
        (count,) = sizes(struct.unpack('<q', file.read(8)))
        storages[str(key)] = Storage(storage_dtype(kind), str(key), count)
        records[str(key)] = file.read(count * np.dtype(storage_dtype(kind)).itemsize)
    for key, root, start, count in cast(list, unpickle(file)):
        storage = storages[str(root)]
        storages[str(key)] = Storage(storage.dtype, storage.key, *sizes((count, storage.start + start)))
    return storages, records


def _tar_tensors(file: BinaryIO, storages: Mapping[str, Storage]) -> dict[str, Tensor]:
    tensors = {}
    for _ in range(a(int, unpickle(file))):
        key, storage, _ = a(tuple, unpickle(file))
        (dimensions,) = struct.unpack('<i4x', file.read(8))
        shape, strides = (sizes(struct.unpack(f'<{dimensions}q', file.read(8 * dimensions))) for _ in range(2))
        (offset,) = sizes(struct.unpack('<q', file.read(8)))
        tensors[str(key)] = Tensor(storages[str(storage)], offset, shape, strides)
    return tensors


def _arrays(tensors: Mapping[str, Tensor], record: Record, big: bool) -> dict[str, np.ndarray]:
    records: dict[str, bytes] = {}
    arrays = {}
    repeated = [tensor for tensor in tensors.values() if 0 in tensor.strides]
    require_proportion(8 * sum(math.prod(tensor.shape) for tensor in repeated), 0)
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in records:
            records[key] = record(key)
        try:
            arrays[name] = _array(tensor, records[key], big)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f'the tensor {name!r} does not fit its storage: {error}') from error
    return arrays


def _array(tensor: Tensor, record: bytes, big: bool) -> np.ndarray:
    storage, dtype = tensor.storage, np.dtype(tensor.dtype or tensor.storage.dtype)
    start, count = (n * np.dtype(storage.dtype).itemsize for n in (storage.start, storage.count))
    if len(record) < start + count:
        raise ValueError(f'{len(record)} bytes for {storage.count} numbers of {np.dtype(storage.dtype).itemsize} bytes')
    # A stride of 0 repeats numbers (torch.Tensor.expand).
    if math.prod(tensor.shape) * dtype.itemsize > count and 0 not in tensor.strides:
        raise ValueError(f'shape {list(tensor.shape)} of {count // dtype.itemsize} numbers')
    array = np.ndarray(
        tensor.shape,
        f'{">" if big else "<"}u{dtype.itemsize}',
        buffer=memoryview(record)[start : start + count],
        offset=tensor.offset * dtype.itemsize,
        strides=[dtype.itemsize * n for n in tensor.strides],
    )
    # Kinds of float that NumPy does not know have no byte order of their own.
    array = array.astype(f'u{dtype.itemsize}', copy=False).view(dtype)
    return numbers.widened(array)
