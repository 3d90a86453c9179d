"""Canonical Huffman codes. Huffman 1952, "A method for the construction of minimum-redundancy codes".

A code is given by the length of each symbol's codeword alone (0: the symbol does not occur). Codewords of one length
count upwards with the symbol, and shorter ones come first. Codewords have at most `LONGEST` bits, as in DEFLATE.
"""

import heapq

import numpy as np

from cvresearch.base.errors import UserError

LONGEST = 15
_PART = 1 << 20  # symbols, or bytes, at a time: bounds the memory of the bits between


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Returns the codeword lengths, uint8 (symbols,), that give the shortest text.

    Where a codeword would be longer than `LONGEST`, the rarest symbols count as more frequent than they are. A single
    symbol has 1 bit.

    Args:
      counts: how often each symbol occurs, (symbols,).
    """
    counts = np.asarray(counts, np.int64)
    used = np.flatnonzero(counts)
    if len(used) > 1 << LONGEST:
        raise UserError(f'a Huffman code of {len(used):,} symbols; expected at most {1 << LONGEST:,}')
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) < 2:
        lengths[used] = 1
        return lengths
    least = 1
    # Rare symbols count for more until no codeword is longer than a decoder takes.
    while (depths := _tree_depths(np.maximum(counts[used], least).tolist())).max() > LONGEST:
        least *= 2
    lengths[used] = depths
    return lengths


def _tree_depths(weights: list[int]) -> np.ndarray:
    """Returns the depth of each leaf of a Huffman tree; ties go to the older node, which keeps the tree low."""
    heap = [(weight, node) for node, weight in enumerate(weights)]
    heapq.heapify(heap)
    parents = np.zeros(2 * len(weights) - 1, np.int64)
    for node in range(len(weights), len(parents)):
        (first, one), (second, other) = heapq.heappop(heap), heapq.heappop(heap)
        parents[[one, other]] = node
        heapq.heappush(heap, (first + second, node))
    depths = np.zeros(len(parents), np.int64)
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[: len(weights)]


def fixed_lengths(symbols: int) -> np.ndarray:
    """Returns the lengths of the code that gives each of so many symbols the same number of bits."""
    return np.full(symbols, max((symbols - 1).bit_length(), 1), np.uint8)


def codewords(lengths: np.ndarray) -> np.ndarray:
    """Returns the canonical codewords, uint32 (symbols,), as numbers of `lengths` bits.

    Raises:
      UserError: no code has such lengths.
    """
    lengths = np.asarray(lengths)
    if lengths.size and lengths.max() > LONGEST:
        raise UserError(f'a codeword of {lengths.max()} bits; expected at most {LONGEST}')
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    # On a ruler of 2^LONGEST marks, each codeword takes the marks that begin with it.
    widths = 1 << (LONGEST - lengths[order].astype(np.int64))
    starts = np.cumsum(widths) - widths
    if widths.sum() > 1 << LONGEST:
        raise UserError('the codeword lengths of a Huffman code contradict each other')
    words = np.zeros(len(lengths), np.uint32)
    words[order] = starts >> (LONGEST - lengths[order])
    return words


def size_in_bits(counts: np.ndarray, lengths: np.ndarray) -> int:
    """Returns the number of bits of a text with so many of each symbol."""
    return int(np.dot(np.asarray(counts, np.int64), np.asarray(lengths, np.int64)))


def encode(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    """Returns the codewords of the symbols, most significant bit first, padded with zeros to a byte."""
    words = codewords(lengths)
    pieces, rest = [], np.zeros(0, np.uint8)
    for begin in range(0, len(symbols), _PART):
        part = symbols[begin : begin + _PART]
        bits = np.concatenate([rest, _bits(words[part], lengths[part].astype(np.int64))])
        full_bits = len(bits) // 8 * 8
        pieces.append(np.packbits(bits[:full_bits]).tobytes())
        rest = bits[full_bits:]
    return b''.join([*pieces, np.packbits(rest).tobytes()])


def _bits(words: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    ends = np.cumsum(lengths)
    bits = np.zeros(ends[-1] if len(ends) else 0, np.uint8)
    for place in range(int(lengths.max(initial=0))):
        has = lengths > place
        bits[ends[has] - lengths[has] + place] = words[has] >> (lengths[has] - 1 - place) & 1
    return bits


def decode(data: bytes, lengths: np.ndarray, number: int) -> np.ndarray:
    """Returns the symbols, int32 (number,), whose codewords `data` holds.

    Raises:
      UserError: lengths of no code, a word that is none, or data that end too early or too late.
    """
    lengths = np.asarray(lengths, np.uint8)
    if number > 8 * len(data):
        raise UserError(f'{number:,} codewords in {len(data):,} bytes')
    symbol_of, length_of = _tables(lengths)
    symbols = np.empty(number, np.int32)
    padded = np.frombuffer(data + bytes(3), np.uint8)
    done, position = 0, 0  # symbols, bits
    while done < number:
        first = position // 8
        seen = padded[first : first + _PART + 2].astype(np.uint32)
        if len(seen) < 3:
            raise UserError('the codewords end too early')
        windows = (seen[:-2] << 16 | seen[1:-1] << 8 | seen[2:])[:, None] >> np.arange(9, 1, -1, dtype=np.uint32)
        windows = (windows & ((1 << LONGEST) - 1)).reshape(-1)
        places = _starts(length_of[windows].tobytes(), position - 8 * first, number - done)
        symbols[done : done + len(places)] = symbol_of[windows[places]]
        done += len(places)
        position = 8 * first + int(places[-1]) + int(length_of[windows[places[-1]]])
    if position > 8 * len(data) or -(-position // 8) != len(data):
        raise UserError(f'{number:,} codewords take {position:,} bits; expected {len(data):,} bytes')
    if position % 8 and data[-1] & (1 << (8 - position % 8)) - 1:
        raise UserError('the padding after the last codeword is not zero')
    return symbols


def _tables(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the symbol, and the length of its codeword, by the next `LONGEST` bits; length 0 where there is none."""
    words = codewords(lengths)
    symbol_of, length_of = np.zeros(1 << LONGEST, np.int32), np.zeros(1 << LONGEST, np.uint8)
    for symbol in np.flatnonzero(lengths):
        shift = LONGEST - int(lengths[symbol])
        marks = slice(int(words[symbol]) << shift, int(words[symbol]) + 1 << shift)
        symbol_of[marks], length_of[marks] = symbol, lengths[symbol]
    return symbol_of, length_of


def _starts(steps: bytes, position: int, most: int) -> np.ndarray:
    """Returns where codewords begin, given how far it is to the next from each bit."""
    starts, end = [], len(steps)
    while position < end and len(starts) < most:
        step = steps[position]
        if not step:
            raise UserError('bits that are no codeword')
        starts.append(position)
        position += step
    return np.array(starts, np.int64)
