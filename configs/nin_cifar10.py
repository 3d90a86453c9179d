"""Network in Network on CIFAR. Lin et al. 2013, arXiv:1312.4400, sections 4.1 and 4.2.

    python -m cvresearch.main --config configs/nin_cifar10.py --workdir runs/nin_cifar10

Paper: as the maxout nets: batch 128, SGD with momentum, the rate by hand, divided by ten twice when the training
accuracy stands still; dropout after the first two stages, weight decay. Its numbers are not given; from the Caffe
model zoo (recalled): 0.1, weight decay 1e-4, 120,000 steps, a tenth after 100,000. The images are globally
contrast-normalized and ZCA-whitened in the paper, normalized by channel here.
Expected, top-1: 89.59 % without, `:augment` 91.19 % with translations and flips (10.41 and 8.81 % error; verified:
table 1); on CIFAR-100 64.32 % (verified: 35.68 % error).
Cost: 15.4 M images; 0.21 device-hours.

`:modern` is `common.modern_cifar` at a tenth of its rate (the net has no norms); no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.cifar(epochs=307.2, batch_size=128)
    c.model = dict(name='nin_cifar10')
    c.augment.update(shift=0, flip=False)
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4)
    c.schedule = dict(name='multistep', peak=0.1, epochs=(256,), rate=0.1, batch_scaling='linear', reference_batch=128)
    return common.finish(c, arg, augment=augment, cifar100=common.cifar100, modern=modern)


def augment(c):
    c.augment.update(shift=4, flip=True)


def modern(c):
    common.modern_cifar(c)
    c.schedule.peak = 0.01


def sweep():
    for seed in range(3):
        yield {'seed': seed}
