"""Records what torchvision and timm make of photographs by their own transforms: python tests/goldens/transforms.py

Needs the packages of requirements.txt beside it. Writes transforms.json: by each preparation its mean and deviation,
and the SHA-256 of the pixels (uint8, RGB) of every photograph that photographs.py cuts out; and files/transforms.npz:
of two nets with seeded weights the first logits, the class and the largest logit of every one.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))
from tests.goldens import photographs, seeded, torch_reference  # noqa: E402

torch_reference.define_missing_operators()

import timm  # noqa: E402
import torchvision  # noqa: E402
from timm.data import create_transform, resolve_data_config  # noqa: E402

COUNT, KEPT = 20, 40  # photographs; logits of each
TORCHVISION = (
    'resnet50.IMAGENET1K_V1',
    'resnet50.IMAGENET1K_V2',
    'efficientnet_b0.IMAGENET1K_V1',
    'efficientnet_b1.IMAGENET1K_V2',
    'efficientnet_b7.IMAGENET1K_V1',
    'inception_v3.IMAGENET1K_V1',
    'densenet121.IMAGENET1K_V1',
    'vgg16.IMAGENET1K_FEATURES',
)
TIMM = (
    'resnet50.a1_in1k',
    'resnet50.tv_in1k',
    'dm_nfnet_f0.dm_in1k',
    'tf_efficientnet_b3.ns_jft_in1k',
    'efficientnet_b5.sw_in12k_ft_in1k',
    'inception_v3.tv_in1k',
    'mobilenetv1_100.ra4_e3600_r224_in1k',
)
# What no weights of a reference ask for, and a config.json can.
CHANGES = (
    dict(interpolation='lanczos'),
    dict(crop_mode='border', crop_pct=0.8),
    dict(crop_mode='border', crop_pct=1.0),
    dict(crop_mode='squash', crop_pct=0.9, interpolation='nearest'),
    dict(input_size=[3, 97, 97], crop_pct=0.77),
)
NETS = {'torchvision/squeezenet1_1.IMAGENET1K_V1': 1.0, 'timm/mnasnet_small.lamb_in1k': 1.0}  # and the seeding


def transform_of(reference: str, change: dict | None = None):
    """Returns (the library's own transform for evaluation, mean, std)."""
    library, _, name = reference.partition('/')
    if library == 'torchvision':
        net, _, tag = name.partition('.')
        preset = torchvision.models.get_model_weights(net)[tag].transforms()
        return preset, preset.mean, preset.std
    data = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict() | (change or {}))
    return create_transform(**data, is_training=False), data['mean'], data['std']


def prepared(data: bytes, transform) -> torch.Tensor:
    """Returns a net's input as torchvision's own loader and a transform make it of an image file."""
    return transform(Image.open(io.BytesIO(data)).convert('RGB'))


def digest(image: torch.Tensor, mean, std) -> str:
    """Returns the start of the SHA-256 of the pixels that were normalized."""
    pixels = np.rint((image.numpy().transpose(1, 2, 0) * np.float32(std) + np.float32(mean)) * 255).astype(np.uint8)
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def model_of(reference: str, variance: float) -> torch.nn.Module:
    """Returns a library's net with seeded weights."""
    model = torch_reference.build(reference.partition('.')[0]).eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(torch.from_numpy(seeded.tensor(key, tuple(value.shape), variance)))
    return model


def main() -> None:
    """Writes both files."""
    files = photographs.cut(COUNT)
    cases = [(f'torchvision/{name}', None) for name in TORCHVISION] + [(f'timm/{name}', None) for name in TIMM]
    cases += [('timm/resnet18.a1_in1k', change) for change in CHANGES]
    rows = []
    for reference, change in cases:
        transform, mean, std = transform_of(reference, change)
        row = {'reference': reference, 'change': change} if change else {'reference': reference}
        pixels = [digest(prepared(data, transform), mean, std) for data in files.values()]
        rows.append(row | {'mean': list(mean), 'std': list(std), 'pixels': pixels})
    record = {'torchvision': torchvision.__version__, 'timm': timm.__version__, 'preparations': rows}
    (HERE / 'transforms.json').write_text(json.dumps(record, indent=1) + '\n')
    arrays = {}
    for reference, variance in NETS.items():
        transform, *_ = transform_of(reference)
        with torch.no_grad():
            batch = torch.stack([prepared(data, transform) for data in files.values()])
            logits = model_of(reference, variance)(batch).numpy()
        print(reference, 'classes', len(set(logits.argmax(1).tolist())), np.abs(logits).max(), logits.std(0).max())
        key = reference.partition('/')[0]
        arrays |= {f'{key}_first': logits[:, :KEPT], f'{key}_top1': logits.argmax(1)}
        arrays[f'{key}_max'] = np.abs(logits).max()
    np.savez_compressed(HERE / 'files' / 'transforms.npz', **arrays)


if __name__ == '__main__':
    main()
