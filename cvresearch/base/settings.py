"""What the environment says to JAX that changes the numbers of a run, or that a run cannot be made with."""

import enum
import os

import jax

from cvresearch.base.errors import UserError

# JAX's own value of each. Random numbers (initial weights, dropout, mixing) go by the second and third of them.
DEFAULTS = {
    'jax_default_matmul_precision': None,
    'jax_threefry_partitionable': True,
    'jax_default_prng_impl': 'threefry2x32',
    'jax_random_seed_offset': 0,
    'jax_numpy_dtype_promotion': 'standard',
    'jax_softmax_custom_jvp': False,
    'jax_debug_nans': False,
    'jax_debug_infs': False,
}
ONEDNN = 'CVRESEARCH_ONEDNN'  # environment variable: 0 has convolutions on CPUs done without oneDNN (nn/onednn.py)
HARMLESS = ('jax_debug_nans', 'jax_debug_infs')  # they stop a run, and change no number of one that goes on
REFUSED = {
    'jax_enable_x64': 'a run computes in config.dtype, with parameters in float32',
    'jax_disable_jit': 'a step is a compiled program; to look into one, use jax.debug.print',
}


def check() -> None:
    """Raises UserError where JAX is set up for what a run cannot do."""
    for name, reason in REFUSED.items():
        if getattr(jax.config, name):
            raise UserError(f'{name.upper()} is set, but {reason}; unset it')


def changed() -> dict[str, object]:
    """Returns what differs from JAX's defaults, by the name of the setting, and other words of the environment."""
    settings: dict[str, object] = {name: getattr(jax.config, name) for name in DEFAULTS}
    settings = {name: value.value if isinstance(value, enum.Enum) else value for name, value in settings.items()}
    differing: dict[str, object] = {name: value for name, value in settings.items() if value != DEFAULTS[name]}
    flags = os.environ.get('XLA_FLAGS', '').split()
    without = {ONEDNN: '0'} if os.environ.get(ONEDNN) == '0' else {}
    return differing | without | ({'XLA_FLAGS': flags} if flags else {})


def warnings(now: dict, before: dict | None) -> list[str]:
    """Returns lines for a person: which settings give other numbers than JAX's defaults, or than the session before.

    Args:
      now: `changed()` of this session.
      before: of the last session of the run; None for a run's first.
    """

    def numbers(settings: dict) -> dict:
        return {name: value for name, value in settings.items() if name in (*DEFAULTS, ONEDNN) and name not in HARMLESS}

    def text(settings: dict) -> str:
        return ', '.join(f'{name.upper()}={value}' for name, value in settings.items()) or "JAX's defaults"

    now, lines = numbers(now), []
    if now:
        lines.append(f'{text(now)}: numbers differ from the same configuration and seed without; run.json has it')
    if before is not None and numbers(before) != now:
        lines.append(f'the last session of this run had {text(numbers(before))}, this one has {text(now)}')
    return lines
