"""What is installed against what is asked for, and the combinations that JAX's own notes warn of."""

import pytest

from cvresearch.base import installation


def test_what_the_project_needs_is_met_here_and_a_requirement_that_is_not_is_named():
    assert installation.unmet(installation.required()) == []
    numpy = installation.version('numpy')
    asked = ['numpy<1', 'no-such-package-here>=2', 'absl-py', 'other; extra == "tpu"', 'x; python_version < "3"']
    assert installation.unmet(asked) == [f'numpy is {numpy}, expected <1', 'no-such-package-here is missing']
    assert 'other is missing' in installation.unmet(asked, 'tpu')


@pytest.mark.parametrize(
    ('plugins', 'driver', 'path', 'said'),
    [
        ({}, None, '/usr/local/cuda/lib64', []),  # a machine without GPU's plugins
        ({'jax-cuda13-plugin': '0.10.2', 'jax-cuda13-pjrt': '0.10.2'}, '580.65.06', '', []),
        ({'jax-cuda13-plugin': '0.10.1'}, '580.65.06', '', ['0.10.1 beside jaxlib 0.10.2']),
        ({'jax-cuda13-plugin': '0.10.2'}, '570.124.06', '', ['570.124.06 is too old for CUDA 13: expected 580']),
        ({'jax-cuda12-plugin': '0.10.2'}, '570.124.06', '', []),
        ({'jax-cuda12-plugin': '0.10.2', 'jax-cuda13-plugin': '0.10.2'}, '580.65.06', '', ['CUDA 12 and 13']),
        ({'jax-cuda13-plugin': '0.10.2'}, '580.65.06', '/opt:/usr/local/cuda/lib64', ['unset it']),
    ],
)
def test_bad_combinations(plugins, driver, path, said):
    lines = list(installation.bad_combinations(plugins, '0.10.2', driver, path))
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True))


@pytest.mark.parametrize(
    ('text', 'driver'),
    [
        ('NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024', '535.183.01'),
        ('NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build', '570.124.06'),
        ('something else', None),
    ],
)
def test_the_driver_is_read_from_both_kinds_of_kernel_module(text, driver, tmp_path):
    (tmp_path / 'version').write_text(text)
    assert installation.nvidia_driver(tmp_path / 'version') == driver
    assert installation.nvidia_driver(tmp_path / 'none') is None
