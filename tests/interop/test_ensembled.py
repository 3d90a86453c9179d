"""Several nets as one: the mean of their probabilities, by the names of the classes, in one exported file."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import expit, softmax

from cvresearch.base.errors import UserError
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.interop import ensembled, export, exports
from cvresearch.interop.classifier import Classifier, Provenance
from tests.interop.nets import relative_error, small_net
from tests.interop.test_exports import onnx_outputs, pixels

PREPARED = Preprocessing(crop=32, resize=32)


def member(seed, names='abc', several=False):
    """Returns a small net; the weights of each seed are others."""
    module, variables, _ = small_net('toy_inception', num_classes=3)
    variables = jax.tree.map(lambda leaf: np.float32(leaf * (1 + 0.1 * seed)), variables)
    provenance = Provenance('file', f'file:{seed}', 'toy_inception', f'{seed}')
    return Classifier(module, variables, PREPARED, tuple(names), provenance, several)


def test_an_onnx_file_of_an_ensemble_gives_the_mean_of_the_probabilities(tmp_path):
    members = [member(0, 'abc'), member(1, 'cab'), member(2, 'abc')]
    exports.export(ensembled.of(members), 'onnx', tmp_path / 'net.onnx', exports.Options(raw=True))
    images = pixels(members[0])
    _, (logits, probabilities) = onnx_outputs(tmp_path / 'net.onnx', ['logits', 'probabilities'], images)
    each = [softmax(np.asarray(net.logits(images), np.float64), 1) for net in members]
    each[1] = each[1][:, [1, 2, 0]]  # its a, b and c
    assert not np.allclose(each[0], each[1], atol=1e-2)
    assert relative_error(probabilities, np.mean(each, 0)) <= 1e-5
    np.testing.assert_allclose(softmax(logits, 1), probabilities, rtol=1e-5)


def test_questions_of_their_own_are_averaged_as_sigmoids(tmp_path):
    members = [member(0, several=True), member(1, several=True)]
    net = ensembled.of(members)
    exports.export(net, 'onnx', tmp_path / 'net.onnx', exports.Options(probabilities=True))
    images = np.asarray(net.normalize(pixels(net)))
    _, (found,) = onnx_outputs(tmp_path / 'net.onnx', ['probabilities'], images)
    mean = np.mean([expit(np.asarray(one.apply(one.variables, images), np.float64)) for one in members], 0)
    assert relative_error(found, mean) <= 1e-5


def test_one_alone_is_itself():
    net = member(0)
    assert ensembled.of([net]) is net


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (member(1, 'abd'), 'other classes'),
        (member(1, several=True), 'other classes'),
        (dataclasses.replace(member(1), preprocessing=Preprocessing(crop=32, resize=40)), 'prepare images differently'),
    ],
)
def test_members_that_do_not_fit_are_refused(other, message):
    with pytest.raises(UserError, match=message):
        ensembled.of([member(0), other])


def test_the_command_takes_several_nets(tmp_path, capsys):
    for seed in (0, 1):
        module, variables, _ = small_net('shufflenet_v2_x0_5', num_classes=3)
        variables = jax.tree.map(lambda leaf, times=1 + 0.1 * seed: np.float32(leaf * times), variables)
        provenance = Provenance('file', 'file:x', 'shufflenet_v2_x0_5', '')
        net = Classifier(module, variables, Preprocessing(crop=64, resize=64), tuple('abc'), provenance)
        exports.export(net, 'torchvision', tmp_path / f'{seed}.safetensors')
    names = [f'--weights=file:{tmp_path}/{seed}.safetensors#torchvision/shufflenet_v2_x0_5' for seed in (0, 1)]
    assert export.main([*names, '--to', 'stablehlo', '--probabilities', '--out', str(tmp_path / 'net.stablehlo')]) == 0
    assert '2 x shufflenet_v2_x0_5, 3 classes, stablehlo' in capsys.readouterr().out
    exported = jax.export.deserialize(bytearray((tmp_path / 'net.stablehlo').read_bytes()))
    found = np.asarray(exported.call(np.zeros((2, 64, 64, 3), np.float32)))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    with pytest.raises(UserError, match='timm has no net like 2 x shufflenet_v2_x0_5'):
        export.main([*names, '--to', 'hub', '--out', str(tmp_path / 'hub')])
