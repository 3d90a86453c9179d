"""StableHLO files run where this package is not, and hold nothing that only this installation has."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from cvresearch.base.errors import UserError
from cvresearch.interop import inference
from cvresearch.interop.stablehlo import PLATFORMS, flat, to_stablehlo
from tests.goldens import seeded
from tests.interop.nets import CHEAPEST, logits, relative_error, small_net

# Run by a Python that finds its packages and not this one.
RUN = """
import sys
sys.path = [place for place in sys.path if place]
assert not any(__import__('importlib.util').util.find_spec(name) for name in ('cvresearch', 'configs'))
import jax, numpy as np, safetensors.numpy
images, weights = np.load('images.npy'), safetensors.numpy.load_file('weights')
for name, batch, arguments in (('inside', 3, ()), ('inside', 1, ()), ('beside', 3, (weights,))):
    exported = jax.export.deserialize(bytearray(open(name, 'rb').read()))
    np.save(f'{name}{batch}.npy', exported.call(*arguments, images[:batch]))
"""


def test_another_process_without_this_package_gets_equal_logits(tmp_path):
    module, variables, shape = small_net('resnet20_cifar10')
    spec, weights = inference.image_spec(shape, raw=False), flat(variables)
    inside = to_stablehlo(inference.function(module, variables), spec)
    beside = to_stablehlo(inference.function(module, None), spec, weights)
    bytes_of_weights = 4 * sum(leaf.size for leaf in weights.values())
    assert len(inside) > bytes_of_weights > 4 * len(beside)
    (tmp_path / 'inside').write_bytes(inside)
    (tmp_path / 'beside').write_bytes(beside)
    safetensors.numpy.save_file(weights, tmp_path / 'weights')
    np.save(tmp_path / 'images.npy', seeded.image((3, *shape)))
    packages = [place for place in sys.path if place.endswith('-packages')]
    command = [sys.executable, '-S', '-c', f'import sys; sys.path += {packages!r}\n{RUN}']
    subprocess.run(command, cwd=tmp_path, check=True, env={'JAX_PLATFORMS': 'cpu'})
    expected = logits(module, variables, seeded.image((3, *shape)))
    for name, batch in (('inside', 3), ('inside', 1), ('beside', 3)):
        assert relative_error(np.load(tmp_path / f'{name}{batch}.npy'), expected[:batch]) <= 1e-5


@pytest.mark.all_variants
@pytest.mark.parametrize('name', CHEAPEST)
def test_logits_of_every_family_equal_ours(name):
    module, variables, shape = small_net(name)
    data = to_stablehlo(inference.function(module, variables), inference.image_spec(shape, raw=False))
    images = seeded.image((2, *shape))
    got = np.asarray(jax.export.deserialize(bytearray(data)).call(images))
    assert relative_error(got, logits(module, variables, images)) <= 1e-5


def test_the_program_is_for_every_platform_and_calls_no_custom_code():
    module, variables, shape = small_net('lenet5_1998')
    exported = jax.export.deserialize(
        bytearray(to_stablehlo(inference.function(module, variables), inference.image_spec(shape, raw=False)))
    )
    assert exported.platforms == PLATFORMS == ('cpu', 'cuda', 'tpu')
    assert 'stablehlo.convolution' in exported.mlir_module() and 'custom_call' not in exported.mlir_module()
    assert exported.in_avals[0].shape[1:] == shape and str(exported.in_avals[0].shape[0]) == 'batch'


def test_custom_code_is_refused():
    spec = inference.image_spec((4, 4, 3), raw=False)
    with pytest.raises(UserError, match='cannot be exported as StableHLO'):
        to_stablehlo(lambda x: jnp.linalg.qr(x[..., 0])[0], spec)
