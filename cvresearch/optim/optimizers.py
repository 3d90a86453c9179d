"""Optimizers as Optax transforms, by name.

Each function puts the parts of its rule in order: `decayed(amount)` is weight decay over the chosen parameters,
`rate` multiplies by minus the learning rate. A decay before the rule is L2; one after it is decoupled.
What may stand around any of them is in `updates.py`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Hashable, Mapping

import jax
import numpy as np
import optax
from optax import contrib

from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.optim import param_filters, transforms
from cvresearch.optim.param_filters import matches
from cvresearch.optim.schedules import Schedule
from cvresearch.optim.transforms import Transform
from cvresearch.optim.updates import PLAIN, OptimizerOptions

Decayed = Callable[[float], Transform]
Where = Callable[[str], bool]


def sgd(
    rate: Transform,
    decayed: Decayed,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> Transform:
    """Stochastic gradient descent; the learning rate is outside the momentum, as in PyTorch.

    `weight_decay` is L2, added to the gradient before the momentum; `decoupled` adds it after (SGDW).
    """
    decay, trace = decayed(weight_decay), optax.trace(momentum, nesterov) if momentum else optax.identity()
    return optax.chain(trace, decay, rate) if decoupled else optax.chain(decay, trace, rate)


def rmsprop_tf(
    rate: Transform,
    decayed: Decayed,
    decay: float = 0.9,
    momentum: float = 0.9,
    eps: float = 1e-3,
    initial: float = 1.0,
    eps_inside: bool = True,
    weight_decay: float = 0.0,
) -> Transform:
    """RMSProp as `tf.compat.v1.train.RMSPropOptimizer` defines it, which papers of Google use.

    ms = decay * ms + (1 - decay) * g ** 2, from `initial`; mom = momentum * mom + rate * g / sqrt(ms + eps);
    w -= mom. Epsilon is inside the root, the rate inside the momentum; in PyTorch both are outside and
    ms begins at 0. With `eps_inside=False, initial=0.0` epsilon and the start are PyTorch's. `weight_decay` is L2,
    added to the gradient.
    """
    return optax.chain(
        decayed(weight_decay),
        optax.scale_by_rms(decay, eps, initial_scale=initial, eps_in_sqrt=eps_inside),
        rate,
        optax.trace(momentum) if momentum else optax.identity(),
    )


def adam(
    rate: Transform,
    decayed: Decayed,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Transform:
    """Adam (Kingma & Ba 2015); `weight_decay` is L2, added to the gradient."""
    return optax.chain(decayed(weight_decay), optax.scale_by_adam(b1, b2, eps), rate)


def adamw(
    rate: Transform,
    decayed: Decayed,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Transform:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), scaled by the learning rate."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decayed(weight_decay), rate)


def adagrad(
    rate: Transform, decayed: Decayed, initial: float = 0.1, eps: float = 1e-7, weight_decay: float = 0.0
) -> Transform:
    """AdaGrad (Duchi et al. 2011); squares are summed from `initial`, and epsilon is inside the root."""
    return optax.chain(decayed(weight_decay), optax.scale_by_rss(initial, eps), rate)


def lamb(
    rate: Transform,
    decayed: Decayed,
    where: Where,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 1e-2,
) -> Transform:
    """LAMB (You et al. 2020, arXiv:1904.00962, algorithm 2): Adam, each layer's step as long as its weights.

    Parameters that are not decayed take Adam's step.
    """
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decayed(weight_decay), transforms.trust_ratio(where), rate)


def lars(
    rate: Transform,
    where: Where,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust: float = 1e-3,
    eps: float = 0.0,
    weight_decay: float = 0.0,
) -> Transform:
    """LARS (You et al. 2017, arXiv:1708.03888, algorithm 1); the rate is inside the momentum.

    Parameters that are not decayed have no rate of their own: theirs is the global one.
    """
    return optax.chain(
        transforms.lars_rate(trust, weight_decay, eps, where),
        rate,
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
    )


def lion(rate: Transform, decayed: Decayed, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 1e-2) -> Transform:
    """Lion (Chen et al. 2023, arXiv:2302.06675, algorithm 2): the sign of an interpolated momentum."""
    return optax.chain(optax.scale_by_lion(b1, b2), decayed(weight_decay), rate)


def muon(
    rate: Transform,
    decayed: Decayed,
    momentum: float = 0.95,
    nesterov: bool = True,
    iterations: int = 5,
    adam_rate: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    exclude: tuple = ('head',),
    weight_decay: float = 1e-2,
) -> Transform:
    """Muon as Optax has it: momentum made orthogonal, layer by layer; AdamW for all that is no hidden matrix.

    With Nesterov's momentum Optax corrects the bias of the average m and of the gradient g, so that they have other
    shares than in the published rule (`muon_published`), most in the first steps: in the second it takes the direction
    of 0.929 m + 0.071 g, the published rule takes 0.95 m + 0.05 g.

    Args:
      adam_rate: AdamW's learning rate as a part of Muon's.
      exclude: kernels that AdamW takes too; a kernel of a convolution is a matrix of (taps * inputs, outputs).
    """

    def matrices(tree):
        def leaf(x, stacked):
            return contrib.MuonDimensionNumbers(tuple(range(int(stacked), x.ndim - 1)), x.ndim - 1)

        return jax.tree.map(leaf, tree, param_filters.is_stacked(tree))

    orthogonal = optax.chain(
        contrib.scale_by_muon(ns_steps=iterations, beta=momentum, nesterov=nesterov, weight_dimension_numbers=matrices),
        _width(),
    )
    return optax.chain(_beside_adam(orthogonal, adam_rate, b1, b2, eps, exclude), decayed(weight_decay), rate)


def muon_published(
    rate: Transform,
    decayed: Decayed,
    momentum: float = 0.95,
    nesterov: bool = True,
    iterations: int = 5,
    adam_rate: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    exclude: tuple = ('head',),
    weight_decay: float = 1e-2,
) -> Transform:
    """Muon as its author has it (Jordan et al. 2024, github.com/KellerJordan/Muon), but in float32 throughout.

    m = momentum * m + (1 - momentum) * g; the step is momentum * m + (1 - momentum) * g with Nesterov's momentum, m
    without, made orthogonal by five steps of Newton and Schulz, times sqrt(max(1, outputs / inputs)). Nothing corrects
    the bias. The author's code makes the step orthogonal in bfloat16, and takes the last two axes for the shape of a
    convolution; here its matrix is (taps * inputs, outputs).

    Args:
      adam_rate: AdamW's learning rate as a part of Muon's.
      exclude: as of `muon`.
    """
    orthogonal = optax.chain(
        transforms.averaged_momentum(momentum, nesterov),
        transforms.per_block(lambda g, p: transforms.orthogonal(g, iterations), lambda path: True),
        _width(),
    )
    return optax.chain(_beside_adam(orthogonal, adam_rate, b1, b2, eps, exclude), decayed(weight_decay), rate)


def _width() -> Transform:
    """Multiplies the step of each matrix by sqrt(max(1, outputs / inputs)), the taps counted with the inputs."""
    return transforms.per_block(lambda g, p: g * max(1, p.shape[-1] ** 2 / p.size) ** 0.5, lambda path: True)


def _beside_adam(
    orthogonal: Transform, adam_rate: float, b1: float, b2: float, eps: float, exclude: tuple
) -> Transform:
    """Returns `orthogonal` for hidden kernels, Adam for all other parameters."""

    def labels(params):
        def of(path: str) -> bool:
            return transforms.is_kernel(path) and not any(param_filters.matches(pattern, path) for pattern in exclude)

        # Stacked blocks are taken together.
        return jax.tree.map(lambda chosen: 'muon' if np.all(chosen) else 'adam', param_filters.values(params, of))

    rules: dict[Hashable, Transform] = {
        'muon': orthogonal,
        'adam': optax.chain(optax.scale_by_adam(b1, b2, eps), optax.scale(adam_rate)),
    }
    return optax.partition(rules, labels)


OPTIMIZERS: dict[str, Callable] = {
    'sgd': sgd,
    'rmsprop_tf': rmsprop_tf,
    'adam': adam,
    'adamw': adamw,
    'adagrad': adagrad,
    'lamb': lamb,
    'lars': lars,
    'lion': lion,
    'muon': muon,
    'muon_published': muon_published,
}


@dataclasses.dataclass(frozen=True)
class Decay:
    """Which parameters are decayed, whatever the rule. Patterns are as in `param_filters`.

    Attributes:
      decay_all: weight decay is of all parameters, not only of kernels.
      decay_mask: patterns of the parameters that are decayed, instead of kernels.
      l1: times the sum of absolute values of the decayed parameters, added to the loss.
    """

    decay_all: bool = False
    decay_mask: tuple = ()
    l1: float = 0.0

    def __post_init__(self):
        if isinstance(self.l1, bool) or self.l1 < 0:
            raise UserError(f'config.optimizer.l1 is {self.l1!r}; expected a number of at least 0')

    def __call__(self, path: str) -> bool:
        """Whether the parameter of that path is decayed."""
        if self.decay_mask:
            return any(matches(pattern, path) for pattern in self.decay_mask)
        return self.decay_all or transforms.is_kernel(path)


COMMON = {field.name: field.default for field in dataclasses.fields(Decay)}


def make(
    spec: Mapping, schedule: Schedule, options: OptimizerOptions = PLAIN, steps_per_epoch: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer that a config's `optimizer` names.

    Its update takes `rate_scale`, a further factor of the learning rate, as an extra argument. `options.sam` and
    `options.accumulate` are not part of it: further gradients are the caller's to take. What the options freeze for
    good in inference mode has no moments: gradients and updates are then trees without it (`param_filters.without`).

    Args:
      spec: `name`, arguments of that function, and of `Decay`.
      schedule: the learning rate at each step.
      options: what stands around the rule.
      steps_per_epoch: for what is given in epochs.

    Raises:
      UserError: an unknown name or argument; from its `init`, a pattern that matches no parameter.
    """
    arguments = {name: value for name, value in dict(spec).items() if name != 'name'}
    rule = lookup('optimizer', OPTIMIZERS, dict(spec).get('name', ''))
    supplied = ('rate', 'decayed', 'where')
    parameters = inspect.signature(rule).parameters
    defaults = {name: one.default for name, one in parameters.items() if name not in supplied}
    check_arguments(f'optimizer {spec["name"]!r}', arguments, {**defaults, **COMMON})
    decay = Decay(**{name: arguments.pop(name) for name in COMMON if name in arguments})

    def decayed(amount: float) -> Transform:
        return transforms.weight_decay(amount, decay)

    supplied = dict(rate=transforms.learning_rate(schedule), decayed=decayed, where=decay)
    frozen = transforms.scale_by_path(lambda path: float(options.factor(path) > 0)) if options.freeze else None
    scaled = options.freeze or options.lr_scale or options.layers
    tx = optax.chain(
        *filter(
            None,
            (
                frozen,  # first: what does not learn has no share in the norm of the gradient
                transforms.agc(options.agc, options.agc_eps, tuple(options.agc_exclude)) if options.agc else None,
                optax.clip_by_global_norm(options.clip_norm) if options.clip_norm else None,
                transforms.l1(decay.l1, decay) if decay.l1 else None,
                rule(**arguments, **{name: value for name, value in supplied.items() if name in parameters}),
                transforms.thaw(lambda path: options.start(path, steps_per_epoch)) if options.freeze else None,
                transforms.scale_by_path(options.factor) if scaled else None,
            ),
        )
    )

    def init(params):
        param_filters.check('config.optimizer.decay_mask', decay.decay_mask, params)
        options.check(params)
        return tx.init(learning(params))

    def learning(params):
        return param_filters.without(params, options.never_learns) if options.inference else params

    def update(updates, state, params=None, **more):
        return tx.update(updates, state, learning(params), **more)

    return optax.GradientTransformationExtraArgs(init, update if options.inference else tx.update)
