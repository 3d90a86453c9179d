"""Writes tests/compress/onnxruntime_int8.npz: a small net quantised by onnxruntime, and its logits.

    pip install onnxruntime==1.32.0 onnx && python -m tests.goldens.onnxruntime_int8

The net: 3x3 convolution with stride 2, 3x3 depthwise, 1x1, each with ReLU, mean over the map, dense layer. Weights are
int8 with a scale for each channel, activations uint8 by their minimum and maximum.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

SHAPES = {'conv1': (8, 3, 3, 3), 'depthwise': (8, 1, 3, 3), 'pointwise': (16, 8, 1, 1), 'head': (16, 5)}


def tensors() -> dict[str, np.ndarray]:
    """Returns weights with one depthwise channel far larger than the others, as folded norms make them.

    What that channel is given is as much smaller, and what follows hardly counts it.
    """
    rng = np.random.default_rng(0)
    found = {}
    for name, shape in SHAPES.items():
        weight = rng.normal(size=shape) / np.sqrt(np.prod(shape) / max(shape[0], shape[-1]))
        features = shape[1] if name == 'head' else shape[0]
        found |= {f'{name}.weight': weight, f'{name}.bias': rng.normal(size=features) / 5}
    found['conv1.weight'][0] /= 100
    found['conv1.bias'][0] /= 100
    found['depthwise.weight'][0] *= 100
    found['pointwise.weight'][:, 0] /= 100
    return {name: value.astype(np.float32) for name, value in found.items()}


def model(values: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Returns the net in ONNX."""
    nodes, x = [], 'images'
    for name, options in (('conv1', dict(strides=[2, 2])), ('depthwise', dict(group=8)), ('pointwise', {})):
        pads = [0] * 4 if name == 'pointwise' else [1] * 4
        inputs = [x, f'{name}.weight', f'{name}.bias']
        nodes.append(helper.make_node('Conv', inputs, [f'{name}.y'], name, pads=pads, **options))
        nodes.append(helper.make_node('Relu', [f'{name}.y'], [f'{name}.out'], f'{name}.relu'))
        x = f'{name}.out'
    nodes.append(helper.make_node('GlobalAveragePool', [x], ['mean'], 'mean_'))
    nodes.append(helper.make_node('Flatten', ['mean'], ['flat'], 'flat_'))
    nodes.append(helper.make_node('Gemm', ['flat', 'head.weight', 'head.bias'], ['logits'], 'head'))
    graph = helper.make_graph(
        nodes,
        'net',
        [helper.make_tensor_value_info('images', TensorProto.FLOAT, ['n', 3, 16, 16])],
        [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['n', 5])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)


class Images(CalibrationDataReader):
    """One batch after another."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        """Returns the next batch by the input's name."""
        batch = next(self.batches, None)
        return None if batch is None else {'images': batch}


def quantised(folder: Path, images: np.ndarray, per_channel: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the initialisers of the quantised net, and its logits."""
    target = folder / f'{per_channel}.onnx'
    quantize_static(
        folder / 'net.onnx',
        target,
        Images(np.split(images, 4)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=['Conv', 'Gemm'],
        per_channel=per_channel,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    values = {each.name: numpy_helper.to_array(each) for each in onnx.load(target).graph.initializer}
    logits = onnxruntime.InferenceSession(target).run(None, {'images': images})[0]
    return values, logits


def main() -> None:
    """Writes the file."""
    values = tensors()
    images = np.random.default_rng(1).normal(size=(16, 3, 16, 16)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(model(values), folder / 'net.onnx')
        logits = onnxruntime.InferenceSession(folder / 'net.onnx').run(None, {'images': images})[0]
        found, by_channel = quantised(folder, images, True)
        _, by_tensor = quantised(folder, images, False)
    wanted = ('images_', 'conv1.out_', 'depthwise.out_', 'flat_', *(f'{layer}.weight' for layer in SHAPES))
    kept = {name: value for name, value in found.items() if name.startswith(wanted)}
    np.savez_compressed(
        Path(__file__).parent.parent / 'compress' / 'onnxruntime_int8.npz',
        images=images,
        logits=logits,
        by_channel=by_channel,
        by_tensor=by_tensor,
        version=np.array(onnxruntime.__version__),
        **values,
        **kept,
    )


if __name__ == '__main__':
    main()
