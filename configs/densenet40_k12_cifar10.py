"""DenseNets for CIFAR. Huang et al. 2017, CVPR, arXiv:1608.06993, section 4.2.

    python -m cvresearch.main --config configs/densenet40_k12_cifar10.py --workdir runs/densenet40_k12_cifar10
    python -m cvresearch.main --config configs/densenet40_k12_cifar10.py:snapshot --workdir runs/densenet40_snapshot

Paper: SGD with Nesterov's momentum 0.9, batch 64, weight decay 1e-4, 0.1 divided by ten at half and three quarters of
300 epochs; four pixels of padding, crops, flips (C10+). `:plain` has no augmentation and dropout 0.2 (C10).
Expected, top-1 on C10+ and C100+ (verified: table 2): 94.76 and 75.58 %, `:densenet100_k12_cifar10` 95.90 and 79.80,
`:densenet100_k24_cifar10` 96.26 and 80.75, `:densenetbc100_k12_cifar10` 95.49 and 77.73, `:densenetbc250_k24_cifar10`
96.38 and 82.40, `:densenetbc190_k40_cifar10` 96.54 and 82.82. `:plain` 93.00 %.
Cost: 15 M images; 0.21 device-hours.

`:snapshot` is Huang et al. 2017, arXiv:1704.00109: six cosine cycles of 50 epochs from 0.1 (its best, from 0.2, has
78.07 % on CIFAR-100 as an ensemble of six; verified from one transcription). `:modern` is `common.modern_cifar`.
"""

from configs import common


def get_config(arg=''):
    c = common.cifar(epochs=300, batch_size=64)
    c.model = dict(name='densenet40_k12_cifar10')
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(
        name='multistep', peak=0.1, epochs=(150, 225), rate=0.1, batch_scaling='linear', reference_batch=64
    )
    names = ('densenet100_k12', 'densenet100_k24', 'densenetbc100_k12', 'densenetbc250_k24', 'densenetbc190_k40')
    models = {f'{name}_cifar10': 32 for name in names}
    variants = dict(plain=plain, snapshot=snapshot, cifar100=common.cifar100, modern=common.modern_cifar)
    return common.finish(c, arg, models, smoke_model=dict(layers=(2, 2, 2)), **variants)


def plain(c):
    c.augment.update(shift=0, flip=False)
    c.model.dropout = 0.2


def snapshot(c):
    c.schedule = dict(name='sgdr', peak=0.1, t_0_epochs=50.0, batch_scaling='linear', reference_batch=64)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
