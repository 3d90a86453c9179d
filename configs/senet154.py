"""SENet-154 on ImageNet-1k. Hu et al. 2017, arXiv:1709.01507, appendix.

    python -m cvresearch.main --config configs/senet154.py --workdir runs/senet154

Paper: as SE-ResNet-50, and dropout 0.2 and label smoothing 0.1; in the last epochs the batch norms are frozen, which
is not done here.
Expected: 81.32 % top-1, 95.53 % top-5, one crop of 224; 82.72 and 96.21 % at 320 (verified: table 8).
Cost: 128 M images; 74 device-hours.

`:modern` is `common.modern_residual`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.imagenet(epochs=100, batch_size=1024)
    c.model = dict(name='legacy_senet154')
    c.batch_norm.group_size = 32
    c.model.dropout = 0.2
    c.loss.label_smoothing = 0.1
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(name='step', peak=0.6, every_epochs=30.0, batch_scaling='linear', reference_batch=1024)
    return common.finish(c, arg, modern=common.modern_residual, smoke_model=dict(stage_sizes=(1, 1, 1, 1)))


def sweep():
    for seed in range(3):
        yield {'seed': seed}
