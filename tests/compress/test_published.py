"""Deep Compression's tables against arithmetic from their own bits."""

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.compress import published
from cvresearch.interop import tensor_codes
from cvresearch.optim import sharing

ALEXNET = 'AlexNet (BVLC, grouped)'


def test_alexnets_convolutions_follow_from_their_bits():
    """Kept x (8 + 4) / 32 and the codebook, within a quarter of a percent of float32: what the table rounds."""
    convolutions = [each for each in published.deep_compression(ALEXNET) if each.layer.startswith('conv')]
    assert len(convolutions) == 5
    for each in convolutions:
        assert 100 * each.rate() == pytest.approx(100 * each.rate_pq, abs=0.41 if each.layer == 'conv1' else 0.25)


def test_alexnets_dense_layers_need_fillers():
    for each in published.deep_compression(ALEXNET)[5:7]:
        assert each.rate() < each.rate_pq < each.rate(fillers=each.random_fillers())


def test_alexnets_megabytes():
    """Deep Compression's table 7: 27, 8.9 and 6.9 MB. Of 240 MB the published rates are 9.05 and 7.07 by layer."""
    total = published.comparison(ALEXNET)[-1]
    assert total['weights'] == 60_954_656
    assert total['pruned'] == pytest.approx(27.18, abs=0.01)
    assert (total['pq'], total['pqh']) == (pytest.approx(9.05, abs=0.01), pytest.approx(7.07, abs=0.01))
    assert 7.95 < total['pq_none'] < 8.9 < total['pq_random'] <= 9.6
    assert total['pqh_none'] < 6.9 < total['pqh_random']


@pytest.mark.parametrize(('network', 'ratio'), [('LeNet-300-100', 40), ('LeNet-5 (Caffe)', 39)])
def test_the_published_ratio_is_that_of_the_layers(network, ratio):
    """The tables' rates by layer give the ratios of table 1; kept shares are rounded to whole percents."""
    total = published.comparison(network)[-1]
    assert 4e-6 * total['weights'] / total['pqh'] == pytest.approx(ratio, rel=0.07)


def test_random_fillers_are_those_that_the_coding_writes():
    """fc6: 0.284 fillers for each kept weight at 9 % and 4 bits."""
    fc6 = published.deep_compression(ALEXNET)[5]
    assert fc6.random_fillers() == pytest.approx(0.284, abs=5e-4)
    places = np.flatnonzero(np.random.default_rng(0).random(2_000_000) < 0.09)
    _, is_filler = tensor_codes.relative(places, 4)
    assert is_filler.sum() / len(places) == pytest.approx(fc6.random_fillers(), rel=0.02)


def test_a_pruned_and_shared_layer_of_ours_is_of_the_published_size():
    """A tenth of fc7 with random weights: 9 % kept, 5 bits, no Huffman: at most what 4 bits of gap would take."""
    fc7 = published.deep_compression(ALEXNET)[6]
    weights = np.random.default_rng(0).normal(size=(409, 4096)).astype(np.float32)
    weights[np.abs(weights) < np.quantile(np.abs(weights), 1 - fc7.kept)] = 0
    _, data = tensor_codes.encode(sharing.share(weights, 5).weights(), huffman_codes=False)
    rate = len(data) / weights.nbytes
    assert fc7.rate() < rate <= fc7.rate(fillers=fc7.random_fillers()) + 32 / weights.size
    assert rate == pytest.approx(fc7.rate_pq, rel=0.05)


def test_a_network_without_a_table_is_an_error():
    with pytest.raises(UserError, match='did you mean'):
        published.comparison('AlexNet')
