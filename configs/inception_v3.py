"""Inception-v3 on ImageNet-1k at 299 px. Szegedy et al. 2015, arXiv:1512.00567, sections 7 and 8.

    python -m cvresearch.main --config configs/inception_v3.py --workdir runs/inception_v3

Paper: RMSProp with decay 0.9 and epsilon 1.0, 0.045 times 0.94 every two epochs, gradients clipped at 2.0, 50 workers
with batches of 32, 100 epochs, label smoothing 0.1, an auxiliary head with batch norm, evaluation with a running
average of the weights. Not in the paper, from TF-slim (recalled): momentum 0.9, weight decay 4e-5, the average's
0.9999, the crops and colours. Ours: the 50 workers are one synchronous batch of 1,600, normed in groups of 32.
Expected: 78.8 % top-1, 94.4 % top-5, one crop of 299 on the 48,238 validation images that are not blacklisted; about
0.2 and 0.1 points less on all 50,000 (21.2 and 5.6 % error; verified: tables 3 and 4). torchvision's weights: 77.3
and 93.5 %.
Cost: 128 M images; 20 device-hours.

`:modern` is `common.modern_residual` at 299 pixels; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=100, batch_size=1600, image_size=299)
    c.model = dict(name='inception_v3_aux')
    c.transform.train.update(brightness=0.4, contrast=0.4, saturation=0.4)
    c.batch_norm.group_size = 32
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='rmsprop_tf', decay=0.9, momentum=0.9, eps=1.0, weight_decay=4e-5)
    c.updates.clip_norm = 2.0
    c.schedule = dict(
        name='exponential', peak=0.045, every_epochs=2.0, rate=0.94, batch_scaling='linear', reference_batch=1600
    )
    c.average = dict(name='ema', decay=0.9999)
    return common.finish(  # the auxiliary head would need smoke images of 299 pixels
        c, arg, {'inception_v3': 299}, smoke_size=96, smoke_model=dict(aux=False), modern=common.modern_residual
    )


def sweep():
    for smoothing in (0.0, 0.1):  # table 3: 0.3 points of top-1
        yield {'loss.label_smoothing': smoothing}
