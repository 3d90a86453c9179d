"""Meta Pseudo Labels on CIFAR-10 with 4,000 labels, SVHN with 1,000. Pham et al. 2020, arXiv:2003.10580, section 3.2.

    python -m launch.chain --config configs/meta_pseudo_labels_cifar10.py --workdir runs/mpl_cifar10
    python -m launch.chain --config configs/meta_pseudo_labels_cifar10.py:svhn --workdir runs/mpl_svhn

Generation 0 is the method: WRN-28-2, 300,000 updates of 128 labelled images and 7 x 128 others, UDA's temperature 0.7,
threshold 0.6 and weight 8 (rising over 5,000 updates), label smoothing 0.15, dropout 0.2, weight decay 5e-4, momentum,
half a cosine, an average of 0.995, RandAugment of magnitude 16, 3,000 updates in which the teacher learns alone
(verified: the authors' repository, google-research/meta_pseudo_labels). Recalled: the rate 0.05 of both nets.
Generation 1 trains the student on from the labels alone (the paper's appendix; recalled: rate 3e-5, batch 512, without
decay). `python -m cvresearch.main --config configs/meta_pseudo_labels_cifar10.py` is generation 0 alone.

Expected, top-1 (verified, a public transcription of the paper): 96.11 +- 0.07 %, SVHN 98.01 +- 0.07 %; with labels
alone 82.14 +- 0.25 and 88.17 +- 0.47 %, pseudo-labels 83.79 and 89.81 %, UDA 94.53 and 97.11 %. Re-implementations in
PyTorch have 96.08 % after their second version (kekmodel/MPL-pytorch), or gave up (microsoft/Semi-supervised-learning).
Cost: 38,400,000 images; seven times as many without labels; all through two nets.
"""

from configs import common


def get_config(arg=''):
    c = common.cifar(epochs=9600, batch_size=128)  # of the 4,000 labelled images: 300,000 updates
    c.data.update(labels=4000, labels_seed=0)
    c.unlabelled = dict(name='rest', ratio=7, policy=dict(name='rand_augment', layers=2, magnitude=16.0), cutout=16)
    c.method = dict(
        name='meta_pseudo_labels',
        uda_weight=8.0,
        uda_warmup_steps=5000,
        uda_temperature=0.7,
        uda_threshold=0.6,
        wait_steps=3000,
    )
    c.model = dict(name='wide_resnet28_10_cifar10', widen=2, dropout=0.2)
    c.loss.label_smoothing = 0.15
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=5e-4)
    c.schedule = dict(name='cosine', peak=0.05, batch_scaling='linear', reference_batch=128)
    c.average = dict(name='ema', decay=0.995)
    c.evaluate_every_epochs = c.save_every_epochs = 320.0  # 10,000 updates
    return common.finish(c, arg, smoke_model=dict(depth=10, widen=1), svhn=svhn)


def svhn(c):
    c.data = dict(name='svhn', labels=1000, labels_seed=0)
    c.augment.flip = False
    c.epochs = 38_400.0  # of 1,000 images
    c.evaluate_every_epochs = c.save_every_epochs = 1280.0
    c.unlabelled.policy.magnitude = 5.0


def chain(arg=''):
    labelled = {'method.name': 'supervised', 'unlabelled.name': 'none'}
    tuned = {
        'init.weights': '{previous}',
        'init.head': 'keep',
        'epochs': 8000.0,
        'batch_size': 512,
        'schedule.peak': 3e-5,
        'schedule.reference_batch': 512,
        'optimizer.weight_decay': 0.0,
    }
    return [{}, labelled | tuned]


def sweep():
    for seed in range(5):
        yield {'seed': seed, 'data.labels_seed': seed}
