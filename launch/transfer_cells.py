"""The cells of the lectures' table of transfer learning: from which net to which images, and by which methods."""

import dataclasses
from collections.abc import Mapping

NETS = {'lite0': 'lukemelas/efficientnet-lite0', 'squeezenet': 'songhan/SqueezeNet'}  # published, by flag
LINEAR = ('linear', EARLIER := 'linear earlier')  # logistic regression on features, of the last stage or before
TUNED = ('probe', 'last', 'all', 'discriminative', 'gradual', 'lpft')  # of configs/finetune.py
METHODS = ('scratch', *LINEAR, *TUNED)
FEW = ('scratch', *LINEAR, 'probe', 'all', 'lpft')  # where there are more images, and a run takes longer
FEWER = ('scratch', 'linear', 'probe', 'all')
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # of features of unit length, which Razavian et al. 2014 take
# What the head is given, and what an earlier layer gives.
FEATURES = {
    'lite0': ('penultimate', 'stage5:mean'),
    'squeezenet': ('penultimate:mean', 'stage2:mean'),
    'source5': ('penultimate', 'C3:relu'),
    'source10': ('penultimate', 'C3:relu'),
}
_NAMES = {
    'lite0': 'ImageNet, EfficientNet-Lite0',
    'squeezenet': 'ImageNet, SqueezeNet of 0.68 MB',
    'source5': 'clothing of 5 classes, LeNet-5',
    'source10': 'clothing of 10 classes, LeNet-5',
}
_TARGETS = {'stamps': 'stamps', 'fashion5': 'clothing of 5 other classes', 'digits': 'digits', 'fashion': 'clothing'}
# Stanford's CS231n notes, "Transfer Learning", "When and how to fine-tune?".
_ADVICE = {
    'little, similar': 'linear',
    'much, similar': 'all',
    'little, other': 'linear earlier',
    'much, other': 'all (or scratch)',
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes:
      corner: 'little, similar' and so on: how many images, and whether they are like those of the source.
      source: of NETS, or an argument of configs/transfer.py.
      target: 'stamps', or an argument of configs/transfer.py.
      amount: likewise, 'few' or 'some'; '' for all images.
      per_class: training images of each class; 0 for all.
      pool: the data, as `data` of a configuration, out of which the training images of the linear classifiers are
        drawn; one cell's may serve another.
      methods: of METHODS.
      overrides: of the configuration.
      image_size: side of the images for features; 0 for the net's own.
    """

    corner: str
    source: str
    target: str
    amount: str = ''
    per_class: int = 0
    pool: Mapping = dataclasses.field(default_factory=dict)
    methods: tuple[str, ...] = METHODS
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_size: int = 0

    @property
    def named_source(self) -> str:
        """The source, for a reader."""
        return _NAMES[self.source]

    @property
    def short(self) -> str:
        """The target, for a reader."""
        return _TARGETS[self.target] + (f', {self.per_class} a class' if self.per_class else '')

    named_target = short

    @property
    def pool_name(self) -> str:
        """Tells features of one pool from features of another."""
        return str(self.pool.get('train', 'all'))

    @property
    def advice(self) -> str:
        """The method that the notes advise."""
        return _ADVICE[self.corner]


_STAMPS = dict(
    target='stamps',
    pool=dict(name='image_folder', every=2),
    image_size=96,
    overrides={'data.every': '2', 'image_size': '96', 'evaluate_every_epochs': '20', 'save_every_epochs': '20'},
)
_OTHER5 = dict(name='fashion_mnist', classes=(1, 4, 6, 8, 9))
_SMALL = dict(image_size=64, overrides={'data.image_size': '64', 'eval_batch_size': '100'})
CELLS = {
    'stamps': Cell('little, similar', 'lite0', **_STAMPS),
    'squeezenet_stamps': Cell('little, similar', 'squeezenet', methods=LINEAR, **(_STAMPS | dict(image_size=0))),
    'fashion5_few': Cell('little, similar', 'source5', 'fashion5', 'few', 10, _OTHER5 | dict(train=6000)),
    'fashion5_some': Cell('little, similar', 'source5', 'fashion5', 'some', 100, _OTHER5 | dict(train=6000), FEW),
    'fashion5_all': Cell('much, similar', 'source5', 'fashion5', '', 0, _OTHER5, FEWER),
    'digits_few': Cell('little, other', 'source10', 'digits', 'few', 10, dict(name='mnist5k')),
    'digits_some': Cell('little, other', 'source10', 'digits', 'some', 100, dict(name='mnist5k'), FEW),
    'digits_all': Cell('much, other', 'source10', 'digits', '', 0, dict(name='mnist5k'), (*FEWER, EARLIER)),
    'photos_digits_few': Cell('little, other', 'lite0', 'digits', 'few', 10, dict(name='mnist5k'), LINEAR, **_SMALL),
    'photos_fashion_few': Cell(
        'little, other', 'lite0', 'fashion', 'few', 10, dict(name='fashion_mnist', train=3000), LINEAR, **_SMALL
    ),
    'photos_fashion_some': Cell(
        'little, other', 'lite0', 'fashion', 'some', 100, dict(name='fashion_mnist', train=3000), LINEAR, **_SMALL
    ),
}
