"""Meta Pseudo Labels on ImageNet-1k with a tenth of the labels, ResNet-50. Pham et al. 2020, arXiv:2003.10580.

    python -m cvresearch.main --config configs/meta_pseudo_labels_imagenet.py --workdir runs/mpl_imagenet

700,000 updates of 1,024 labelled images and 15 x 1,024 others, rates 0.1 (student) and 0.15 (teacher), UDA's
temperature 0.5 and weight 20 (rising over 50,000 updates), label smoothing 0.1, an average of 0.999, 20,000 updates in
which the teacher learns alone (verified: the authors' repository, google-research/meta_pseudo_labels). Recalled:
Nesterov's momentum 0.9, weight decay 1e-4, half a cosine, RandAugment of two operations at magnitude 10.

`:efficientnet_l2_475` is section 4: EfficientNet-L2 and all labels, beside 130 million photographs of JFT, which is not
public: name others by --config.unlabelled.root. It has 90.2 % (verified), the highest of the lectures' table; the net
and its update are here, its data and its 2,048 TPU cores are not. `:efficientnet_b6` has 90.0 % there (verified).

Expected, top-1 with 10 % of the labels (verified, a public transcription): 73.89 %; labels alone 57.75 %, UDA 68.07 %.
Cost: 716,814,615 images; fifteen times as many without labels; all through two nets.
"""

from configs import common

SIZES = {'efficientnet_b6': 528, 'efficientnet_l2_475': 475}


def get_config(arg=''):
    c = common.imagenet(epochs=5595, batch_size=1024)  # of a tenth of the images: 700,000 updates
    c.data.update(labels=128_117, labels_seed=0)
    c.unlabelled = dict(name='rest', ratio=15, policy=dict(name='rand_augment', layers=2, magnitude=10.0))
    c.method = dict(
        name='meta_pseudo_labels',
        uda_weight=20.0,
        uda_warmup_steps=50_000,
        uda_temperature=0.5,
        uda_threshold=0.0,
        wait_steps=20_000,
        teacher_rate=1.5,
    )
    c.model = dict(name='resnet50')
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='sgd', momentum=0.9, nesterov=True, weight_decay=1e-4)
    c.schedule = dict(name='cosine', peak=0.1, batch_scaling='linear', reference_batch=1024)
    c.average = dict(name='ema', decay=0.999)
    c.evaluate_every_epochs = c.save_every_epochs = 80.0  # 10,000 updates
    arg = ','.join(f'{name},all_labels' if name in SIZES else name for name in arg.split(',') if name)
    return common.finish(c, arg, SIZES, smoke_size=32, all_labels=all_labels)


def all_labels(c):
    """Every label, and photographs without any; the length is recalled: 1,000,000 updates of 2,048 and 16,384."""
    c.data.labels = 0
    c.batch_size = 2048
    c.epochs = 1600.0
    c.unlabelled = dict(name='images', root='', ratio=8, policy=dict(c.unlabelled.policy))
    c.evaluate_every_epochs = c.save_every_epochs = 16.0


def sweep():
    for seed in range(3):
        yield {'seed': seed, 'data.labels_seed': seed}
