"""Pre-activation ResNets for CIFAR. He et al. 2016, arXiv:1603.05027, appendix.

    python -m cvresearch.main --config configs/preact_resnet164_cifar10.py --workdir runs/preact_resnet164_cifar10

Paper: as the ResNets of 2015 (configs/resnet20_cifar10.py): batch 128 on two GPUs, 0.01 in the first 400 steps, then
0.1 divided by ten after 32,000 and 48,000 of 64,000 steps, weight decay 1e-4. Ours: the rate rises through the 400
steps.
Expected, top-1 (verified: tables 3 and 4; medians of five): 94.54 %, on CIFAR-100 75.67 %; `:preact_resnet110` 93.63
%, `:preact_resnet1001` 95.08 % and 77.29 %.
Cost: 8.19 M images; 0.11 device-hours.

`:modern` is `common.modern_cifar`; no number is known for it.
"""

from configs import common


def get_config(arg=''):
    c = common.cifar(epochs=163.84, batch_size=128)
    c.model = dict(name='preact_resnet164_cifar10')
    c.batch_norm.group_size = 64
    c.optimizer = dict(name='sgd', momentum=0.9, weight_decay=1e-4, decay_all=True)
    c.schedule = dict(
        name='multistep',
        peak=0.1,
        epochs=(81.92, 122.88),
        rate=0.1,
        warmup_steps=400,
        batch_scaling='linear',
        reference_batch=128,
    )
    nets = {f'preact_resnet{net}': 32 for net in ('110', '110_a', '1001')}
    models = {f'{name}_cifar10': size for name, size in nets.items()}
    return common.finish(
        c, arg, models, cifar100=common.cifar100, modern=common.modern_cifar, smoke_model=dict(stage_sizes=(1, 1, 1))
    )


def sweep():
    for seed in range(5):
        yield {'seed': seed}
