"""What is asked of a traced program everywhere."""

from typing import Any, cast

import jax
from jax.extend import core


def shaped(variable: core.Var | core.Literal) -> jax.ShapeDtypeStruct:
    """Returns an object with the shape and the dtype of a variable of a program, which is of an array."""
    return cast(Any, variable).aval


def opened(body: core.Jaxpr | core.ClosedJaxpr) -> core.Jaxpr:
    """Returns the program that an equation calls, without the values of its constants."""
    return body.jaxpr if isinstance(body, core.ClosedJaxpr) else body
