"""cvresearch: convolutional classifiers, their history, and tables for papers, in JAX and Flax.

import cvresearch
net = cvresearch.load('file:resnet50.safetensors#torchvision/resnet50')     # or run:DIR, hub:OWNER/NET
net.logits(images); net.features(images, ['stage4'])
module = cvresearch.create_model('resnet50', num_classes=10)                # linen, without weights
cvresearch.list_models('res*')
cvresearch.param_groups(module, (224, 224, 3))                              # stem, stages, head
cvresearch.freeze(module, params, ['stem_.*'])                              # for a loop of your own
"""

import importlib

__version__ = '0.2.0'

# What the package gives, imported when it is asked for: `import cvresearch` alone takes no JAX.
_PUBLIC = {
    'load': 'cvresearch.engine.classifiers',
    'create_model': 'cvresearch.models.registry',
    'list_models': 'cvresearch.models.registry',
    'param_groups': 'cvresearch.inspect.groups',
    'freeze': 'cvresearch.engine.freezing',
    'Classifier': 'cvresearch.interop.classifier',
}
__all__ = ['Classifier', 'create_model', 'freeze', 'list_models', 'load', 'param_groups']

# For `python -m cvresearch.tables` and the like: each former name of a command is a file there.
__path__.append(f'{__path__[0]}/former')


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(_PUBLIC[name]), name)
