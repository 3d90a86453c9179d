"""What a net has learned: filters, templates, feature maps, images that excite a channel, how layers compare."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from cvresearch.base.errors import UserError, lookup
from cvresearch.inspect.program import Images, Program, outline, trace
from cvresearch.inspect.receptive import Field, field
from cvresearch.nn.overrides import separate

Kernels = Float[np.ndarray, 'features height width channels']


def filters(module: nn.Module, variables: dict, image_shape: tuple[int, int, int]) -> Kernels:
    """Returns the filters of the first convolution, (features, height, width, channels), standardised if the net does.

    Raises:
      UserError: the net's first layer is no convolution.
    """
    program, place, value = _first_kernel(module, variables, image_shape, 'filters')
    if len(program.shapes[place]) != 4:
        raise UserError(f'{program.net} begins with a dense layer and has no filters; look at its templates')
    return np.moveaxis(value, -1, 0)


def templates(module: nn.Module, variables: dict, image_shape: tuple[int, int, int]) -> Kernels:
    """Returns the weights of a dense layer on the pixels as images, (units, height, width, channels).

    Of a linear classifier these are the templates of the classes: the logit is the image's product with its template.

    Raises:
      UserError: the net's first layer is not dense.
    """
    program, place, value = _first_kernel(module, variables, image_shape, 'templates')
    if len(program.shapes[place]) != 2:
        raise UserError(f'{program.net} begins with a convolution and has no templates; look at its filters')
    return np.moveaxis(value.reshape(*image_shape, -1), -1, 0)


def feature_maps(module: nn.Module, variables: dict, images: Images, layer: str) -> Float[np.ndarray, 'batch ...']:
    """Returns what a layer computes, (images, rows, columns, channels), or (images, units) after the last map.

    Args:
      module: the net.
      variables: its parameters and statistics, in any layout of its blocks.
      images: (images, height, width, channels), normalized as the net expects.
      layer: name of a value (inspect/program.py).

    Raises:
      UserError: the net has no such layer.
    """
    module, variables = separate(module, variables)
    outline(module, variables, images).place(layer)
    return np.asarray(_values(module, layer, variables, images))


@dataclasses.dataclass(frozen=True)
class Exciting:
    """The images that excite channels most, the strongest first.

    Attributes:
      index: int (channels, number), of the images in the order in which they came.
      value: float32 (channels, number), the largest value of the channel in the image.
      box: int (channels, number, 4), (top, left, height, width) of the pixels on which that value depends.
    """

    index: Int[np.ndarray, 'channels number']
    value: Float[np.ndarray, 'channels number']
    box: Int[np.ndarray, 'channels number 4']


def exciting(
    module: nn.Module,
    variables: dict,
    batches: Iterable[np.ndarray],
    layer: str,
    channels: Sequence[int],
    number: int = 9,
) -> Exciting:
    """Returns the images in which a channel has its largest values, one place in each image.

    Zeiler & Fergus 2013, arXiv:1311.2901, section 4.1 and figure 2: the nine images of the validation set.

    Args:
      module: the net.
      variables: its parameters and statistics, in any layout of its blocks.
      batches: of images (batch, height, width, channels), normalized as the net expects.
      layer: name of a feature map.
      channels: numbers of channels of it.
      number: images for each.

    Raises:
      UserError: an unknown layer or one without height and width, a channel out of range, no image at all.
    """
    module, variables = separate(module, variables)
    fields, image, values, places, wanted = None, (0, 0), [], [], np.asarray(channels)
    for images in batches:
        if fields is None:
            program = outline(module, variables, images)
            place, image = program.map_place(layer), images.shape[1:3]
            # After a pooling that is no moving window, the whole image.
            fields = field(program, place) or Field((0, 0), image, (0, 0))
            width = program.shapes[place][3]
            if (wrong := wanted[(wanted < 0) | (wanted >= width)]).size:
                raise UserError(f'channel {wrong[0]} of {layer!r} is out of range; expected 0 to {width - 1}')
        maps = np.asarray(_values(module, layer, variables, images))[..., wanted]
        flat = maps.reshape(len(maps), -1, len(wanted))
        values.append(flat.max(1))
        places.append(np.stack(np.unravel_index(flat.argmax(1), maps.shape[1:3]), -1))
    if fields is None:
        raise UserError('there is no image to look for what excites a channel')
    values, places = np.concatenate(values).T, np.concatenate(places).swapaxes(0, 1)
    order = np.argsort(-values, axis=1, kind='stable')[:, :number]
    boxes = [[fields.box(places[c, i, 0], places[c, i, 1], image) for i in row] for c, row in enumerate(order)]
    return Exciting(order, np.take_along_axis(values, order, 1).astype(np.float32), np.asarray(boxes))


def embedding(
    features: Shaped[np.ndarray, 'images ...'], method: str = 'pca', seed: int = 0
) -> Float[np.ndarray, 'images 2']:
    """Returns points of a plane for features, float32 (images, 2).

    Args:
      features: (images, ...), flattened.
      method: 'pca', 'tsne' (van der Maaten & Hinton 2008, begun from the principal components), or 'umap' where
        umap-learn is installed.
      seed: of what is random.

    Raises:
      UserError: an unknown method, one that is not installed, or fewer than three images.
    """
    place = lookup('embedding', EMBEDDINGS, method)
    flat = np.asarray(features, np.float32).reshape(len(features), -1)
    if len(flat) < 3:
        raise UserError(f'an embedding of {len(flat)} images; expected at least 3')
    return np.asarray(place(flat, seed), np.float32)


def _pca(features: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver='full').fit_transform(features)


def _tsne(features: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    # The default perplexity needs more images than three times itself.
    return TSNE(init='pca', perplexity=min(30.0, (len(features) - 1) / 3), random_state=seed).fit_transform(features)


def _umap(features: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports]  # need not be installed
    except ImportError as error:
        raise UserError('umap is not installed: pip install umap-learn, or choose tsne') from error
    return UMAP(n_neighbors=min(15, len(features) - 1), random_state=seed).fit_transform(features)


# scikit-learn takes a second to import, which no other function needs.
EMBEDDINGS = {'pca': _pca, 'tsne': _tsne, 'umap': _umap}


def cka(one: Shaped[np.ndarray, 'images ...'], other: Shaped[np.ndarray, 'others ...']) -> float:
    """Returns the linear centred kernel alignment of two layers' features of the same images, 0 to 1.

    Kornblith et al. 2019, arXiv:1905.00414, section 3: |Y'X|^2 / (|X'X| |Y'Y|) of centred features, Frobenius norms.

    Args:
      one: (images, ...), flattened.
      other: likewise; of another width, if need be.

    Raises:
      UserError: features of different numbers of images, or without any difference between images.
    """
    if len(one) != len(other):
        raise UserError(f'CKA of {len(one)} and {len(other)} images; expected the same images for both')
    grams = []
    for features in (one, other):
        flat = np.asarray(features, np.float64).reshape(len(features), -1)
        flat = flat - flat.mean(0)
        grams.append(flat @ flat.T)  # |Y'X|^2 is the product of the Gram matrices, which are smaller than wide layers
    norms = [np.linalg.norm(gram) for gram in grams]
    if 0 in norms:
        raise UserError('CKA of features that are the same for all images is undefined')
    return float((grams[0] * grams[1]).sum() / (norms[0] * norms[1]))


@functools.partial(jax.jit, static_argnames=('module', 'layer'))
def _values(module, layer, variables, images):
    program = trace(module, variables, images)
    return program.run(variables, images, keep=[program.place(layer)])[1][0]


def _first_kernel(module, variables, image_shape, what: str) -> tuple[Program, int, np.ndarray]:
    """Returns the program, the place of the first layer's kernel, and the kernel."""
    module, variables = separate(module, variables)
    image = jnp.zeros((1, *image_shape), jnp.float32)
    program = trace(module, variables, image)
    dependent = {program.images}
    for step in program.steps:
        inputs = [x for x in step.inputs if isinstance(x, int)]
        if not dependent & set(inputs):
            continue
        dependent |= set(step.outputs)
        if step.function in ('conv2d', 'conv_general_dilated', 'dot_general') and inputs[0] in dependent:
            run = jax.jit(functools.partial(program.run, keep=[inputs[1]]))
            return program, inputs[1], np.asarray(run(variables, image)[1][0], np.float32)
    raise UserError(f'{program.net} has neither a convolution nor a dense layer, and so no {what}')
