"""Annotations of arrays, held against the arrays themselves while tests run. Plain types are the static checker's."""

from typing import get_args

import beartype
import jaxtyping

CHECKED = (
    'cvresearch.nn',
    'cvresearch.objectives',
    'cvresearch.engine.steps',
    'cvresearch.engine.passes',
    'cvresearch.engine.augment',
    'cvresearch.inspect',
)


def check() -> None:
    """Has each function of the checked modules check its arrays; to be called before any of these is imported."""
    jaxtyping.install_import_hook(CHECKED, 'tests.shapes.checked')


def checked(function):
    """Returns the function, and beartype in front of it for the annotations that hold a shape."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if _of_array(hint)}
    return beartype.beartype(function)


def _of_array(hint) -> bool:
    shaped = isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)
    return shaped or any(map(_of_array, get_args(hint)))
