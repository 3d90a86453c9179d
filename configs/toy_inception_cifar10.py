"""A toy Inception net on CIFAR-10, from G. Boracchi's lectures (Politecnico di Milano). No paper.

    python -m cvresearch.main --config configs/toy_inception_cifar10.py --workdir runs/toy_inception_cifar10

One convolution, one inception module of four branches, global averaging; 78,218 parameters. The recipe is this
project's.
Expected: not known.
Cost: 1.5 M images; 0.021 device-hours.
"""

from configs import common


def get_config(arg=''):
    c = common.cifar(epochs=30, batch_size=128)
    c.model = dict(name='toy_inception')
    c.optimizer = dict(name='adamw', weight_decay=0.01)
    c.schedule = dict(name='cosine', peak=2e-3, warmup_epochs=1.0)
    return common.finish(c, arg, cifar100=common.cifar100)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
