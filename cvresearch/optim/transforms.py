"""What stands around an optimizer's own rule: norms block by block, decay, rates. Optax transforms.

Identical blocks may be one leaf (nn/stacked.py). What goes by the norm of a layer takes such a leaf apart.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cvresearch.optim import param_filters
from cvresearch.optim.schedules import Schedule

Transform = optax.GradientTransformation


def per_block(rule: Callable[[jax.Array, jax.Array], jax.Array], where: Callable[[str], bool]) -> Transform:
    """Applies a rule to each layer by itself.

    Args:
      rule: maps (update, parameter) to the new update; it is given no stacked leaves.
      where: of the path of a parameter; elsewhere updates are left alone.
    """

    def update(updates, params):
        def leaf(g, p, stacked, chosen):
            if not np.any(chosen):
                return g
            # A stacked leaf has one norm for many layers: the rule is applied to each block by itself.
            ruled = jax.vmap(rule)(g, p) if stacked else rule(g, p)
            return ruled if np.all(chosen) else jnp.where(chosen > 0, ruled, g)

        stacked, chosen = param_filters.is_stacked(params), param_filters.values(params, where)
        return jax.tree.map(leaf, updates, params, stacked, chosen)

    return optax.stateless(update)


def weight_decay(amount: float, where: Callable[[str], bool]) -> Transform:
    """Adds `amount` times the parameter, where `where` (of its path) says so."""
    return _penalty(amount, where, lambda p: p)


def l1(amount: float, where: Callable[[str], bool]) -> Transform:
    """Adds the gradient of `amount` times the sum of absolute values."""
    return _penalty(amount, where, jnp.sign)


def _penalty(amount: float, where: Callable[[str], bool], gradient: Callable[[jax.Array], jax.Array]) -> Transform:
    if not amount:
        return optax.identity()

    def update(updates, params):
        def leaf(g, p, chosen):
            if not np.any(chosen):
                return g
            return g + amount * gradient(p) * (1 if np.all(chosen) else chosen)

        return jax.tree.map(leaf, updates, params, param_filters.values(params, where))

    return optax.stateless(update)


def agc(clipping: float, eps: float, exclude: tuple[str, ...]) -> Transform:
    """Adaptive gradient clipping, unit by unit (Brock et al. 2021, arXiv:2102.06171, section 4.1)."""
    clip = optax.adaptive_grad_clip(clipping, eps)

    def rule(g: jax.Array, p: jax.Array) -> Any:
        return clip.update(g, clip.init(p), p)[0]

    return per_block(rule, lambda path: not any(param_filters.matches(pattern, path) for pattern in exclude))


def trust_ratio(where: Callable[[str], bool]) -> Transform:
    """Gives each layer's update the norm of its weights (You et al. 2020, arXiv:1904.00962, algorithm 2)."""
    scale = optax.scale_by_trust_ratio()

    def rule(g: jax.Array, p: jax.Array) -> Any:
        return scale.update(g, scale.init(p), p)[0]

    return per_block(rule, where)


def averaged_momentum(momentum: float, nesterov: bool) -> Transform:
    """Replaces gradients by their average m = momentum * m + (1 - momentum) * g, from 0, without correcting the bias.

    With `nesterov` the result is momentum * m + (1 - momentum) * g.
    """

    def average(m, g):
        return jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g, m, g)

    def update(updates, state, params=None):
        trace = average(state.trace, updates)
        return average(trace, updates) if nesterov else trace, optax.TraceState(trace)

    return Transform(lambda params: optax.TraceState(jax.tree.map(jnp.zeros_like, params)), update)


def orthogonal(g: jax.Array, iterations: int) -> jax.Array:
    """Returns a kernel whose matrix (all axes but the last, last) has the singular vectors of `g` and values near 1.

    The quintic iteration of Newton and Schulz with the coefficients of Jordan et al. 2024; values are 0.7 to 1.2.
    """
    x = g.reshape(-1, g.shape[-1])
    tall = x.shape[0] > x.shape[1]
    # The shorter side is multiplied: the products cost its square times the longer.
    x = x.T if tall else x
    # The Frobenius norm bounds the spectral one, and the iteration converges for singular values of at most 1.
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(iterations):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if tall else x).reshape(g.shape)


def lars_rate(trust: float, weight_decay: float, eps: float, where: Callable[[str], bool]) -> Transform:
    """The local learning rate of LARS, and its weight decay (You et al. 2017, arXiv:1708.03888, equation 6).

    trust * |w| / (|g| + weight_decay * |w| + eps) times (g + weight_decay * w). Optax divides by the norm
    of the sum instead, which is another number wherever w and g are not parallel.
    """

    def rule(g: jax.Array, p: jax.Array) -> jax.Array:
        w_norm, g_norm = jnp.linalg.norm(p.ravel()), jnp.linalg.norm(g.ravel())
        ratio = trust * w_norm / (g_norm + weight_decay * w_norm + eps)
        # Weights at zero, as gains of a last norm at the start, would have a rate of zero and never leave it.
        ratio = jnp.where((w_norm > 0) & (g_norm > 0), ratio, 1.0)
        return ratio * (g + weight_decay * p)

    return per_block(rule, where)


def learning_rate(schedule: Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the rate of the step, and by `rate_scale`, an extra argument, where it is given."""

    def update(updates: Any, state: Any, params: Any = None, *, rate_scale: Any = None, **_: Any):
        rate = -schedule(state.count)
        # By an argument, not by the schedule: the plateau is found while the program runs and must not compile anew.
        rate = rate if rate_scale is None else rate * rate_scale
        updates = jax.tree.map(lambda g: jnp.asarray(rate, g.dtype) * g, updates)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    def init(params):
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_path(factor_of: Callable[[str], float]) -> Transform:
    """Multiplies each update by a factor of its parameter's path."""

    def update(updates, params):
        # Zeros, not a product with zero: the compiler then leaves out the gradients of what is frozen.
        return jax.tree.map(
            lambda g, factor: g * factor if np.any(factor) else jnp.zeros_like(g),
            updates,
            param_filters.values(params, factor_of),
        )

    return optax.stateless(update)


def thaw(start_of: Callable[[str], int]) -> Transform:
    """Sets updates to zero before the step at which their parameter begins to learn."""

    def update(updates: Any, state: Any, params: Any = None):
        starts = param_filters.values(params, start_of)
        updates = jax.tree.map(lambda g, start: jnp.where(state.count >= start, g, jnp.zeros_like(g)), updates, starts)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    def init(params):
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    return Transform(init, update)


def is_kernel(path: str) -> bool:
    """Whether a parameter is a kernel; biases, gains and the scales of norms are not."""
    return path.rpartition('/')[2] == 'kernel'
