"""Train, prune, share: LeNet-300-100 and LeNet-5 as Deep Compression made them small, on 5,000 digits or Fashion-MNIST.

Han et al. 2015, arXiv:1506.02626 (tables 2 and 3: what each layer keeps); Han, Mao & Dally 2016, arXiv:1510.00149
(tables 2 and 3: 40 and 39 times smaller with 60,000 MNIST digits). Three runs, each from the weights of the one before,
and then the codes:

    python -m cvresearch.main --config configs/deep_compression.py --workdir runs/dense
    python -m cvresearch.main --config configs/deep_compression.py:pruned --workdir runs/pruned \\
        --config.init.weights=run:runs/dense
    python -m cvresearch.main --config configs/deep_compression.py:shared --workdir runs/shared \\
        --config.init.weights=run:runs/pruned
    python -m cvresearch compress --weights run:runs/shared --bits 8 --code --out runs/small

`:factored`, in place of `:pruned`, trains factors of a tenth of the hidden layers' weights; `:student` is a net with a
tenth of them, and learns from the large one's logits with --config.distillation.teacher=run:runs/dense.

`:lenet5` is the convolutional net, `:fashion` the other images, as in `configs/deep_compression.py:lenet5,pruned`.
`launch/deep_compression.py` makes all runs of docs/compression.md.

The recipe is this project's: AdamW and half a cosine, dropout 0.5 in the dense layers, which pruning lowers (equation
2); the rate is a tenth in retraining, as the paper has it for LeNet, and a hundredth for the shared values, whose
gradients are sums. LeNet-300-100 decays its weights so fast that pixels which are always black keep none; with that the
first dense layer keeps 5 % where the paper has 8. Both, and 5 bits, were chosen on training digits that were held out
(launch/compression_choices.py). LeNet-5 has the same share, and the paper's bits; it decays its weights so fast on
Fashion-MNIST alone (chosen on 4,000 of its training images that were held out). Fashion-MNIST is learned from 10,000
images, as many as two cores can do.

Expected: files 40 and 39 times smaller at the accuracy of the first run (verified: Han, Mao & Dally, on MNIST).
Measured here: docs/compression.md.
Cost: 120,000 images; all three runs 320,000.
"""

from configs import common

DROPPED = {  # of each layer, by Han et al. 2015, but for the first dense one, where they keep 8 %
    'mlp_300_100': (('hidden1', 0.95), ('hidden2', 0.91), ('head', 0.74)),
    'lenet5_caffe': (('conv1', 0.34), ('conv2', 0.88), ('ip1', 0.95), ('head', 0.81)),
}
BITS = {'mlp_300_100': (), 'lenet5_caffe': (('conv.*', 8), '.*')}  # 5 where nothing else is said


def get_config(arg=''):
    c = common.mnist5k(epochs=30)
    c.augment.shift = 0
    c.optimizer.weight_decay = 1.0
    c.model = dict(name='mlp_300_100', act='relu', kernel_init='he_normal', dropout=0.3)
    return common.finish(
        c, arg, lenet5=lenet5, fashion=fashion, pruned=pruned, shared=shared, factored=factored, student=student
    )


def lenet5(c):
    c.model = dict(name='lenet5_caffe', dropout=0.5)
    c.optimizer.weight_decay = 0.01
    c.epochs = 15.0


def fashion(c):
    c.data = dict(name='fashion_mnist', train=10_000)
    c.optimizer.weight_decay = 1.0
    c.epochs = 1.0 * round(0.7 * c.epochs)


def pruned(c):
    c.init.head = 'keep'
    c.epochs = 1.0 * round(4 / 3 * c.epochs)
    c.schedule.peak = 1e-3
    c.compress = dict(
        name='prune',
        layers=DROPPED[c.model.name],
        schedule='iterative',
        rounds=4,
        end_epochs=c.epochs / 2,
    )


def shared(c):
    c.init.head = 'keep'
    c.epochs = 1.0 * round(c.epochs / 3)
    c.optimizer.weight_decay = 0.0
    c.schedule.peak = 2e-5
    c.model.dropout = 0.0
    c.compress = dict(name='share', bits=5, layers=BITS[c.model.name])


def factored(c):
    c.init.head = 'keep'
    c.epochs = 1.0 * round(c.epochs / 3)
    c.schedule.peak = 2e-4
    c.compress = dict(name='factors', size=0.1, layers=('hidden.*',))  # of the head it would leave rank 1


def student(c):
    c.model = dict(name='mlp', widths=(32,), act='relu', kernel_init='he_normal')
    c.distillation.update(weight=0.9, temperature=4.0)


def sweep():
    for seed in range(3):
        yield {'seed': seed}
