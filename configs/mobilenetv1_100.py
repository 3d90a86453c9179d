"""MobileNet v1, all widths and resolutions, on ImageNet-1k. Howard et al. 2017, arXiv:1704.04861, section 3.2.

    python -m cvresearch.main --config configs/mobilenetv1_100.py --workdir runs/mobilenetv1_100
    python -m cvresearch.main --config configs/mobilenetv1_100.py:mobilenetv1_025_128 --workdir runs/mobilenetv1_025_128

Paper: asynchronous RMSProp as for Inception-v3, less regularisation and augmentation (no auxiliary head, no label
smoothing, crops that are not small), little or no weight decay of the depthwise kernels. Not in the paper, from
TF-slim: 0.045 times 0.94 every 2.5 epochs (verified: mobilenet_v1_train.py, there with plain SGD); decay and momentum
0.9, epsilon 1.0, weight decay 4e-5, an average with 0.9999 (recalled). Batch 96 on each of 16 workers, as for
MobileNetV2, and 100 epochs are this project's choice.
Expected, top-1, one crop (verified: tables 6 and 7): 70.6 %, at 192, 160 and 128 pixels 69.1, 67.2, 64.4; widths
0.75, 0.5 and 0.25: 68.4, 63.7, 50.6. `:mobilenetv1_full` 71.7 (table 4), `:mobilenetv1_shallow` 65.3 (table 5).
Cost: 128 M images; 20 device-hours.

`:modern` is `common.modern_mobile`. The best known for the net is timm's 75.4 % after 3,600 epochs (verified: timm's
mobilenetv1_100.ra4_e3600_r224_in1k), whose recipe is another one.
"""

from configs import common

WIDTHS, SIZES = ('100', '075', '050', '025'), (224, 192, 160, 128)


def get_config(arg=''):
    c = common.imagenet(epochs=100, batch_size=1536)
    c.model = dict(name='mobilenetv1_100')
    c.transform.train.crop.scale = (0.5, 1.0)
    c.batch_norm.group_size = 96
    c.optimizer = dict(
        name='rmsprop_tf',
        decay=0.9,
        momentum=0.9,
        eps=1.0,
        weight_decay=4e-5,
        decay_mask=('stem_conv', '.*/pointwise_conv', 'head/kernel'),
    )
    c.schedule = dict(
        name='exponential', peak=0.045, every_epochs=2.5, rate=0.94, batch_scaling='linear', reference_batch=1536
    )
    c.average = dict(name='ema', decay=0.9999)
    models = {f'mobilenetv1_{w}' + (f'_{size}' if size < 224 else ''): size for w in WIDTHS for size in SIZES}
    models |= {'mobilenetv1_shallow': 224}
    return common.finish(
        c, arg, models, mobilenetv1_full=full, modern=common.modern_mobile, smoke_model=dict(repeats=(1, 1, 1, 1, 1))
    )


def full(c):
    c.model.name = 'mobilenetv1_full'
    c.optimizer.decay_mask = ()  # it has no depthwise kernels


def sweep():
    for width in WIDTHS:  # figure 4: sixteen nets
        for size in SIZES:
            yield {
                'model.name': f'mobilenetv1_{width}',
                'transform.train.crop.size': size,
                'transform.eval.crop.size': size,
                'transform.eval.crop.resize': round(size / 0.875),
            }
