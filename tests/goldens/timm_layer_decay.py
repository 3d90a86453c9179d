"""Writes timm_layer_decay.json: the learning rate's factor of each parameter, as timm's layer decay has it.

    python tests/goldens/timm_layer_decay.py

Needs timm. Nothing here runs a net of this project.
"""

import json
from pathlib import Path

import timm
from timm.optim import param_groups_layer_decay

NETS = ('timm/resnet50', 'timm/resnet18', 'timm/tf_efficientnet_b0', 'timm/tf_efficientnet_lite0')


def rates(name: str) -> dict[str, float]:
    """Returns {name of the parameter: factor}, at timm's default of 0.75."""
    model = timm.create_model(name.partition('/')[2])
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=0.75)
    return {names[id(parameter)]: group['lr_scale'] for group in groups for parameter in group['params']}


if __name__ == '__main__':
    record = {'timm': timm.__version__, 'layer_decay': 0.75, 'rates': {name: rates(name) for name in NETS}}
    Path(__file__).with_suffix('.json').write_text(json.dumps(record, indent=0) + '\n')
