"""What a net has learned: filters, templates, exciting images, embeddings, CKA."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness

from cvresearch.base.errors import UserError
from cvresearch.inspect import learned
from cvresearch.models import registry


def initialised(name, shape):
    module = registry.build(name)
    return module, jax.jit(lambda key: module.init(key, np.zeros((1, *shape), np.float32)))(jax.random.key(0))


def test_filters_are_the_kernel_of_the_first_convolution():
    module, variables = initialised('resnet20_cifar10', (32, 32, 3))
    found = learned.filters(module, variables, (32, 32, 3))
    np.testing.assert_array_equal(found[5], variables['params']['stem_conv']['kernel'][..., 5])
    with pytest.raises(UserError, match='begins with a convolution'):
        learned.templates(module, variables, (32, 32, 3))


def test_the_logit_is_the_product_with_the_template():
    module, variables = initialised('softmax_regression', (28, 28, 1))
    image = np.random.default_rng(0).random((28, 28, 1)).astype(np.float32)
    templates = learned.templates(module, variables, (28, 28, 1))
    expected = module.apply(variables, image[None])[0] - variables['params']['head']['bias']
    np.testing.assert_allclose((templates * image).sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match='begins with a dense layer'):
        learned.filters(module, variables, (28, 28, 1))


def test_the_box_of_an_exciting_image_holds_what_excites():
    module, variables = initialised('lenet5', (32, 32, 1))
    random = np.random.default_rng(0)
    images = np.zeros((6, 32, 32, 1), np.float32)
    for i, (top, left) in enumerate(random.integers(0, 24, (6, 2))):
        images[i, top : top + 8, left : left + 8, 0] = random.standard_normal((8, 8)) * (i + 1)
    found = learned.exciting(module, variables, [images[:4], images[4:]], 'C1', [2, 0], number=3)
    maps = learned.feature_maps(module, variables, images, 'C1')[..., 2].reshape(6, -1)
    assert found.index[0].tolist() == np.argsort(-maps.max(1))[:3].tolist()
    # The crop alone, put through the first convolution, gives the value.
    top, left, height, width = found.box[0, 0]
    crop = images[found.index[0, 0], top : top + height, left : left + width]
    kernel, bias = (variables['params']['C1'][key] for key in ('kernel', 'bias'))
    assert (crop * kernel[..., 2]).sum() + bias[2] == pytest.approx(found.value[0, 0], rel=1e-4)


def test_channels_out_of_range_and_no_images():
    module, variables = initialised('lenet5', (32, 32, 1))
    with pytest.raises(UserError, match="channel 6 of 'C1' is out of range; expected 0 to 5"):
        learned.exciting(module, variables, [np.zeros((1, 32, 32, 1), np.float32)], 'C1', [6])
    with pytest.raises(UserError, match='there is no image'):
        learned.exciting(module, variables, [], 'C1', [0])


@pytest.mark.parametrize(('method', 'least'), [('pca', 0.8), ('tsne', 0.95)])
def test_embeddings_keep_neighbours(method, least):
    digits = load_digits().data[:100]
    assert trustworthiness(digits, learned.embedding(digits, method), n_neighbors=5) > least


def test_cka_is_its_closed_form():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((40, 6)), random.standard_normal((40, 9))
    centred_x, centred_y = x - x.mean(0), y - y.mean(0)
    # Kornblith et al. 2019, equation 2 and table 1, of features rather than Gram matrices.
    expected = np.linalg.norm(centred_y.T @ centred_x) ** 2 / (
        np.linalg.norm(centred_x.T @ centred_x) * np.linalg.norm(centred_y.T @ centred_y)
    )
    assert learned.cka(x, y) == pytest.approx(expected, rel=1e-10)


def test_cka_knows_neither_rotation_nor_scale_nor_shift():
    random = np.random.default_rng(0)
    x = random.standard_normal((40, 6))
    rotation, _ = np.linalg.qr(random.standard_normal((6, 6)))
    assert learned.cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-12)
    with pytest.raises(UserError, match='the same for all images'):
        learned.cka(x, np.ones((40, 2)))
