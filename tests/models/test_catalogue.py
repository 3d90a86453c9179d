"""The contract of every variant of every family. A new file is tested without being named."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvresearch.base import trees
from cvresearch.inspect import cost
from cvresearch.models import registry

CATALOGUE = registry.catalogue()


@functools.cache
def documented():
    """Returns the rows of docs/catalogue.md by variant."""
    lines = [line for line in Path('docs/catalogue.md').read_text('utf-8').splitlines() if line.startswith('| ')]
    head, _, *rows = ([cell.strip() for cell in line.strip('|').split(' | ')] for line in lines)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


BY_COST = sorted(CATALOGUE, key=lambda name: -(CATALOGUE[name].macs or 0))
SMALLEST = {CATALOGUE[name].module.__module__: name for name in BY_COST}.values()
ONE_OF_A_FAMILY = [pytest.param(name, marks=() if name in SMALLEST else pytest.mark.all_variants) for name in CATALOGUE]


@pytest.mark.parametrize('name', CATALOGUE)
def test_counts_equal_the_facts_and_the_document(name):
    variant, model = CATALOGUE[name], registry.build(name)
    shapes = cost.shapes(model, variant.input_shape)
    params, macs = trees.count(shapes['params']), cost.macs(model, variant.input_shape, shapes)
    if variant.params is not None:
        assert params == variant.params
    if variant.macs is not None:
        assert macs == variant.macs
    row = documented()[name]
    assert (row['params'], row['macs']) == (f'{params:,}', f'{macs:,}')
    assert row['equal'] == ('' if variant.params is None and variant.macs is None else 'yes')


@pytest.mark.parametrize('name', ONE_OF_A_FAMILY)
def test_layers_add_up_and_the_last_one_is_the_head(name):
    variant, model = CATALOGUE[name], registry.build(name)
    layers, shapes = cost.layers(model, variant.input_shape), cost.shapes(model, variant.input_shape)
    assert sum(layer.params for layer in layers) == trees.count(shapes['params'])
    assert sum(layer.macs for layer in layers) == cost.macs(model, variant.input_shape, shapes)
    assert [layer.name for layer in layers if layer.macs][-1] == 'head'


def test_the_documents_catalogue_has_every_variant_and_no_other():
    assert list(documented()) == list(CATALOGUE)


@pytest.mark.parametrize('name', ONE_OF_A_FAMILY)
def test_bfloat16_gives_float32_logits_of_the_asked_shape_from_float32_parameters(name):
    variant = CATALOGUE[name]
    model = registry.build(name, num_classes=7, dtype=jnp.bfloat16)
    image = jax.ShapeDtypeStruct((2, *variant.input_shape), jnp.float32)
    logits, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), image)
    assert logits.shape == (2, 7) and logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


SMALL = [name for name, variant in CATALOGUE.items() if (variant.macs or 1e9) < 2e6]


@pytest.mark.parametrize('name', SMALL)
def test_every_parameter_moves_within_two_steps(name):
    variant = CATALOGUE[name]
    model = registry.build(name)
    images = np.random.default_rng(0).standard_normal((4, *variant.input_shape)).astype(np.float32)
    labels = jax.nn.one_hot(np.arange(4), variant.num_classes)
    variables = model.init(jax.random.key(0), images, train=False)
    tx = optax.sgd(0.01)

    @jax.jit
    def step(variables, opt_state):
        def loss(params):
            logits, state = model.apply(
                {**variables, 'params': params},
                images,
                train=True,
                mutable=['batch_stats'],
                rngs={'dropout': jax.random.key(1)},
            )
            return optax.softmax_cross_entropy(logits, labels).mean(), state

        gradients, state = jax.grad(loss, has_aux=True)(variables['params'])
        updates, opt_state = tx.update(gradients, opt_state)
        return {**variables, **state, 'params': optax.apply_updates(variables['params'], updates)}, opt_state

    after, opt_state = variables, tx.init(variables['params'])
    for _ in range(2):
        after, opt_state = step(after, opt_state)
    moved = dict(trees.named_leaves(after['params']))
    still = [path for path, leaf in trees.named_leaves(variables['params']) if np.array_equal(leaf, moved[path])]
    assert not still
