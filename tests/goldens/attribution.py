"""Writes the golden file of class activation maps and attributions: grad-cam 1.5.7 and captum 0.9.0 on seeded nets.

    python tests/goldens/attribution.py [NAME...]

Needs the packages of attribution-requirements.txt. Nothing here runs a net of this project. All is float64: where the
input of a ReLU is near zero, rounding in float32 decides whether a gradient passes.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import seeded  # noqa: E402
import torch_reference  # noqa: E402

torch_reference.define_missing_operators()

from captum import attr  # noqa: E402
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus  # noqa: E402
from torch import fx, nn  # noqa: E402

# By net: side of the image, the layer of class activation maps (theirs), its name here.
NETS = {
    'torchvision/resnet18': (96, 'layer4.1', 'stage4_block1'),
    'torchvision/vgg11': (48, 'features.19', 'stage5_block1_conv+relu'),
    'torchvision/squeezenet1_0': (96, 'features.12', 'stage3_block0'),
    'torchvision/mobilenet_v2': (96, 'features.18', 'last_bn+relu6'),
    'torchvision/densenet121': (96, 'features.norm5', 'last_bn'),
}
CLASS, SAMPLES, PIXELS, STEPS, NOISE, WINDOW, STRIDE = 7, 4, 1000, 16, 0.2, 24, 16


class CappedReLU(nn.ReLU):
    """ReLU6 of a kind that captum's rules, which are for ReLU, apply to."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0).clamp(max=6)


def separate_rectifiers(model: nn.Module) -> nn.Module:
    """Returns the net with a ReLU of its own for every call, not in place: captum's hooks need both.

    DenseNet's last ReLU is in place, and grad-cam would keep its result together with the gradient before it.
    """
    graph = fx.symbolic_trace(model)
    for number, node in enumerate(list(graph.graph.nodes)):
        module = graph.get_submodule(node.target) if node.op == 'call_module' else None
        made = None
        if isinstance(module, nn.ReLU6):
            made = CappedReLU()
        elif isinstance(module, nn.ReLU) or (node.op == 'call_function' and node.target is nn.functional.relu):
            made = nn.ReLU()
        if made is not None:
            graph.add_submodule(f'rectifier{number}', made)
            with graph.graph.inserting_after(node):
                node.replace_all_uses_with(new := graph.graph.call_module(f'rectifier{number}', node.args[:1]))
            new.args = node.args[:1]
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def seeded_net(name: str) -> nn.Module:
    """Returns a net with seeded weights, float64."""
    model = torch_reference.build(name).eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(torch.from_numpy(seeded.tensor(key, tuple(value.shape))))
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False
    return model.double()


def noise_of(shape: tuple[int, ...]) -> np.ndarray:
    """Returns the noise of SmoothGrad, (samples, height, width, channels)."""
    return NOISE * seeded.image((SAMPLES, *shape), 'noise')


def class_maps(model: nn.Module, images: torch.Tensor, layer: str) -> dict[str, np.ndarray]:
    """Returns the maps of one class, each for the image."""
    target = [lambda logits: logits[CLASS]]
    found = {}
    for name, method in (('gradcam', GradCAM), ('gradcam++', GradCAMPlusPlus)):
        with method(model=model, target_layers=[model.get_submodule(layer)]) as cam:
            found[f'scaled {name}'] = cam(input_tensor=images.clone(), targets=target)
    layer_cam = attr.LayerGradCam(model, model.get_submodule(layer))
    found['gradcam'] = layer_cam.attribute(images, CLASS, relu_attributions=True)[:, 0].detach().numpy()
    return found


def pixel_maps(model: nn.Module, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns the attributions of one class, (1, height, width, channels)."""
    shape = (images.shape[2], images.shape[3], images.shape[1])
    noise = torch.from_numpy(noise_of(shape).transpose(0, 3, 1, 2).copy()).to(images.dtype)
    normal, torch.normal = torch.normal, lambda mean, deviation: noise
    try:
        smooth = attr.NoiseTunnel(attr.Saliency(model)).attribute(images, nt_samples=SAMPLES, target=CLASS)
    finally:
        torch.normal = normal
    found = dict(
        saliency=attr.Saliency(model).attribute(images, CLASS),
        smoothgrad=smooth,
        integrated=attr.IntegratedGradients(model).attribute(images, target=CLASS, n_steps=STEPS),
        guided=attr.GuidedBackprop(model).attribute(images, CLASS),
        deconv=attr.Deconvolution(model).attribute(images, CLASS),
        occlusion=attr.Occlusion(model).attribute(
            images, (3, WINDOW, WINDOW), (3, STRIDE, STRIDE), target=CLASS, perturbations_per_eval=4
        ),
    )
    return {key: value.detach().numpy().transpose(0, 2, 3, 1) for key, value in found.items()}


def golden(name: str) -> dict[str, np.ndarray]:
    """Returns the logits and the maps of a net."""
    side, layer, _ = NETS[name]
    nhwc = seeded.image((1, side, side, 3))
    images = torch.from_numpy(nhwc.transpose(0, 3, 1, 2).copy()).double()
    model = separate_rectifiers(seeded_net(name))
    return {'logits': model(images).detach().numpy()} | class_maps(model, images, layer) | pixel_maps(model, images)


def sampled(value: np.ndarray) -> np.ndarray:
    """Returns a thousand numbers of an array, drawn by a seed; all of a small one."""
    flat = value.reshape(-1)
    return flat if flat.size <= PIXELS else flat[np.random.default_rng(0).choice(flat.size, PIXELS, replace=False)]


def main(names: list[str]) -> None:
    """Writes attribution.npz anew, of all nets or of the named ones beside those that it has."""
    path = HERE / 'files' / 'attribution.npz'
    kept = dict(np.load(path)) if path.exists() else {}
    for name in names or NETS:
        for key, value in golden(name).items():
            kept[f'{name} {key}'] = sampled(value.astype(np.float32))
            kept[f'{name} {key} range'] = np.float32(np.ptp(value))
            print(name, key, f'{value.shape} {np.ptp(value):.3g}')
        np.savez_compressed(path, **kept)


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    main(sys.argv[1:])
