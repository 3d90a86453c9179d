"""The published compressed SqueezeNet: its format on a made file, its facts where the file itself is at hand."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.data import preprocessing
from cvresearch.interop import container, conversion, deep_compression, weight_files

VARIABLE = 'CVRESEARCH_COMPRESSED_SQUEEZENET'
needs_the_file = pytest.mark.skipif(
    not os.environ.get(VARIABLE),
    reason=f'set {VARIABLE} to compressed_SqueezeNet.net of github.com/songhan/SqueezeNet-Deep-Compression (BSD)',
)


def made(first=(0, 2, 15, 1), codes=(7, 3, 0, 255)):
    """Returns a file whose layers all begin with four entries, the third a filler, and are zero otherwise."""
    parts = [np.full(26, 4, '<u4').tobytes()]
    for shape in deep_compression.SHAPES.values():
        low, high = first[::2], first[1::2]
        pairs = bytes(a | b << 4 for a, b in zip(low, high, strict=True))
        parts += [np.arange(256, dtype='<f4').tobytes(), np.full(shape[0], 0.5, '<f4').tobytes(), bytes(codes), pairs]
    return b''.join(parts)


def test_codes_and_gaps_are_read_as_the_decoder_reads_them(tmp_path):
    """By hand: gaps 0, 2, 15, 1 are the places 0, 3, 19, 21; the filler at 19 is zero."""
    (tmp_path / 'a.net').write_bytes(made())
    tensors = deep_compression.read(tmp_path / 'a.net')
    kernel = tensors['fire2/expand3x3.weight']
    assert kernel.shape == (64, 16, 3, 3) and kernel[0, 0, 0, 0] == 7 and kernel[0, 0, 1, 0] == 3
    assert np.flatnonzero(kernel).tolist() == [0, 3, 21] and kernel.reshape(-1)[21] == 255
    assert tensors['conv10.bias'].tolist() == [0.5] * 1000


def test_the_tensors_are_our_squeezenets(tmp_path):
    (tmp_path / 'a.net').write_bytes(made())
    module, variables = conversion.to_variables(deep_compression.read(tmp_path / 'a.net'), 'songhan/SqueezeNet')
    assert trees.count(variables) == 1_248_424  # the paper's table 1
    assert (module.head_padding, module.num_classes) == (1, 1000)
    back = conversion.to_tensors(variables, 'songhan/SqueezeNet')
    assert list(back['fire9/expand3x3.weight'].reshape(-1)[[0, 3, 21]]) == [7, 3, 255]


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda data: data[:-1], 'ends after'),
        (lambda data: b'', 'ends after 0 bytes'),
        (lambda data: data + b'\0', '1 bytes follow'),
        (lambda data: b'\xff' * 104 + data[104:], 'ends after'),
        (lambda data: data[:104] + b'\x01' + data[105:], 'codebook'),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, damage, message):
    (tmp_path / 'a.net').write_bytes(damage(made()))
    with pytest.raises(ValueError, match=message):
        deep_compression.read(tmp_path / 'a.net')


def test_the_file_is_recognised_by_its_name_and_by_its_length(tmp_path):
    for name in ('a.net', 'b.bin'):
        (tmp_path / name).write_bytes(made())
        assert len(weight_files.read(tmp_path / name)) == 52
    (tmp_path / 'a.net').write_bytes(made()[:-1])
    with pytest.raises(UserError, match='SqueezeNet of Deep Compression: it ends after'):
        weight_files.read(tmp_path / 'a.net')


@pytest.fixture(scope='module')
def published():
    return conversion.to_variables(deep_compression.read(Path(os.environ[VARIABLE])), 'songhan/SqueezeNet')


@needs_the_file
def test_the_published_net_keeps_a_third_of_its_weights(published):
    """415,921 nonzeros of 1,244,448 weights: 33 % (SqueezeNet, table 2)."""
    kernels = [leaf for path, leaf in trees.named_leaves(published[1]) if path.endswith('kernel')]
    assert (sum(map(np.count_nonzero, kernels)), sum(kernel.size for kernel in kernels)) == (415_921, 1_244_448)


@needs_the_file
def test_the_published_net_sees_the_bell_cote(published):
    module, variables = published
    prepare, _ = preprocessing.of('songhan/SqueezeNet', 227)
    logits = jax.jit(module.apply)(variables, prepare(load_sample_image('china.jpg'))[None])
    assert preprocessing.imagenet_classes()[int(logits.argmax())] == 'bell cote'


@needs_the_file
def test_our_coding_of_the_published_weights_is_smaller_than_the_published_file(published, tmp_path):
    arrays = dict(trees.named_leaves(published[1]))
    sizes = container.write(tmp_path / 'net.cvr', arrays, {})
    assert sum(sizes.values()) < 556_465 < 675_763  # what Huffman codes of the file's own streams make of it
    back = container.Reader(tmp_path / 'net.cvr').arrays()
    assert all(back[name].tobytes() == np.asarray(array).tobytes() for name, array in arrays.items())
