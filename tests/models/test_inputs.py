"""What every family takes and refuses, on one variant of each: only shapes are computed."""

import contextlib
import functools
import re
import sys

import jax
import jax.numpy as jnp
import pytest

from cvresearch.base.errors import UserError
from cvresearch.inspect import cost, features
from cvresearch.models import registry

CATALOGUE = registry.catalogue()


def one_of_each_family():
    """The variant with the fewest multiply-adds runs in every test run; the rest under the marker `all_variants`."""
    seen = set()
    for name, variant in sorted(CATALOGUE.items(), key=lambda item: item[1].macs or 1e12):
        family = variant.module.__module__
        yield pytest.param(name, marks=[pytest.mark.all_variants] if family in seen else [])
        seen.add(family)


families = pytest.mark.parametrize('name', list(one_of_each_family()))
shapes_of = functools.cache(lambda name: cost.shapes(registry.build(name), CATALOGUE[name].input_shape))


@families
def test_features_are_of_the_shapes_that_their_names_have(name):
    model, shape = registry.build(name), CATALOGUE[name].input_shape
    names = features.names(model, shape)
    assert 'head' in names and len(names) == len(set(names))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    found = jax.eval_shape(lambda v, x: features.features(model, v, x, names), shapes_of(name), images)
    assert {each: feature.shape for each, feature in found.items()} == {each: (2, *names[each]) for each in names}


def empty_maps(name, size):
    """Returns the layers that have no pixel, given images of that height and width."""
    found = cost.layers(registry.build(name), (size, size, CATALOGUE[name].input_shape[2]))
    return [layer.name for layer in found if 0 in layer.shape]


@families
def test_images_too_small_are_refused_in_one_line_that_says_what_is_enough(name, monkeypatch):
    try:
        assert not empty_maps(name, 1)
    except UserError as error:
        at_least, size = re.search(r'expected (at least )?(\d+)x\2', str(error)).groups()
        assert '\n' not in str(error) and not empty_maps(name, int(size))
        if at_least:
            monkeypatch.setattr(sys.modules[CATALOGUE[name].module.__module__], 'require_at_least', lambda *_: None)
            with contextlib.suppress(TypeError, ValueError):  # no map to go on with
                assert empty_maps(name, int(size) - 1), 'less would be enough'


@families
def test_another_number_of_channels_is_refused_in_one_line(name):
    *size, channels = CATALOGUE[name].input_shape
    images = jax.ShapeDtypeStruct((2, *size, 4 - channels), jnp.float32)
    with pytest.raises(UserError, match=rf'got .*{4 - channels}.*, expected (\d*{channels}\b|\d+)') as error:
        jax.eval_shape(lambda v, x: registry.build(name).apply(v, x, train=False), shapes_of(name), images)
    assert '\n' not in str(error.value)


@families
def test_the_initialiser_is_chosen_by_name(name):
    with pytest.raises(UserError, match="unknown initializer 'he_normale'; did you mean he_normal"):
        cost.shapes(registry.build(name, kernel_init='he_normale'), CATALOGUE[name].input_shape)
