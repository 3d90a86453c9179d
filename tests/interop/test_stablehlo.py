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
from tests.interop.nets import logits, small_net

# Run by a Python that finds its packages and not this one.
RUN = """
import sys
sys.path = [place for place in sys.path if place]
assert not any(__import__('importlib.util').util.find_spec(name) for name in ('cvresearch', 'configs'))
import jax, numpy as np, safetensors.numpy
exported = jax.export.deserialize(bytearray(open('net.stablehlo', 'rb').read()))
weights = [safetensors.numpy.load_file(path) for path in sys.argv[1:]]
for batch in (1, 3, 8):
    np.save(f'logits{batch}.npy', exported.call(*weights, np.load(f'images{batch}.npy')))
"""


@pytest.mark.parametrize('beside', [False, True], ids=['inside', 'beside'])
@pytest.mark.parametrize('name', ['shufflenet_v2_x0_5', 'preact_resnet110_cifar10'])
def test_another_process_without_this_package_gets_equal_logits(name, beside, tmp_path):
    module, variables, shape = small_net(name)
    spec = inference.image_spec(shape, raw=False)
    weights = flat(variables) if beside else None
    data = to_stablehlo(inference.function(module, None if beside else variables), spec, weights)
    assert (len(data) > 4 * sum(leaf.size for leaf in jax.tree.leaves(variables))) is not beside
    (tmp_path / 'net.stablehlo').write_bytes(data)
    if beside:
        safetensors.numpy.save_file(weights, tmp_path / 'weights.safetensors')
    for batch in (1, 3, 8):
        np.save(tmp_path / f'images{batch}.npy', seeded.image((batch, *shape), f'{batch}'))
    packages = [place for place in sys.path if place.endswith('-packages')]
    command = [sys.executable, '-S', '-c', f'import sys; sys.path += {packages!r}\n{RUN}']
    subprocess.run(
        command + (['weights.safetensors'] if beside else []), cwd=tmp_path, check=True, env={'JAX_PLATFORMS': 'cpu'}
    )
    for batch in (1, 3, 8):
        expected = logits(module, variables, seeded.image((batch, *shape), f'{batch}'))
        got = np.load(tmp_path / f'logits{batch}.npy')
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


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
    with pytest.raises(UserError, match='only this installation has'):
        to_stablehlo(lambda x: jnp.linalg.qr(x[..., 0])[0], spec)
