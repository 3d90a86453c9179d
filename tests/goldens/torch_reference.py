"""Builds nets of torchvision and timm on a CPU-only PyTorch. Not imported by the tests."""

import re
from importlib.util import find_spec
from pathlib import Path

import torch

_LIBRARIES = []


def define_missing_operators() -> None:
    """Lets torchvision be imported where its compiled operators cannot be loaded."""
    if _LIBRARIES:
        return
    library = torch.library.Library('torchvision', 'DEF')
    _LIBRARIES.append(library)
    folder = Path(find_spec('torchvision').submodule_search_locations[0])
    text = ''.join(
        (folder / file).read_text()
        for file in ('_meta_registrations.py', '_autograd_registrations.py')
        if (folder / file).exists()
    )
    for name in sorted(set(re.findall(r'torchvision(?:::|\.)(\w+)', text)) | {'nms'}):
        try:
            library.define(f'{name}(Tensor x) -> Tensor')
        except RuntimeError:  # already there
            continue


def build(name: str) -> torch.nn.Module:
    """Returns 'torchvision/resnet50' or 'timm/tf_efficientnet_b0' with uninitialised weights."""
    library, _, variant = name.partition('/')
    if library == 'lukemelas':
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name(variant)
    if library == 'torchvision':
        define_missing_operators()
        import torchvision

        variant, no_aux, _ = variant.partition('_no_aux')
        more = {'init_weights': False} if variant in ('googlenet', 'inception_v3') else {}
        more |= {'aux_logits': False} if no_aux else {}
        return getattr(torchvision.models, variant)(weights=None, **more)
    define_missing_operators()
    import timm

    return timm.create_model(variant, pretrained=False)
