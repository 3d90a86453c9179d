"""The file of a compressed net: named arrays, each coded as small as it goes, with a checksum.

    bytes 0-7     b'CVRSMALL'
    byte  8       version of the format, 1
    bytes 9-12    length of the header, unsigned, little-endian, as all numbers
    header        JSON, compressed by zlib: {"record": {...}, "arrays": [[name, the fields of a Layout ...], ...]}
    data          of the arrays, one after another: codebook, codeword lengths, values, codeword lengths, gaps
                  (interop/tensor_codes.py); codeword lengths are two a byte, the lower half first
    last 32       SHA-256 of everything before

A file is data from a stranger: a damaged or hostile one is an error of one line. Nothing is allocated for an array
before its shape is known to be one that the reader wants.
"""

import dataclasses
import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.interop import tensor_codes
from cvresearch.interop.tensor_codes import Layout

MAGIC = b'CVRSMALL'
VERSION = 1
MOST_HEADER = 1 << 24  # bytes, unpacked
MOST_ELEMENTS = 1 << 30  # of all arrays, where the reader does not say what it wants
_START = struct.Struct('<8sBI')
_FIELDS = [field.name for field in dataclasses.fields(Layout)]


def write(path: str | Path, arrays: Mapping[str, np.ndarray], record: Mapping, huffman: bool = True) -> dict[str, int]:
    """Writes arrays and a record; the file is at every instant the old one or the new one.

    Args:
      path: of the file.
      arrays: by name, of a dtype in `tensor_codes.DTYPES`.
      record: what is to be known of them, as JSON has it.
      huffman: consider Huffman's codes, not only a fixed number of bits.

    Returns:
      The bytes of each array's data; '' has the rest of the file: the header and the checksum.

    Raises:
      UserError: an array of another dtype, or the file cannot be written.
    """
    path = Path(path)
    coded = {name: tensor_codes.encode(np.asarray(array), huffman) for name, array in sorted(arrays.items())}
    rows = [[name, *dataclasses.astuple(layout)] for name, (layout, _) in coded.items()]
    text = json.dumps({'record': record, 'arrays': rows}, separators=(',', ':'), sort_keys=True)
    header = zlib.compress(text.encode(), 9)
    pieces = [_START.pack(MAGIC, VERSION, len(header)), header, *(data for _, data in coded.values())]
    digest = hashlib.sha256()
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        with open(temporary, 'wb') as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
            file.write(digest.digest())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f'cannot write {path}: {error}') from error
    sizes = {name: len(data) for name, (_, data) in coded.items()}
    return sizes | {'': len(pieces[0]) + len(header) + digest.digest_size}


class Reader:
    """A file that is open for reading: its record at once, its arrays when they are wanted.

    Attributes:
      record: what the writer recorded.
      shapes: {name: (shape, dtype's name)} of the arrays.
      sizes: bytes of each array's data.
    """

    def __init__(self, path: str | Path):
        """Reads and checks a file.

        Raises:
          UserError: no such file, another format or version, or damaged.
        """
        self.path = Path(path)
        try:
            self._bytes = self.path.read_bytes()
        except OSError as error:
            raise UserError(f'cannot read {path}: {error.strerror}') from error
        try:
            self.record, self._layouts, self._start = _header(self._bytes)
            self._check_sizes()
        except UserError as error:
            raise UserError(f'{path} is not a readable compressed net: {error}') from error
        self.sizes = {name: layout.size for name, layout in self._layouts.items()}
        self.shapes = {name: (layout.shape, layout.dtype) for name, layout in self._layouts.items()}

    def _check_sizes(self) -> None:
        data = len(self._bytes) - self._start - hashlib.sha256().digest_size
        expected = sum(layout.size for layout in self._layouts.values())
        if data != expected:
            raise UserError(f'{data:,} bytes of data; its header says {expected:,}')

    def arrays(self, wanted: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, np.ndarray]:
        """Returns the arrays by name.

        Args:
          wanted: shapes by name, which the file must have, no more and no less; if None, any shapes of at most
            `MOST_ELEMENTS` elements in all.

        Raises:
          UserError: other names or shapes, or data that cannot be decoded.
        """
        shapes = {name: layout.shape for name, layout in self._layouts.items()}
        if wanted is not None and shapes != wanted:
            names = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
            first = f'{names[0]!r} is {shapes.get(names[0], "not there")}, expected {wanted.get(names[0], "none")}'
            raise UserError(f'{self.path}: {len(names)} arrays do not fit the net: {first}')
        elements = sum(map(math.prod, shapes.values()))
        if wanted is None and elements > MOST_ELEMENTS:
            raise UserError(f'{self.path} holds {elements:,} elements; expected at most {MOST_ELEMENTS:,}')
        result, place = {}, self._start
        for name, layout in self._layouts.items():
            try:
                result[name] = tensor_codes.decode(layout, self._bytes[place : place + layout.size])
            except UserError as error:
                raise UserError(f'{self.path}: {name!r} cannot be decoded: {error}') from error
            place += layout.size
        return result


def _header(data: bytes) -> tuple[dict, dict[str, Layout], int]:
    """Returns the record, the layouts by name, and where the data begin."""
    if data[: len(MAGIC)] != MAGIC:
        raise UserError(f'it does not begin with {MAGIC.decode()}')
    if len(data) < _START.size + 32:
        raise UserError(f'it ends after {len(data)} bytes')
    _, version, length = _START.unpack_from(data)
    if version != VERSION:
        raise UserError(f'its format has version {version}; this program reads {VERSION}')
    if hashlib.sha256(memoryview(data)[:-32]).digest() != data[-32:]:
        raise UserError('its checksum is wrong: the file is damaged or cut off; copy it anew')
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data[_START.size : _START.size + length], MOST_HEADER)
        header = json.loads(text) if unpacker.eof and not unpacker.unused_data else None
    except (zlib.error, ValueError, RecursionError) as error:
        raise UserError(f'its header cannot be read ({error})') from error
    if not isinstance(header, dict) or not isinstance(header.get('record'), dict):
        raise UserError('its header has no record')
    rows = header.get('arrays')
    if not isinstance(rows, list):
        raise UserError('its header has no list of arrays')
    layouts = dict(map(_layout, rows))
    if len(layouts) != len(rows):
        raise UserError('two arrays have one name')
    return header['record'], layouts, _START.size + length


def _layout(row) -> tuple[str, Layout]:
    """Returns the name and the layout of a row of the header, every number of the kind that it must be."""
    if not isinstance(row, list) or len(row) != len(_FIELDS) + 1 or not isinstance(row[0], str):
        raise UserError('a row of its header is no array')
    name, values = row[0], dict(zip(_FIELDS, row[1:], strict=True))
    shape = values['shape']
    integers = [
        value for key, value in values.items() if key in ('gap_bits', 'entries', 'values', 'value_bytes', 'gap_bytes')
    ]
    integers += shape if isinstance(shape, list) and len(shape) <= 8 else [None]
    flags = (values['huffman_values'], values['huffman_gaps'])
    if not all(type(value) is int and 0 <= value < 1 << 48 for value in integers):
        raise UserError(f'{name!r} has a size that is no number')
    if values['dtype'] not in list(tensor_codes.DTYPES) or not all(type(flag) is bool for flag in flags):
        raise UserError(f'{name!r} is of an unknown type')
    if values['gap_bits'] > tensor_codes.MOST_GAP_BITS or values['values'] > tensor_codes.MOST_VALUES:
        raise UserError(f'{name!r} has gaps of {values["gap_bits"]} bits and {values["values"]} values')
    return name, Layout(**{**values, 'shape': tuple(shape)})
