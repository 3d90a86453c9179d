"""Nets with weights that are a function of their names, for the tests of what leaves the project."""

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import trees
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
# With 1.0 these amplify rounding: of SENets (the gates) float32 is then 1e-5 to 2e-3 from float64, whoever computes it.
# The other two then differ by 1.1e-5 and 1.5e-5 between runtimes; they were not compared in float64.
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


def small_net(name, num_classes=None):
    """Returns (module, variables, input shape) of a variant."""
    module, shape = registry.build(name, num_classes), small_shape(name)
    variance = next((value for start, value in VARIANCES.items() if name.startswith(start)), 1.0)
    return module, seeded_variables(module, shape, variance), shape


def logits(module, variables, images):
    """Returns what our net says, by jit, under the lowering that training and evaluation use."""
    return np.asarray(jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images))


def relative_error(got, expected):
    """Returns the largest difference relative to the largest logit."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())
