"""Huffman codes against dahuffman, hand arithmetic, and damaged texts."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvresearch.base.errors import UserError
from cvresearch.interop import huffman

GOLDENS = json.loads((Path(__file__).parent / 'dahuffman.json').read_text())


@pytest.mark.parametrize('golden', GOLDENS['cases'])
def test_a_text_is_as_short_as_by_dahuffman(golden):
    """dahuffman adds an end-of-text symbol, which occurs once, and has no limit; none of these codes meets ours."""
    counts = np.array([*golden['counts'], 1])
    assert huffman.size_in_bits(counts, huffman.code_lengths(counts)) == golden['bits']


def test_codewords_are_those_of_the_deflate_specification():
    """RFC 1951, section 3.2.2: lengths (3, 3, 3, 3, 3, 2, 4, 4) give these codewords."""
    words = huffman.codewords(np.array([3, 3, 3, 3, 3, 2, 4, 4]))
    assert words.tolist() == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


def test_lengths_stay_within_the_limit_and_make_a_code():
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = huffman.code_lengths(np.array(fibonacci)).astype(int)
    assert lengths.max() == huffman.LONGEST
    assert (2.0**-lengths).sum() == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=300))
def test_what_is_encoded_is_decoded(symbols):
    symbols = np.array(symbols, np.int64)
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=41))
    data = huffman.encode(symbols, lengths)
    assert huffman.decode(data, lengths, len(symbols)).tolist() == symbols.tolist()


def test_parts_join_where_a_codeword_crosses_them(monkeypatch):
    monkeypatch.setattr(huffman, '_PART', 5)
    symbols = np.random.default_rng(0).integers(0, 200, 333)
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=200))
    data = huffman.encode(symbols, lengths)
    assert huffman.decode(data, lengths, 333).tolist() == symbols.tolist()


@pytest.mark.parametrize(
    ('data', 'lengths', 'number', 'message'),
    [
        (b'\x00', [1, 1, 1], 3, 'contradict'),
        (b'\x00', [16], 1, 'at most 15'),
        (b'\x80', [1], 1, 'no codeword'),
        (b'\x00', [1, 1], 9, '9 codewords in 1 bytes'),
        (b'\x00\x00', [1, 1], 8, '8 codewords take 8 bits'),
        (b'\x00\x01', [1, 1], 9, 'padding'),
        (b'\x00', [3, 3], 8, 'codewords'),
    ],
)
def test_a_damaged_text_is_an_error(data, lengths, number, message):
    with pytest.raises(UserError, match=message):
        huffman.decode(data, np.array(lengths), number)
