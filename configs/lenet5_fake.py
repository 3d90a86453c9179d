"""LeNet-5 on synthetic images: a run that needs no data set.

Ten fixed patterns under noise; any size and number of classes, see `cvresearch.data.sources.fake`.

    python -m cvresearch.main --config configs/lenet5_fake.py --workdir runs/lenet5_fake

Expected: close to 100 % top-1 after three epochs.
Cost: 3,072 images.
"""

from configs import common


def get_config(arg=''):
    c = common.mnist5k(epochs=3)
    c.model = dict(name='lenet5')
    c.data = dict(name='fake', image_size=28, channels=1, classes=10, train=1024, test=256)
    c.eval_batch_size = 256
    return common.finish(c, arg)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
