"""Records how timm prepares images: python tests/goldens/timm_preprocessing.py

Needs the packages of requirements.txt beside it. Writes timm_preprocessing.json: for each net the config.json that timm
would publish for it, and the size, resized side, interpolation, mean, std and mode that timm makes of this file. And
cvresearch/data/timm_preprocessing.csv: the same of all weights of timm that have a reference here, as timm's
`resolve_data_config` gives it, and the sizes with `use_test_size`, at which its published accuracies are measured.
"""

import csv
import json
import sys
from pathlib import Path

import torch_reference

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from cvresearch.models import registry

torch_reference.define_missing_operators()

import timm  # noqa: E402
from timm.data import create_transform, resolve_data_config  # noqa: E402
from timm.models import _hub  # noqa: E402

NETS = (
    'resnet18.a1_in1k',
    'resnet50.a1_in1k',
    'resnet50.tv_in1k',
    'resnet50.tv2_in1k',
    'resnet50.a3_in1k',
    'inception_v3.tv_in1k',
    'vgg16.tv_in1k',
    'mobilenetv2_100.ra_in1k',
    'tf_efficientnet_b3.ns_jft_in1k',
    'efficientnet_b5.sw_in12k_ft_in1k',
    'dm_nfnet_f0.dm_in1k',
    'legacy_xception.tf_in1k',
    'resnetv2_50.a1h_in1k',
)


def published(name: str) -> dict:
    """Returns the content of config.json as `timm.models._hub.save_config_for_hf` writes it."""
    config = timm.get_pretrained_cfg(name).to_dict()
    architecture = name.partition('.')[0]
    left_out = ('architecture', 'url', 'file', 'hf_hub_id', 'hf_hub_filename', 'source', 'state_dict')
    inner = {key: value for key, value in config.items() if key not in left_out and value is not None}
    return json.loads(
        json.dumps({'architecture': architecture, 'num_classes': config['num_classes'], 'pretrained_cfg': inner})
    )


def resolved(config: dict, test_size: bool) -> dict:
    """Returns what timm makes of a config.json."""
    values, _, _ = _hub._parse_model_cfg(json.loads(json.dumps(config)), {})
    data = resolve_data_config(pretrained_cfg=values, use_test_size=test_size)
    resize = create_transform(**data, is_training=False).transforms[0]
    side = resize.size if isinstance(resize.size, int) else resize.size[0]
    return {
        'crop': data['input_size'][1],
        'resize': side,
        'interpolation': data['interpolation'],
        'mean': data['mean'],
        'std': data['std'],
        'squash': data['crop_mode'] == 'squash',
    }


def row(net: str) -> dict:
    """Returns how timm prepares images for a net's weights ('resnet50.a1_in1k'; without a tag its default ones)."""
    config = timm.get_pretrained_cfg(net).to_dict()
    data, test = (resolve_data_config(pretrained_cfg=config, use_test_size=test) for test in (False, True))

    def sides(of: dict) -> dict:
        resize = create_transform(**of, is_training=False).transforms[0].size
        return dict(crop=of['input_size'][1], resize=resize if isinstance(resize, int) else resize[0])

    return {
        'net': net,
        **sides(data),
        'interpolation': data['interpolation'],
        'mode': data['crop_mode'],
        **{key: ' '.join(map(str, data[key])) for key in ('mean', 'std')},
        **{f'test_{key}': value for key, value in sides(test).items()},
    }


def write_table(path: Path) -> None:
    """Writes a row for each net of timm that has a reference, by its name alone and by each tag of its weights."""
    names = [name.removeprefix('timm/') for name in registry.references() if name.startswith('timm/')]
    rows = [row(net) for name in sorted(names) for net in (name, *timm.list_pretrained(f'{name}.*'))]
    with open(path, 'w', newline='') as file:
        table = csv.DictWriter(file, rows[0], lineterminator='\n')
        table.writeheader()
        table.writerows(rows)


if __name__ == '__main__':
    write_table(Path(__file__).parent.parent.parent / 'cvresearch' / 'data' / 'timm_preprocessing.csv')
    record = {}
    for name in NETS:
        config = published(name)
        record[name] = {'config': config, 'timm': resolved(config, False), 'timm_test_size': resolved(config, True)}
    text = json.dumps({'timm': timm.__version__, 'nets': record}, indent=1, sort_keys=True)
    (Path(__file__).parent / 'timm_preprocessing.json').write_text(f'{text}\n')
