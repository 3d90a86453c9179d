"""Published compression, layer by layer, beside the arithmetic that its numbers follow from.

`published.csv` has Han et al. 2015 (arXiv:1506.02626), Deep Compression (arXiv:1510.00149), SqueezeNet
(arXiv:1602.07360) and reproductions, each row with its source and evidence. `bits` is w8;i4: bits of a weight and of a
gap; hw, hi: their mean lengths by Huffman; rate_pq, rate_pqh: size in percent of float32 without and with Huffman.
"""

import csv
import dataclasses
import functools
import importlib.resources
import re
from collections.abc import Iterable

from cvresearch.base.errors import lookup

# Our architecture of each network that Deep Compression has a table of, by the name in the file.
NETWORKS = {'AlexNet (BVLC, grouped)': '4', 'LeNet-300-100': '2', 'LeNet-5 (Caffe)': '3', 'VGG-16': '5'}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One row of Deep Compression's tables 2 to 5.

    Attributes:
      layer: its name there.
      weights: without biases.
      kept: share of the weights after pruning.
      weight_bits, gap_bits: of a shared weight and of a gap.
      huffman_weight_bits, huffman_gap_bits: their mean lengths.
      rate_pq, rate_pqh: published size over float32's, without and with Huffman.
    """

    layer: str
    weights: int
    kept: float
    weight_bits: float
    gap_bits: float
    huffman_weight_bits: float
    huffman_gap_bits: float
    rate_pq: float
    rate_pqh: float

    def size(self, huffman: bool = False, fillers: float = 0.0) -> float:
        """Returns the bytes that follow from the bits: entries and the codebook of 2^bits x float32.

        Args:
          huffman: with the mean lengths of the codes in place of their bits.
          fillers: zeros that are written for each weight that is not; `random_fillers` for zeros at random places.
        """
        bits = (self.huffman_weight_bits + self.huffman_gap_bits) if huffman else self.weight_bits + self.gap_bits
        return self.weights * self.kept * (1 + fillers) * bits / 8 + 4 * 2**self.weight_bits

    def rate(self, huffman: bool = False, fillers: float = 0.0) -> float:
        """Returns `size` over the size in float32."""
        return self.size(huffman, fillers) / (4 * self.weights)

    def random_fillers(self) -> float:
        """Returns the fillers for each weight that is kept, if those lie at random places.

        Ways between them then are geometric: a way has at least m steps with probability (1 - kept)^m, and each whole
        2^gap_bits of them takes a filler.
        """
        way = (1 - self.kept) ** (2**self.gap_bits)
        return way / (1 - way)


@functools.cache
def rows() -> tuple[dict[str, str], ...]:
    """Returns the rows of `published.csv`."""
    text = importlib.resources.files('cvresearch.compress').joinpath('published.csv').read_text(encoding='utf-8')
    return tuple(csv.DictReader(text.splitlines()))


def deep_compression(network: str) -> list[Layer]:
    """Returns Deep Compression's table of a network, without the row of totals.

    Raises:
      UserError: it has none.
    """
    number = lookup('network of Deep Compression', NETWORKS, network)
    of_network = [row for row in rows() if row['network'] == network and row['layer'] != 'total']
    # Han et al. and Deep Compression name the dense layers of LeNet differently; both go in the order of the net.
    exact = [_number(row['parameters']) for row in of_network if 'arXiv:1506.02626' in row['source']]
    table = [row for row in of_network if f'(arXiv:1510.00149) table {number}' in row['source'] and 'w' in row['bits']]
    return [_layer(row, weights) for row, weights in zip(table, exact, strict=True)]


def _layer(row: dict[str, str], weights: int) -> Layer:
    bits = {key: float(value) for key, value in re.findall(r'([a-z_]+)([\d.]+)', row['bits'])}
    return Layer(
        row['layer'],
        weights,
        float(row['kept_percent']) / 100,
        bits['w'],
        bits['i'],
        bits['hw'],
        bits['hi'],
        bits['rate_pq'] / 100,
        bits['rate_pqh'] / 100,
    )


def _number(text: str) -> int:
    scale = {'K': 1000, 'M': 1_000_000}.get(text[-1], 1)
    return round(float(text.rstrip('KM')) * scale)


def comparison(network: str) -> list[dict]:
    """Returns Deep Compression's table with our arithmetic: rates in percent, the last row the whole net's MB.

    `pruned` is 32 bits for each weight that is kept, without its place, as table 7 counts. `pq` and `pqh` are
    published; `none` is what follows from the bits without fillers, `random` with zeros at random places. The truth
    lies between: trained zeros cluster. The published rates of layers do not add up to the whole's: of LeNet-5 to
    7 % more, of VGG-16 to 12 % less.
    """
    layers = deep_compression(network)
    table = [
        {
            'layer': layer.layer,
            'weights': layer.weights,
            **_row({name: 100 * rate for name, rate in _rates(layer).items()}),
        }
        for layer in layers
    ]
    totals = {
        name: sum(_rates(layer)[name] * 4 * layer.weights for layer in layers) / 1e6 for name in _rates(layers[0])
    }
    return [*table, {'layer': 'MB', 'weights': sum(layer.weights for layer in layers), **_row(totals)}]


def _rates(layer: Layer) -> dict[str, float]:
    random = layer.random_fillers()
    return {
        'pruned': layer.kept,
        'pq': layer.rate_pq,
        'pq_none': layer.rate(),
        'pq_random': layer.rate(fillers=random),
        'pqh': layer.rate_pqh,
        'pqh_none': layer.rate(True),
        'pqh_random': layer.rate(True, random),
    }


def _row(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f'{value:.4g}') for name, value in values.items()}


def columns(table: Iterable[dict]) -> tuple[str, ...]:
    """Returns the names of a table's columns."""
    return tuple(next(iter(table)))
