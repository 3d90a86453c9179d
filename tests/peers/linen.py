"""Nets as anyone would write them in Flax: nn.Conv and nn.BatchNorm, and a plain step around them.

ResNet-50 has the shape of Flax's own ImageNet example; EfficientNet-B0 and MobileNetV2 those of their papers.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Repeats, kernel, strides, expansion and features of each stage.
B0 = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
V2 = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (3, 3, 2, 6, 32), (4, 3, 2, 6, 64), (3, 3, 1, 6, 96), (3, 3, 2, 6, 160),
    (1, 3, 1, 6, 320),
)  # fmt: skip


def _layers(dtype, train: bool, momentum: float, epsilon: float):
    conv = functools.partial(nn.Conv, use_bias=False, dtype=dtype)
    norm = functools.partial(
        nn.BatchNorm, use_running_average=not train, momentum=momentum, epsilon=epsilon, dtype=dtype
    )
    return conv, norm


class ResNet50(nn.Module):
    """Bottlenecks of 3, 4, 6 and 3 a stage; with 32 groups of 128 channels at first, ResNeXt-50 32x4d."""

    width: int = 64
    groups: int = 1
    num_classes: int = 1000
    dtype: jnp.dtype = jnp.bfloat16

    @nn.compact
    def __call__(self, x, train: bool):
        conv, norm = _layers(self.dtype, train, 0.9, 1e-5)
        x = nn.relu(norm()(conv(64, (7, 7), (2, 2), padding=3)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), 'SAME')
        for i, blocks in enumerate((3, 4, 6, 3)):
            for j in range(blocks):
                strides = (2, 2) if i and not j else (1, 1)
                y = nn.relu(norm()(conv(self.width << i, (1, 1))(x)))
                y = conv(self.width << i, (3, 3), strides, feature_group_count=self.groups)(y)
                y = nn.relu(norm()(y))
                y = norm(scale_init=nn.initializers.zeros_init())(conv(256 << i, (1, 1))(y))
                if x.shape != y.shape:
                    x = norm()(conv(256 << i, (1, 1), strides)(x))
                x = nn.relu(x + y)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x.mean((1, 2)))


class Inverted(nn.Module):
    """Inverted residuals, of EfficientNet with squeeze and excitation, of MobileNetV2 without."""

    stages: tuple = B0
    excitation: float = 0.25
    act: Callable = nn.swish
    drop: float = 0.2
    num_classes: int = 1000
    dtype: jnp.dtype = jnp.bfloat16

    @nn.compact
    def __call__(self, x, train: bool):
        conv, norm = _layers(self.dtype, train, 0.99, 1e-3)
        gate = functools.partial(nn.Conv, kernel_size=(1, 1), dtype=self.dtype)
        x = self.act(norm()(conv(32, (3, 3), (2, 2))(x)))
        total, before = sum(stage[0] for stage in self.stages), 0
        for repeats, kernel, first, expansion, features in self.stages:
            for j in range(repeats):
                strides, channels = first if not j else 1, x.shape[-1]
                wide, y = channels * expansion, x
                if expansion > 1:
                    y = self.act(norm()(conv(wide, (1, 1))(y)))
                y = conv(wide, (kernel, kernel), (strides, strides), feature_group_count=wide)(y)
                y = self.act(norm()(y))
                if self.excitation:
                    squeezed = self.act(gate(max(1, int(channels * self.excitation)))(y.mean((1, 2), keepdims=True)))
                    y = y * nn.sigmoid(gate(wide)(squeezed))
                y = norm()(conv(features, (1, 1))(y))
                if strides == 1 and features == channels:
                    rate = self.drop * before / total
                    x = x + nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train)(y)
                else:
                    x = y
                before += 1
        x = self.act(norm()(conv(1280, (1, 1))(x))).mean((1, 2))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x)


NETS: dict[str, Callable[[], nn.Module]] = {
    'resnet50': ResNet50,
    'resnext50_32x4d': lambda: ResNet50(width=128, groups=32),
    'efficientnet_b0': Inverted,
    'mobilenetv2_100': lambda: Inverted(V2, 0.0, nn.relu6, 0.0),
}


def step_of(name: str):
    """Returns a net's initial state, as a function, and its jitted update (state, batch) -> (state, metrics)."""
    net, tx = NETS[name](), optax.sgd(optax.cosine_decay_schedule(0.1, 100_000), momentum=0.9)

    def initial():
        variables = net.init({'params': jax.random.key(0)}, jnp.ones((1, 224, 224, 3), jnp.bfloat16), train=False)
        params = variables['params']
        return dict(params=params, stats=variables['batch_stats'], opt=tx.init(params), step=jnp.int32(0))

    def train_step(state, batch):
        images = ((batch['image'].astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)).astype(jnp.bfloat16)
        rngs = {'dropout': jax.random.fold_in(jax.random.key(1), state['step'])}

        def objective(params):
            variables = {'params': params, 'batch_stats': state['stats']}
            logits, new = net.apply(variables, images, train=True, mutable=['batch_stats'], rngs=rngs)
            logits = logits.astype(jnp.float32)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch['label']).mean()
            return loss, (new['batch_stats'], logits)

        (loss, (stats, logits)), gradients = jax.value_and_grad(objective, has_aux=True)(state['params'])
        gradients = jax.tree.map(lambda g, p: g + 1e-4 * p if p.ndim > 1 else g, gradients, state['params'])
        updates, opt = tx.update(gradients, state['opt'], state['params'])
        new = dict(params=optax.apply_updates(state['params'], updates), stats=stats, opt=opt, step=state['step'] + 1)
        return new, (loss, jnp.mean(logits.argmax(-1) == batch['label']))

    return initial, jax.jit(train_step, donate_argnums=0)
