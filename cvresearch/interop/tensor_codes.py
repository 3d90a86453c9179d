"""One array as few bytes, without loss: a codebook, relative indices, Huffman codes, whichever is the smallest.

Han, Mao & Dally 2016, "Deep Compression", arXiv:1510.00149, sections 2 to 4. Nothing here decides what a net loses:
pruning makes zeros and weight sharing makes few distinct values; this finds them.

- Places. Either all elements are written, in row-major order, or the nonzero ones, each with its distance from the one
  before less 1, in `gap_bits` bits. A longer way is broken by filler zeros, each with the longest gap (figure 2).
- Values. Either the elements' own bytes, or numbers of the codebook of the distinct values.
- Numbers and gaps are written in a fixed number of bits, or in Huffman's.

Zero is the element whose bytes are all zero: -0.0 is kept apart.
"""

import dataclasses
import math

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.interop import huffman

DTYPES = {name: np.dtype(name).newbyteorder('<') for name in ('float32', 'float16', 'int8', 'uint8', 'int32')}
MOST_VALUES = 4096  # in a codebook
MOST_GAP_BITS = 8
_SAMPLE = 1 << 16  # elements that tell whether there are too many distinct values


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the bytes of one array lie.

    Attributes:
      shape: of the array.
      dtype: of the array, one of `DTYPES`.
      gap_bits: bits of a gap; 0 where all elements are written.
      entries: elements that are written, with the fillers.
      values: size of the codebook; 0 for the elements' own bytes.
      huffman_values, huffman_gaps: whether a table of codeword lengths precedes the stream; a fixed width otherwise.
      value_bytes, gap_bytes: sizes of the two streams, without the codebook and the tables.
    """

    shape: tuple[int, ...]
    dtype: str
    gap_bits: int = 0
    entries: int = 0
    values: int = 0
    huffman_values: bool = False
    huffman_gaps: bool = False
    value_bytes: int = 0
    gap_bytes: int = 0

    @property
    def size(self) -> int:
        """Bytes of the array."""
        tables = (self.values + 1) // 2 * self.huffman_values + (1 << self.gap_bits) // 2 * self.huffman_gaps
        return self.values * np.dtype(self.dtype).itemsize + tables + self.value_bytes + self.gap_bytes


def relative(places: np.ndarray, gap_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gaps of increasing places, and which of them belong to filler zeros.

    Args:
      places: of the nonzero elements, increasing, (nonzeros,).
      gap_bits: of a gap, whose largest value is 2^gap_bits - 1.

    Returns:
      (gaps, is_filler), both (entries,): place = cumsum(gap + 1) - 1.
    """
    ways = np.diff(places, prepend=-1) - 1
    fillers = ways >> gap_bits
    last = np.cumsum(fillers + 1) - 1
    gaps = np.full(last[-1] + 1 if len(last) else 0, (1 << gap_bits) - 1, np.int64)
    gaps[last] = ways & (1 << gap_bits) - 1
    is_filler = np.ones(len(gaps), bool)
    is_filler[last] = False
    return gaps, is_filler


def absolute(gaps: np.ndarray) -> np.ndarray:
    """Returns the places of entries: the inverse of `relative`, fillers included."""
    return np.cumsum(np.asarray(gaps, np.int64) + 1) - 1


def encode(array: np.ndarray, huffman_codes: bool = True) -> tuple[Layout, bytes]:
    """Returns the smallest coding of an array: `decode` gives it back bit for bit.

    Args:
      array: of one of `DTYPES`, any shape.
      huffman_codes: consider Huffman's codes too, not only a fixed number of bits.

    Raises:
      UserError: another dtype.
    """
    if array.dtype.name not in DTYPES:
        raise UserError(f'an array of {array.dtype.name}; expected one of {", ".join(DTYPES)}')
    flat = np.ascontiguousarray(array, DTYPES[array.dtype.name]).reshape(-1)
    elements = flat.view(f'<u{flat.itemsize}')
    plain = Layout(array.shape, array.dtype.name, entries=flat.size, value_bytes=flat.nbytes)
    places = np.flatnonzero(elements)
    codebook = _codebook(elements[places])
    layouts = [plain]
    if codebook is not None:
        numbers = np.searchsorted(codebook, elements[places])
        counts = np.bincount(numbers, minlength=len(codebook))
        layouts.append(_with_values(plain, counts, flat.size - len(places), huffman_codes))
    ways = np.diff(places, prepend=-1) - 1
    for gap_bits in range(1, MOST_GAP_BITS + 1):
        with_gaps = _with_gaps(plain, ways, gap_bits, huffman_codes)
        fillers = with_gaps.entries - len(places)
        layouts.append(with_gaps)
        if codebook is not None:
            layouts.append(_with_values(with_gaps, counts, fillers, huffman_codes))
    best = min((candidate for candidate in layouts if candidate is not None), key=lambda layout: layout.size)
    return best, _bytes_of(best, elements, places, codebook)


def _codebook(nonzero: np.ndarray) -> np.ndarray | None:
    """Returns the distinct values, None where they are too many; zero, which fillers need, is the first."""
    if len(np.unique(nonzero[:_SAMPLE])) >= MOST_VALUES:
        return None
    values = np.unique(nonzero)
    return None if len(values) >= MOST_VALUES else np.concatenate([np.zeros(1, nonzero.dtype), values])


def _stream(counts: np.ndarray, huffman_codes: bool) -> tuple[bool, int]:
    """Returns whether Huffman's code pays, with its table, and the bytes of the stream by the better code."""
    fixed = -(-huffman.size_in_bits(counts, huffman.fixed_lengths(len(counts))) // 8)
    if not huffman_codes:
        return False, fixed
    coded = -(-huffman.size_in_bits(counts, huffman.code_lengths(counts)) // 8)
    pays = coded + (len(counts) + 1) // 2 < fixed
    return pays, coded if pays else fixed


def _with_values(layout: Layout, counts: np.ndarray, zeros: int, huffman_codes: bool) -> Layout:
    counts = counts.copy()
    counts[0] = zeros
    counts = counts if zeros or layout.gap_bits else counts[1:]  # nothing is zero
    coded, size = _stream(counts, huffman_codes)
    return dataclasses.replace(layout, values=len(counts), huffman_values=coded, value_bytes=size)


def _with_gaps(layout: Layout, ways: np.ndarray, gap_bits: int, huffman_codes: bool) -> Layout:
    counts = np.bincount(ways & (1 << gap_bits) - 1, minlength=1 << gap_bits)
    fillers = int((ways >> gap_bits).sum())
    counts[-1] += fillers
    coded, size = _stream(counts, huffman_codes)
    entries = len(ways) + fillers
    return dataclasses.replace(
        layout,
        gap_bits=gap_bits,
        entries=entries,
        huffman_gaps=coded,
        gap_bytes=size,
        value_bytes=entries * np.dtype(layout.dtype).itemsize,
    )


def _bytes_of(layout: Layout, elements: np.ndarray, places: np.ndarray, codebook: np.ndarray | None) -> bytes:
    if layout.gap_bits:
        gaps, is_filler = relative(places, layout.gap_bits)
        written = np.zeros(len(gaps), elements.dtype)
        written[~is_filler] = elements[places]
    else:
        gaps, written = np.zeros(0, np.int64), elements
    pieces = []
    if layout.values and codebook is not None:
        codebook = codebook[-layout.values :]  # zero is the first, where it is needed
        pieces.append(codebook.tobytes())
        pieces.append(_coded(np.searchsorted(codebook, written), layout.values, layout.huffman_values))
    else:
        pieces.append(written.tobytes())
    if layout.gap_bits:
        pieces.append(_coded(gaps, 1 << layout.gap_bits, layout.huffman_gaps))
    return b''.join(pieces)


def _coded(symbols: np.ndarray, kinds: int, huffman_codes: bool) -> bytes:
    if not huffman_codes:
        return huffman.encode(symbols, huffman.fixed_lengths(kinds))
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=kinds))
    pairs = np.append(lengths, np.zeros(kinds % 2, np.uint8)).reshape(-1, 2)
    return (pairs[:, 0] | pairs[:, 1] << 4).tobytes() + huffman.encode(symbols, lengths)


def decode(layout: Layout, data: bytes) -> np.ndarray:
    """Returns the array that `encode` was given.

    Takes memory for the array that the layout states: whoever reads a stranger's file checks the shape first.

    Raises:
      UserError: data that do not fit the layout.
    """
    _check(layout, len(data))
    dtype = DTYPES[layout.dtype]
    rest = memoryview(data)
    if layout.values:
        codebook = np.frombuffer(rest[: layout.values * dtype.itemsize], dtype)
        rest = rest[codebook.nbytes :]
        numbers, rest = _decoded(rest, layout.values, layout.huffman_values, layout.value_bytes, layout.entries)
        if layout.entries and numbers.max() >= layout.values:
            raise UserError(f'a code of {numbers.max()} with a codebook of {layout.values}')
        written = codebook[numbers]
    else:
        written, rest = np.frombuffer(rest[: layout.value_bytes], dtype), rest[layout.value_bytes :]
    if not layout.gap_bits:
        return written.reshape(layout.shape).astype(layout.dtype)
    gaps, _ = _decoded(rest, 1 << layout.gap_bits, layout.huffman_gaps, layout.gap_bytes, layout.entries)
    places = absolute(gaps)
    flat = np.zeros(math.prod(layout.shape), layout.dtype)
    if len(places) and places[-1] >= flat.size:
        raise UserError(f'an element at place {places[-1]:,} of {flat.size:,}')
    flat[places] = written
    return flat.reshape(layout.shape)


def _check(layout: Layout, size: int) -> None:
    elements = math.prod(layout.shape)
    own_bytes = layout.entries * DTYPES[layout.dtype].itemsize
    if size != layout.size:
        raise UserError(f'{size:,} bytes; expected {layout.size:,}')
    if layout.gap_bits > MOST_GAP_BITS or layout.values > MOST_VALUES:
        raise UserError(
            f'{layout.gap_bits} bits a gap and {layout.values} values; expected at most {MOST_GAP_BITS} '
            f'and {MOST_VALUES}'
        )
    if layout.entries > elements or (not layout.gap_bits and layout.entries != elements):
        raise UserError(f'{layout.entries:,} entries of {elements:,} elements')
    if not layout.values and layout.value_bytes != own_bytes:
        raise UserError(f'{layout.value_bytes:,} bytes of values; expected {own_bytes:,}')


def _decoded(
    data: memoryview, kinds: int, huffman_codes: bool, size: int, entries: int
) -> tuple[np.ndarray, memoryview]:
    """Returns the symbols of a stream and what follows it."""
    lengths = huffman.fixed_lengths(kinds)
    if huffman_codes:
        pairs = np.frombuffer(data[: (kinds + 1) // 2], np.uint8)
        lengths = np.stack([pairs & 15, pairs >> 4], 1).reshape(-1)[:kinds]
        data = data[len(pairs) :]
    return huffman.decode(bytes(data[:size]), lengths, entries), data[size:]
