"""Nets with weights that are a function of their names, for the tests of what leaves the project."""

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import trees
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.interop.classifier import Classifier, Provenance
from cvresearch.models import registry
from tests.goldens import seeded

_CATALOGUE = registry.catalogue()
# Of each file of models/, the variant that costs least.
CHEAPEST = tuple(
    {
        _CATALOGUE[name].module.__module__: name
        for name in sorted(_CATALOGUE, key=lambda n: -(_CATALOGUE[n].macs or 1e12))
    }.values()
)
# With 1.0 these amplify rounding (docs/records/rounding.csv): float32 is then 1e-5 to 2e-3 from float64 of SENets (the
# gates), 2e-6 to 5e-6 of the other two, whoever computes it, and two runtimes up to 1.5e-5 from each other.
VARIANCES = {'legacy_se': 2.0, 'mnasnet': 1.4, 'mobilenetv2': 1.4}
_NAMES = {'scale': 'gamma', 'var': 'moving_variance'}


def small_shape(name):
    """Returns an input shape of a variant, the smallest at which a reference library has been run."""
    sizes = [reference.input_shape for reference in registry.references().values() if reference.variant == name]
    return min([registry.variant(name).input_shape, *sizes])


def seeded_variables(module, shape, variance=1.0):
    """Returns variables of which no norm is the identity; see `seeded.tensor` for the variance."""

    def leaf(path, spec):
        parts = list(map(trees.key_name, path))
        depthwise = parts[-1] == 'kernel' and len(spec.shape) == 4 and spec.shape[2] == 1
        parts[-1] = 'depthwise_kernel' if depthwise else _NAMES.get(parts[-1], parts[-1])
        return seeded.tensor('/'.join(parts), spec.shape, variance)

    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    specs = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    return jax.tree_util.tree_map_with_path(leaf, specs)


def small_net(name, num_classes=None, variance=None):
    """Returns (module, variables, input shape) of a variant; the variance is the family's own if None."""
    module, shape = registry.build(name, num_classes), small_shape(name)
    variance = variance or next((value for start, value in VARIANCES.items() if name.startswith(start)), 1.0)
    return module, seeded_variables(module, shape, variance), shape


def of_library(name, names=('cat', 'dog', 'é')):
    """Returns a classifier that computes what a reference does, such as timm/mobilenetv2_035, with seeded weights."""
    theirs = registry.reference(name)
    module, shape = registry.build(theirs.variant, len(names), **theirs.arguments), small_shape(theirs.variant)
    prepared = Preprocessing(crop=32, resize=40, interpolation='bicubic', mean=(0.1, 0.5, 0.7), std=(0.2, 0.3, 0.4))
    variables = jax.tree.map(np.asarray, seeded_variables(module, shape))
    return Classifier(module, variables, prepared, tuple(names), Provenance('run', 'run:x', theirs.variant, '00'))


def logits(module, variables, images):
    """Returns what our net says, by jit, under the lowering that training and evaluation use."""
    return np.asarray(jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images))


def relative_error(got, expected):
    """Returns the largest difference relative to the largest logit."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())
