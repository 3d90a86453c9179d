"""The file of a compressed net: bit-exact, as small as arithmetic says, safe against damage."""

import dataclasses
import hashlib
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from cvresearch.base.errors import UserError
from cvresearch.interop import container, tensor_codes


def test_gaps_are_those_of_the_papers_figure():
    """Deep Compression, figure 2: weights at 1, 4 and 15 with gaps of 3 bits need one filler, at 12."""
    gaps, is_filler = tensor_codes.relative(np.array([1, 4, 15]), 3)
    assert is_filler.tolist() == [False, False, True, False]
    assert tensor_codes.absolute(gaps).tolist() == [1, 4, 12, 15]


@settings(max_examples=100, deadline=None)
@given(
    arrays_of.arrays(
        st.sampled_from([np.float32, np.int8, np.int32]), arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0)
    ),
    st.booleans(),
)
def test_an_array_comes_back_bit_for_bit(array, huffman):
    layout, data = tensor_codes.encode(array, huffman)
    back = tensor_codes.decode(layout, data)
    assert (back.tobytes(), back.dtype, back.shape) == (array.tobytes(), array.dtype, array.shape)
    assert len(data) == layout.size <= array.nbytes


@pytest.mark.parametrize('kept', [0.003, 0.05, 0.3, 0.995, 1.0])
def test_sparse_and_shared_arrays_come_back_bit_for_bit_and_near_their_entropy(kept):
    rng = np.random.default_rng(0)
    codebook = np.append(rng.normal(size=30), [-0.0, np.nan]).astype(np.float32)
    array = np.where(rng.random(60_000) < kept, rng.choice(codebook, 60_000), np.float32(0)).reshape(3, 5, 40, 100)
    layout, data = tensor_codes.encode(array)
    assert tensor_codes.decode(layout, data).tobytes() == array.tobytes()
    zeros = -kept * np.log2(kept) - (1 - kept) * np.log2(1 - kept) if kept < 1 else 0
    assert len(data) <= 1.06 * 60_000 * (zeros + kept * 5) / 8 + 400


def test_without_huffman_every_number_has_the_same_bits():
    """5,000 weights, every tenth kept, of 3 distinct values: 4 bits of gap and 2 of code (zero has one) for 500."""
    array = np.zeros(5000, np.float32)
    array[9::10] = np.resize([1, 2, 3], 500)
    layout, data = tensor_codes.encode(array, huffman_codes=False)
    assert (layout.gap_bits, layout.entries, layout.values) == (4, 500, 4)
    assert len(data) == 4 * 4 + 500 * 2 // 8 + 500 * 4 // 8


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    kernel = np.round(rng.normal(size=(5, 5, 8, 6)) * 2).astype(np.float32) / 2
    arrays = {'params/conv/kernel': kernel, 'params/conv/bias': rng.normal(size=6).astype(np.float32)}
    path = tmp_path / 'net.cvr'
    sizes = container.write(path, arrays, {'model': 'lenet5', 'n': 1.5})
    return path, arrays, sizes


def test_a_file_comes_back_with_its_record_and_every_byte_is_accounted_for(file):
    path, arrays, sizes = file
    reader = container.Reader(path)
    assert reader.record == {'model': 'lenet5', 'n': 1.5}
    assert sum(sizes.values()) == path.stat().st_size
    back = reader.arrays({name: array.shape for name, array in arrays.items()})
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in arrays.items()}


def test_other_shapes_than_the_net_has_are_refused_before_anything_is_decoded(file):
    path, _, _ = file
    with pytest.raises(UserError, match=r"'params/conv/bias' is \(6,\), expected \(7,\)"):
        container.Reader(path).arrays({'params/conv/kernel': (5, 5, 8, 6), 'params/conv/bias': (7,)})


def test_what_is_not_written_is_not_there(tmp_path):
    with pytest.raises(UserError, match='cannot write'):
        container.write(tmp_path / 'no' / 'net.cvr', {'a': np.zeros(3, np.float32)}, {})
    with pytest.raises(UserError, match='float64'):
        container.write(tmp_path / 'net.cvr', {'a': np.zeros(3)}, {})
    assert not list(tmp_path.iterdir())


def damaged(data, rng):
    """Returns the bytes with some flipped, cut off, put in, or swapped."""
    kind, place = rng.integers(5), int(rng.integers(len(data)))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data + rng.bytes(int(rng.integers(1, 50)))
    if kind == 2:
        return data[:place] + rng.bytes(4) + data[place:]
    if kind == 3:
        return data[:place] + data[place + int(rng.integers(1, 9)) :]
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def test_500_damaged_files_are_one_clear_error_each(file):
    path, _, _ = file
    data, rng, tried = path.read_bytes(), np.random.default_rng(1), 0
    while tried < 500:
        if (changed := damaged(data, rng)) == data:
            continue
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r'net\.cvr'):
            container.Reader(path).arrays()
        tried += 1


def signed(header, data):
    """Returns a file with a right checksum around any header and data."""
    packed = zlib.compress(json.dumps(header).encode())
    body = struct.pack('<8sBI', container.MAGIC, 1, len(packed)) + packed + data
    return body + hashlib.sha256(body).digest()


def test_500_hostile_files_with_a_right_checksum_are_read_or_are_one_clear_error_each(file):
    path, arrays, _ = file
    rng, refused = np.random.default_rng(2), 0
    coded = {name: tensor_codes.encode(array) for name, array in sorted(arrays.items())}
    for _ in range(500):
        rows = [[name, *dataclasses.astuple(layout)] for name, (layout, _) in coded.items()]
        data = b''.join(data for _, data in coded.values())
        if rng.integers(2):
            data = damaged(data, rng)
        else:
            row = rows[int(rng.integers(2))]
            strange = [-1, 0, 1, 2, 7, 9, 255, 1 << 40, 1 << 70, 0.5, None, 'a', [], [1 << 30] * 9, [1 << 20] * 2, True]
            row[int(rng.integers(len(row)))] = strange[int(rng.integers(len(strange)))]
        path.write_bytes(signed({'record': {}, 'arrays': rows}, data))
        try:
            container.Reader(path).arrays({name: array.shape for name, array in arrays.items()})
        except UserError as error:
            assert 'net.cvr' in str(error)
            refused += 1
    assert refused > 250


@pytest.mark.parametrize(
    'header',
    [
        [],
        {},
        {'record': 1, 'arrays': []},
        {'record': {}},
        {'record': {}, 'arrays': [[]]},
        {'record': {}, 'arrays': [['a', *dataclasses.astuple(tensor_codes.Layout((0,), 'float32'))]] * 2},
    ],
)
def test_a_header_of_another_form_is_an_error(tmp_path, header):
    (tmp_path / 'net.cvr').write_bytes(signed(header, b''))
    with pytest.raises(UserError, match='not a readable compressed net'):
        container.Reader(tmp_path / 'net.cvr')


def test_a_header_that_unpacks_to_gigabytes_is_refused(tmp_path):
    packed = zlib.compress(bytes(container.MOST_HEADER + 1))
    body = struct.pack('<8sBI', container.MAGIC, 1, len(packed)) + packed
    (tmp_path / 'net.cvr').write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(UserError, match='no record'):
        container.Reader(tmp_path / 'net.cvr')


def test_a_small_file_cannot_ask_for_much_memory(tmp_path):
    row = ['a', *dataclasses.astuple(tensor_codes.Layout((1 << 20, 1 << 20), 'float32', gap_bits=1))]
    (tmp_path / 'net.cvr').write_bytes(signed({'record': {}, 'arrays': [row]}, b''))
    with pytest.raises(UserError, match='1,099,511,627,776 elements'):
        container.Reader(tmp_path / 'net.cvr').arrays()
