"""Writes tests/interop/dahuffman.json: lengths of texts by the package dahuffman.

pip install dahuffman==0.4.2 && python -m tests.goldens.dahuffman_lengths
"""

import importlib.metadata
import json
from pathlib import Path

import dahuffman
import numpy as np


def case(counts: list[int]) -> dict:
    """Returns the counts and the bits that dahuffman needs, its end-of-text symbol included."""
    table = dahuffman.HuffmanCodec.from_frequencies(dict(enumerate(counts))).get_code_table()
    lengths = {symbol: bits for symbol, (bits, _) in table.items()}
    end = [bits for symbol, bits in lengths.items() if symbol not in range(len(counts))]
    return {'counts': counts, 'bits': sum(n * lengths[s] for s, n in enumerate(counts)) + end[0]}


def main() -> None:
    """Writes the file."""
    rng = np.random.default_rng(0)
    cases = [case([5, 3]), case([7, 1, 1, 1]), case([45, 13, 12, 16, 9, 5])]
    cases += [case(rng.geometric(1 / scale, size).tolist()) for size, scale in ((16, 50), (64, 300), (256, 100))]
    path = Path(__file__).parent.parent / 'interop' / 'dahuffman.json'
    path.write_text(json.dumps({'dahuffman': importlib.metadata.version('dahuffman'), 'cases': cases}) + '\n')


if __name__ == '__main__':
    main()
