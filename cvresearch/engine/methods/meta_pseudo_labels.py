"""Meta Pseudo Labels: a teacher learns to give labels by which its student gets better (Pham et al. 2020).

arXiv:2003.10580, section 3. In one update
  1. the teacher draws a class for each unlabelled image from its distribution;
  2. the student descends its loss on these classes;
  3. the feedback h says how much better the student has become on the labelled images;
  4. the teacher descends loss(labelled) + UDA(unlabelled) + (h - b) * CE(its distribution, its own classes),
     where b is a moving average of h.

The last term is REINFORCE: with h = loss(old student) - loss(new student) its expectation is exactly the gradient, with
respect to the teacher, of the new student's expected labelled loss, so descending it makes students better. The sign
and the classes matter. The published code takes new minus old, and soft labels whose cross-entropy with themselves has
gradient zero; docs/unlabelled.md.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from cvresearch.base import rng
from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError, lookup
from cvresearch.engine import steps
from cvresearch.engine.state import State
from cvresearch.objectives.unlabelled import check_numbers, interleaved, of_own_distributions, ramp, separated


@dataclasses.dataclass(frozen=True)
class MetaPseudoLabels:
    """See the head of this file. The state's own net is the student; `State.method` holds the teacher.

    Attributes:
      feedback: 'taylor', the difference of the student's labelled losses; 'dot_product', rate * <gradient of the new
        student's labelled loss, gradient of the old one's loss on the teacher's classes>, its first order.
      labels: 'sampled' from the teacher's distribution, which the derivation needs, or 'argmax'.
      baseline: share of the past in the moving average of h.
      uda_weight: of the teacher's consistency.
      uda_warmup_steps: updates over which that rises from 0.
      uda_temperature: divides the logits of its target.
      uda_threshold: images whose most likely class has a lower probability count as 0 there.
      wait_steps: updates in which the teacher learns alone; the student, its optimizer and average stand still.
      teacher_rate: the teacher's learning rate over the student's.
    """

    feedback: str = 'taylor'
    labels: str = 'sampled'
    baseline: float = 0.99
    uda_weight: float = 8.0
    uda_warmup_steps: int = 5000
    uda_temperature: float = 0.7
    uda_threshold: float = 0.6
    wait_steps: int = 3000
    teacher_rate: float = 1.0
    strong_view: ClassVar[bool] = True
    unlabelled: ClassVar[bool] = True

    def __post_init__(self):
        lookup('method.feedback', dict.fromkeys(('taylor', 'dot_product')), self.feedback)
        lookup('method.labels', dict.fromkeys(('sampled', 'argmax')), self.labels)
        weights = ('uda_weight', 'uda_warmup_steps', 'wait_steps', 'teacher_rate')
        check_numbers(self, ('baseline', 'uda_threshold'), weights, ('uda_temperature',))

    def initial(self, model, tx, image_shape: tuple[int, ...], seed) -> dict:
        """Returns the teacher at step 0: params, model_state, opt_state; and the baseline, float32 ()."""
        # By a stream of its own: from the student's initial weights it would teach what the student answers.
        variables = model.init({'params': rng.key(seed, 'init teacher')}, jnp.zeros((1, *image_shape)), train=False)
        model_state = dict(variables)
        params = model_state.pop('params')
        return dict(params=params, model_state=model_state, opt_state=tx.init(params), baseline=jnp.float32(0))

    def make_train_step(self, parts: steps.UpdateParts) -> Callable[[State, dict], State]:
        """Returns one update of both nets, (state, batch) -> state; the metrics are the student's."""
        options, task, classes = parts.options, parts.task, parts.model.num_classes

        def train_step(state: State, batch: dict) -> State:
            labelled, weak, strong = steps.views(parts, state, batch, strong=True)
            number, target, teacher = len(batch['label']), task.target(batch['label'], classes), state.method
            key = rng.step_key(state.seed, 'dropout of the teacher', state.step)
            teacher_of = _pass(parts, teacher['model_state'], number, (labelled, weak, strong), key)
            # One pass serves twice: for the classes now, and for the gradient once the student's feedback is known.
            logits, pull, teacher_state = jax.vjp(teacher_of, teacher['params'], has_aux=True)
            taught = self._classes_of(logits[2], state, batch['unlabelled'])

            key = rng.step_key(state.seed, 'dropout', state.step)
            student_of = _pass(parts, state.model_state, number, (labelled, strong), key)
            fit = jax.value_and_grad(lambda params: _on_classes(parts.loss, taught, student_of(params)), has_aux=True)
            (mean, (before, model_state)), gradients = fit(state.params)
            losses = parts.loss(before, target)
            sums = task.of_batch(before, batch['label'], losses)
            new = steps.updated(state, parts.tx, options.scatter(gradients), model_state, mean, sums, options)
            waits = state.step < self.wait_steps
            new = _waiting(state, new, waits)

            # With the dropout of before: another mask would be noise in the difference of the two losses.
            after = lambda params: jnp.mean(parts.loss(student_of(params)[0][0], target))  # noqa: E731
            if self.feedback == 'taylor':
                h = jnp.mean(losses) - after(new.params)
            else:
                h = parts.schedule(state.step) * ~waits * _dot(jax.grad(after)(new.params), gradients)

            def objective(logits: tuple) -> jax.Array:
                labelled, weak, strong = logits
                uda = of_own_distributions(weak, strong, self.uda_threshold, self.uda_temperature)
                uda *= self.uda_weight * ramp(state.step, 0, self.uda_warmup_steps)
                return (
                    jnp.mean(parts.loss(labelled, target))
                    + uda
                    + (h - teacher['baseline']) * of_classes(strong, taught)
                )

            (of_teacher,) = pull(jax.grad(objective)(logits))
            method = self._stepped(parts, state, options.scatter(of_teacher), teacher_state, h)
            return _with_teacher(state, new, method)

        return train_step

    def _stepped(
        self, parts: steps.UpdateParts, state: State, gradients, model_state: dict, h: AnyArray | float
    ) -> dict:
        """Returns the teacher and the baseline after the teacher's step."""
        teacher = state.method
        scaled = dict(rate_scale=state.plateau['scale']) if state.plateau else {}
        updates, opt_state = parts.tx.update(gradients, teacher['opt_state'], teacher['params'], **scaled)
        # Of the update, since a rule such as Adam does not see by how much its gradients are multiplied.
        updates = jax.tree.map(lambda update: self.teacher_rate * update, updates)
        baseline = self.baseline * teacher['baseline'] + (1 - self.baseline) * h
        return dict(
            params=optax.apply_updates(teacher['params'], updates),
            model_state=model_state,
            opt_state=opt_state,
            baseline=baseline.astype(teacher['baseline'].dtype),
        )

    def _classes_of(self, logits: jax.Array, state: State, other: dict) -> jax.Array:
        """Returns the classes that the teacher gives, int (batch,); each is drawn by its example's own key."""
        if self.labels == 'argmax':
            return jnp.argmax(logits, axis=-1)
        keys = rng.example_keys(state.seed, 'pseudo labels', other['epoch'], other['index'])
        return jax.vmap(jax.random.categorical)(keys, logits)


def of_classes(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy of logits (batch, classes) to classes, int (batch,)."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), classes[:, None], axis=-1))


def _on_classes(loss: Callable, classes: jax.Array, answer: tuple) -> tuple:
    """Returns (the student's mean loss on the teacher's classes, (its labelled logits, new model state))."""
    (labelled, strong), model_state = answer
    target = jax.nn.one_hot(classes, strong.shape[-1], dtype=strong.dtype)
    return jnp.mean(loss(strong, target)), (labelled, model_state)


def _pass(
    parts: steps.UpdateParts, model_state: dict, number: int, groups: Sequence[AnyArray], key: jax.Array
) -> Callable:
    """Returns params -> (logits of each group, new model state): a net's pass over all groups, as it trains."""
    images, sizes = interleaved(number, groups), [len(group) for group in groups]

    def passed(params) -> tuple:
        logits, changed = parts.model.apply(
            {'params': parts.options.gather(params), **model_state},
            images,
            train=True,
            mutable=list(model_state),
            rngs={'dropout': key},
        )
        if isinstance(logits, tuple):
            raise UserError(
                'config.method.name is meta_pseudo_labels, which trains no auxiliary heads, and the model has some; '
                'expected a model without'
            )
        return tuple(separated(number, sizes, logits)), dict(changed)

    return passed


def _waiting(old: State, new: State, waits: jax.Array) -> State:
    """Returns the new state, with the student of the old one while it waits."""
    # Not the step: schedules and the wait itself go by it, and the teacher's updates count.
    kept = ('params', 'model_state', 'opt_state', 'average')
    choose = lambda before, after: jnp.where(waits, before, after)  # noqa: E731
    return new.replace(**{name: jax.tree.map(choose, getattr(old, name), getattr(new, name)) for name in kept})


def _with_teacher(old: State, new: State, method: dict) -> State:
    """Returns the new state with the new teacher; a batch that was skipped leaves the old one.

    A teacher that is not finite ends the run as a student would.
    """
    finite = jnp.isfinite(optax.global_norm((method['params'], method['model_state'], method['baseline'])))
    if new.skipped:
        skipped = new.skipped['total'] > old.skipped['total']
        method = jax.tree.map(lambda before, after: jnp.where(skipped, before, after), old.method, method)
        finite |= skipped
    bad_step = jnp.where((new.bad_step < 0) & ~finite, old.position, new.bad_step)
    return new.replace(method=method, bad_step=bad_step)


def _dot(a, b) -> jax.Array | int:
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))
