"""Runs exported nets where this package is not: `python -S outside.py FOLDER PACKAGES...` in a process of its own.

Reads FOLDER/images.npy, net.onnx and net.stablehlo; writes the logits of both at several batches to FOLDER/logits.npz,
with what the StableHLO program says of itself.
"""

import importlib.util
import os
import sys

BATCHES = {'onnx': (1, 3, 8), 'stablehlo': (1, 8)}  # each is compiled anew in StableHLO


def main(folder: str, packages: list[str]) -> None:
    """Writes the logits.

    Raises:
      SystemExit: this package can be imported.
    """
    sys.path = [place for place in sys.path if os.path.dirname(os.path.abspath(__file__)) != place] + packages
    if any(importlib.util.find_spec(name) for name in ('cvresearch', 'configs')):
        sys.exit('cvresearch can be imported; this shows nothing')
    import jax
    import numpy as np
    import onnxruntime

    images = np.load(f'{folder}/images.npy')
    session = onnxruntime.InferenceSession(f'{folder}/net.onnx', providers=['CPUExecutionProvider'])
    with open(f'{folder}/net.stablehlo', 'rb') as file:
        exported = jax.export.deserialize(bytearray(file.read()))
    runs = {'onnx': lambda x: session.run(['logits'], {'images': x})[0], 'stablehlo': exported.call}
    found = {f'{form}{n}': np.asarray(run(images[:n])) for form, run in runs.items() for n in BATCHES[form]}
    text = exported.mlir_module()
    np.savez(
        f'{folder}/logits.npz',
        custom_calls=text.count('custom_call'),
        platforms=','.join(exported.platforms),
        batch=str(exported.in_avals[0].shape[0]),
        **found,
    )


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2:])
