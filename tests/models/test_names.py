"""Names of nets: ours, and those of torchvision, timm and Keras."""

import pytest

from cvresearch.base.errors import UserError
from cvresearch.models import registry


@pytest.mark.parametrize(
    ('name', 'variant'),
    [
        ('resnet50', 'resnet50'),
        ('mobilenetv2_100', 'mobilenetv2_100'),
        ('mobilenet_v2', 'mobilenetv2_100'),  # torchvision
        ('MobileNetV2', 'mobilenetv2_100'),  # Keras
        ('ResNet50', 'resnet50_v1'),  # whose ResNet has its strides in the 1x1 convolutions
        ('mnasnet_b1', 'mnasnet1_0'),  # timm before 2023
        ('tv_resnet50', 'resnet50'),
        ('resnet50.a1_in1k', 'resnet50'),
        ('timm/tf_efficientnet_b0.ap_in1k', 'efficientnet_b0'),
        ('torchvision/googlenet', 'googlenet_aux'),  # with its heads, as torchvision makes it
        ('googlenet', 'googlenet'),
        ('xception', 'xception'),  # ours, not timm's old name of another file
        ('resnet-50', 'resnet50'),
        ('EfficientNet-B0', 'efficientnet_b0'),
    ],
)
def test_names_of_the_libraries_are_ours(name, variant):
    assert registry.resolve(name) == variant


def test_every_variant_and_every_reference_has_its_name():
    assert all(registry.resolve(name) == name for name in registry.catalogue())
    assert all(registry.resolve(name) == found.variant for name, found in registry.references().items())


@pytest.mark.parametrize(('name', 'near'), [('mobilenet_v3', 'mobilenet_v2'), ('resnet51', 'resnet50')])
def test_an_unknown_name_has_the_nearest(name, near):
    with pytest.raises(UserError, match=f'did you mean {near}'):
        registry.resolve(name)


@pytest.mark.parametrize('name', ['torchvision/', '/resnet50', '', 'caffe/resnet50'])
def test_a_library_that_has_no_such_net_is_an_error(name):
    with pytest.raises(UserError):
        registry.resolve(name)


def test_models_are_listed_by_a_pattern():
    assert registry.list_models('densenetbc*') == [
        'densenetbc100_k12_cifar10',
        'densenetbc190_k40_cifar10',
        'densenetbc250_k24_cifar10',
    ]
    assert registry.list_models() == list(registry.catalogue()) and registry.list_models('no*such') == []
