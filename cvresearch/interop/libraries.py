"""Which nets of other libraries a net of ours is: those whose program is the same, operation by operation."""

import jax
from flax import linen as nn

from cvresearch.base.errors import UserError
from cvresearch.inspect import cost
from cvresearch.interop import inference
from cvresearch.models import registry


def reference_in(
    library: str, module: nn.Module, variant: str, input_shape: tuple[int, int, int], source: str | None = None
) -> str:
    """Returns the reference of a library whose weights this net's are: 'torchvision/resnet50'.

    Args:
      library: 'torchvision', 'timm' or 'keras'.
      module: the net.
      variant: its name in the catalogue.
      input_shape: (height, width, channels) of its images.
      source: the reference that the weights came from, if any; it is preferred.

    Raises:
      UserError: the library has no such net; the message names the libraries that have.
    """
    references = {name: entry for name, entry in registry.references().items() if entry.variant == variant}
    source = source and registry.current_name(source).partition('.')[0]
    of_library = [name for name in references if name.startswith(f'{library}/')]
    of_library.sort(key=lambda name: (name != source, len(name), name))
    program = _program(module, input_shape) if of_library else ''
    for name in of_library:
        theirs = registry.build(variant, module.num_classes, **references[name].arguments)
        if _program(theirs, input_shape) == program:
            return name
    if of_library:
        name = of_library[0]
        raise UserError(
            f'this {variant} computes something else than {name}, which is built with '
            f'{_arguments(references[name].arguments)}; export it to onnx or stablehlo'
        )
    others = ', '.join(references) or f'none; libraries have {", ".join(sorted(_variants_of(library))[:5])}, ...'
    raise UserError(f'{library} has no net like {variant}; references of this net: {others}')


def _variants_of(library: str) -> set[str]:
    return {entry.variant for name, entry in registry.references().items() if name.startswith(f'{library}/')}


def _arguments(arguments) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in arguments.items()) or 'the default arguments'


def _program(module: nn.Module, input_shape: tuple[int, int, int]) -> str:
    """Returns the traced program of an evaluation as text."""
    variables = cost.block_shapes(module, input_shape)
    images = inference.image_spec(input_shape, raw=False)
    return str(jax.make_jaxpr(inference.function(module, None))(variables, images))
