"""The gradient of Meta Pseudo Labels against a numerical derivative of what it is the gradient of, in 64 bits.

The teacher gives the unlabelled images classes; the student makes its step on them; R is the student's labelled loss
after that step, in expectation over the classes. The update moves the teacher along the gradient of R.
"""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.engine import augment, steps
from cvresearch.engine import state as states
from cvresearch.engine.methods.meta_pseudo_labels import MetaPseudoLabels
from cvresearch.objectives import losses
from cvresearch.objectives.tasks import SINGLE
from cvresearch.optim import optimizers

CLASSES, IMAGES = 3, 2


class Net(nn.Module):
    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.tanh(nn.Dense(4, dtype=np.float64, name='hidden')(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES, dtype=np.float64, name='head')(x)


@dataclasses.dataclass(frozen=True)
class Given(MetaPseudoLabels):
    """The classes are given instead of drawn, so that all of them can be gone through."""

    taught: tuple[int, ...] = ()

    def _classes_of(self, logits, state, other):
        return jnp.array(self.taught)


def batch():
    random = np.random.default_rng(0)
    image, weak, strong = random.integers(0, 256, (3, IMAGES, 2, 2, 1)).astype(np.uint8)
    index = np.arange(IMAGES, dtype=np.int32)
    known = dict(epoch=index, index=index)
    return {
        'image': image,
        'label': np.array([0, 2], np.int32),
        **known,
        'unlabelled': {'image': weak, 'strong': strong, 'label': -index, **known},
    }


def update_of(rate, **arguments):
    """Returns (state, update for given classes) of a pair of nets, whose optimizers are plain gradient descent."""
    net, tx = Net(), optimizers.make({'name': 'sgd', 'momentum': 0.0}, lambda step: rate)
    loss = losses.make({'name': 'softmax_cross_entropy'})
    method = Given(uda_weight=0.0, wait_steps=0, **arguments)
    state = states.create(net, tx, (2, 2, 1), 0, method=method.initial(net, tx, (2, 2, 1), 0))
    state = jax.tree.map(lambda x: x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)
    parts = steps.UpdateParts(
        net, tx, loss, augment.Augment(), (0.5,), (0.25,), steps.UpdateOptions(), SINGLE, lambda step: rate
    )
    return state, lambda taught: dataclasses.replace(method, taught=taught).make_train_step(parts)(state, batch())


def seen(images):
    return (images.astype(np.float32) / 255 - np.float32(0.5)) / np.float32(0.25)


def labelled_loss(params):
    chosen = jax.nn.log_softmax(Net().apply({'params': params}, seen(batch()['image'])))
    return float(-np.mean([chosen[0, 0], chosen[1, 2]]))


def probability(teacher, taught):
    shown = seen(batch()['unlabelled']['strong'])
    return float(np.prod(np.asarray(jax.nn.softmax(Net().apply({'params': teacher}, shown)))[range(IMAGES), taught]))


def of_teacher(rate, **arguments):
    """Returns the expectation of the update's gradient less that of the labelled loss, and the derivative of R."""
    state, update = update_of(rate, **arguments)
    teacher, every = state.method['params'], list(itertools.product(range(CLASSES), repeat=IMAGES))
    flat, back = jax.flatten_util.ravel_pytree(teacher)
    flat = np.asarray(flat)
    found, after = {taught: update(taught) for taught in every}, {}
    expected = np.zeros(len(flat))
    for taught, new in found.items():
        moved = np.asarray(jax.flatten_util.ravel_pytree(new.method['params'])[0])
        expected += probability(teacher, taught) * (flat - moved) / rate
        after[taught] = labelled_loss(new.params)
    labelled = np.zeros(len(flat))
    derivative = np.zeros(len(flat))
    for place, step in enumerate(1e-5 * np.eye(len(flat))):
        up, down = back(flat + step), back(flat - step)
        labelled[place] = (labelled_loss(up) - labelled_loss(down)) / 2e-5
        derivative[place] = sum((probability(up, t) - probability(down, t)) * loss for t, loss in after.items()) / 2e-5
    return expected - labelled, derivative / IMAGES  # the update has the mean over the images, R the sum


def test_the_difference_of_losses_gives_exactly_the_gradient_sign_included(float64):
    ours, derivative = of_teacher(rate=0.5)
    assert np.abs(derivative).max() > 1e-3
    np.testing.assert_allclose(ours, derivative, rtol=0, atol=1e-8)


def test_the_dot_product_is_its_first_order(float64):
    ours, derivative = of_teacher(rate=1e-4, feedback='dot_product')
    assert np.abs(derivative).max() > 1e-7
    np.testing.assert_allclose(ours, derivative, rtol=0, atol=1e-3 * np.abs(derivative).max())


def test_soft_labels_of_the_teachers_own_have_no_gradient(float64):
    """What the published code does: the cross-entropy of a softmax to itself, stopped, has gradient zero."""
    logits = jnp.array([[0.3, -1.2, 2.0]])

    def soft(z):
        return -jnp.sum(jax.lax.stop_gradient(jax.nn.softmax(z)) * jax.nn.log_softmax(z))

    np.testing.assert_allclose(jax.grad(soft)(logits), 0, atol=1e-15)


def test_the_baseline_follows_h_and_is_taken_off_it(float64):
    state, update = update_of(rate=0.5, baseline=0.75)
    new = update((1, 1))
    h = labelled_loss(state.params) - labelled_loss(new.params)
    np.testing.assert_allclose(new.method['baseline'], 0.25 * h, rtol=1e-6)
    # An update whose h is the baseline moves the teacher by its labelled loss alone.
    net, tx = Net(), optimizers.make({'name': 'sgd', 'momentum': 0.0}, lambda step: 0.5)
    parts = steps.UpdateParts(
        net,
        tx,
        losses.make({'name': 'softmax_cross_entropy'}),
        augment.Augment(),
        (0.5,),
        (0.25,),
        steps.UpdateOptions(),
        SINGLE,
        lambda step: 0.5,
    )
    even = state.replace(method=state.method | {'baseline': jnp.float64(h)})
    moved = Given(uda_weight=0.0, wait_steps=0, taught=(1, 1)).make_train_step(parts)(even, batch()).method['params']

    def loss(params):
        chosen = jax.nn.log_softmax(net.apply({'params': params}, seen(batch()['image'])))
        return -(chosen[0, 0] + chosen[1, 2]) / 2

    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.method['params'], jax.grad(loss)(state.method['params']))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), moved, expected)


def test_a_waiting_student_stands_still_and_its_teacher_learns(float64):
    net, tx = Net(), optimizers.make({'name': 'sgd', 'momentum': 0.9}, lambda step: 0.5)
    method = Given(wait_steps=1, taught=(1, 1))
    state = states.create(net, tx, (2, 2, 1), 0, average=True, method=method.initial(net, tx, (2, 2, 1), 0))
    options = steps.UpdateOptions(average=lambda step: 0.5)
    parts = steps.UpdateParts(
        net,
        tx,
        losses.make({'name': 'softmax_cross_entropy'}),
        augment.Augment(),
        (0.5,),
        (0.25,),
        options,
        SINGLE,
        lambda step: 0.5,
    )
    new = method.make_train_step(parts)(state, batch())
    for name in ('params', 'opt_state', 'average'):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(new, name))
    assert (state.method['params']['head']['kernel'] != new.method['params']['head']['kernel']).any()
    again = method.make_train_step(parts)(new, batch())
    assert int(again.step) == 2 and (again.params['head']['kernel'] != new.params['head']['kernel']).any()


def test_sampled_classes_have_the_teachers_frequencies():
    method, state = (
        MetaPseudoLabels(),
        states.State(*[None] * len(dataclasses.fields(states.State))).replace(seed=jnp.uint32(3)),
    )
    logits = jnp.tile(jnp.log(jnp.array([0.7, 0.2, 0.1])), (4000, 1))
    index = jnp.arange(4000, dtype=jnp.int32)
    drawn = method._classes_of(logits, state, {'epoch': index * 0, 'index': index})
    share = np.bincount(drawn, minlength=3) / 4000
    np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=4 * np.sqrt(0.21 / 4000))
    other = method._classes_of(logits, state, {'epoch': index * 0 + 1, 'index': index})
    assert (drawn != other).any()
