"""Flattening against global averaging, where clothes are not in the middle (Fashion-MNIST: 5,000 train, 10,000 test).

G. Boracchi's lectures (Politecnico di Milano): two nets with the same convolutions, trained on images in the middle of
64x64 black pixels, are tested on such images and on shifted ones. `cnn_flattening` ties its dense layer to places,
`cnn_gap` averages them away.

    python -m launch.sweep --config configs/study_shifts.py --workdir runs/study_shifts
    cvresearch evaluate shifts --workdir runs/study_shifts/name=cnn_gap,seed=0

Expected: the lecture has on MNIST 99.36 and 99.34 % on images as they are, 11.03 and 99.06 % on shifted ones (lecture;
not checked). Measured here: docs/evidence/shifts.md.
Cost: 30,000 images, for each of 6 runs.
"""

from configs import common
from cvresearch.base import sweeps


def get_config(arg=''):
    c = common.fashion_study(epochs=6, batch_size=64, train=5000)
    c.data.pad = 18
    c.model = dict(name='cnn_gap')
    return common.finish(c, arg)


def sweep():
    return sweeps.product({'seed': range(3)}, {'model.name': ('cnn_flattening', 'cnn_gap')})
