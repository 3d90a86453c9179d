"""From a configuration to the parts that training and evaluation share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from cvresearch.base import hosts, plugins, trees
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError, lookup
from cvresearch.data import sources
from cvresearch.data.sampling import Sampling
from cvresearch.engine import augment, early_stopping, freezing, passes, recipes, steps, watching
from cvresearch.engine import state as states
from cvresearch.engine.early_stopping import Patience
from cvresearch.engine.methods import table as methods
from cvresearch.inspect import cost
from cvresearch.models import registry
from cvresearch.nn import devices, overrides
from cvresearch.objectives.losses import Loss
from cvresearch.objectives.tasks import MULTI, SINGLE, Task
from cvresearch.optim import compression, optimizers, param_filters, schedules, updates
from cvresearch.optim.plateau import Plateau
from cvresearch.optim.schedules import Schedule

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The length of a run, and what is due at which step."""

    examples: int
    batch_size: int
    epochs: float
    max_steps: int = 0  # 0: none

    @property
    def steps_per_epoch(self) -> float:
        """Batches in an epoch; a batch may reach into the next one."""
        return self.examples / self.batch_size

    @property
    def steps(self) -> int:
        """The number of updates that the run makes: all of them, or `max_steps` where these are fewer."""
        return min(self.all_steps, self.max_steps or self.all_steps)

    @property
    def all_steps(self) -> int:
        """The updates that show every image `epochs` times: schedules are made for these, wherever the run ends."""
        return math.ceil(round(self.epochs * self.examples) / self.batch_size)

    def epoch(self, step: int) -> float:
        """Returns the epochs of images seen after `step` updates."""
        return step / self.steps_per_epoch

    def steps_every(self, epochs: float) -> frozenset[int]:
        """Returns the steps at which so many epochs have passed, and again as many; none for 0."""
        period = round(epochs * self.examples)
        last = self.steps * self.batch_size // period if period else 0
        return frozenset(-(-k * period // self.batch_size) for k in range(1, last + 1))

    def check_batch(self) -> None:
        """Raises UserError where a batch has more images than there are: it would show some twice in one update."""
        if self.batch_size > self.examples:
            raise UserError(
                f'config.batch_size is {self.batch_size}, more than the {self.examples:,} training images: a batch '
                f'would repeat images; expected at most {self.examples}'
            )

    def due(self, step: int, every_steps: float = 0, every_epochs: float = 0) -> bool:
        """Whether something is due after `step` updates: every so often, and at the end; 0 is never."""
        if step == 0:
            return False
        if step == self.steps:
            return bool(every_steps or every_epochs)
        period = round(every_epochs * self.examples) or every_steps * self.batch_size
        return bool(period) and step * self.batch_size // period > (step - 1) * self.batch_size // period


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run, made from its configuration."""

    layout: meshes.Layout
    source: sources.Source
    plan: Plan
    model: nn.Module
    tx: optax.GradientTransformation
    schedule: Schedule
    loss: Loss
    task: Task
    sampling: Sampling
    augment: augment.Augment
    recipe: steps.UpdateOptions
    freezing: freezing.Freezing
    method: methods.Method
    plateau: Plateau | None
    stopping: Patience | None
    watch: watching.Layers | None
    average: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    eval_batch_size: int
    snapshots: frozenset[int]
    config: ConfigDict

    @classmethod
    def from_config(
        cls, config: ConfigDict, source: sources.Source | None = None, layout: meshes.Layout | None = None
    ) -> 'Experiment':
        """Makes and checks all parts; nothing is written and nothing is compiled.

        Args:
          config: the run's.
          source: its dataset, where it is at hand; what the configuration names otherwise.
          layout: over devices that need not be there, for shapes alone; the configuration's otherwise.

        Raises:
          UserError: a value that is out of range or that does not fit the others.
        """
        # First, since other keys may name what plugins bring.
        plugins.load(config.get('plugins', ()))
        _check_numbers(config)
        # Before the data: a batch that no mesh divides is said in a second, not after a folder has been listed.
        layout = layout or meshes.Layout.of_config(config)
        mesh = layout.mesh
        meshes.check_batch('batch_size', config.batch_size, mesh)
        source = source or sources.load(config.data, config.minival, config.transform, without_labels=config.unlabelled)
        facts = source.facts
        if 'train' not in source.splits:
            raise UserError(f'{facts.name} has no training images here ({"; ".join(source.notes) or "for evaluation"})')
        arguments = {'num_classes': facts.num_classes} | config.model.to_dict()
        if not arguments.get('name'):
            raise UserError(
                'config.model has no name; see `cvresearch summary --all`, or start from a net that is '
                'trained: --config.init.weights=run:DIR, file:PATH#LIBRARY/NET or hub:OWNER/NET'
            )
        classes = arguments['num_classes']
        if type(classes) is not int or classes < facts.num_classes:
            raise UserError(
                f'config.model.num_classes is {classes!r}, but {facts.name} has {facts.num_classes} classes; '
                'expected a whole number, at least that many'
            )
        task = MULTI if facts.multi_label else SINGLE
        plan = Plan(len(source.splits['train']), config.batch_size, config.epochs, config.max_steps)
        schedule = schedules.make(config.schedule, plan.all_steps, plan.steps_per_epoch, config.batch_size)
        options = updates.make(config.updates)
        model = registry.build(**arguments, dtype=lookup('dtype', DTYPES, config.dtype))
        experiment = cls(
            layout=layout,
            source=source,
            plan=plan,
            model=recipes.whole_net(model, config, options.inference or compression.is_on(config)),
            tx=optimizers.make(config.optimizer, schedule, options, plan.steps_per_epoch),
            schedule=schedule,
            loss=recipes.loss_of(config, source, classes),
            task=task,
            sampling=recipes.sampling_of(config, source),
            augment=augment.make(config.augment),
            recipe=recipes.make(config, options, plan.all_steps, plan.steps_per_epoch, mesh),
            freezing=freezing.Freezing(options, plan.steps_per_epoch),
            method=methods.make(config, plan.steps_per_epoch),
            plateau=recipes.plateau_of(config, source.splits, task),
            watch=watching.make(config),
            stopping=early_stopping.make(config, source.splits, task.metric),
            average=config.average.name,
            **recipes.normalization_of(config, facts),
            seed=config.seed,
            eval_batch_size=meshes.fitting(config.eval_batch_size, mesh),
            snapshots=_snapshots(config, plan),
            config=config,
        )
        recipes.check_labels(config, source)
        try:
            experiment.abstract_state()  # the images fit the model, or it says so
        except (TypeError, ValueError, KeyError) as error:
            reason = (str(error).splitlines() or [''])[0]
            raise UserError(
                f'model {config.model.name!r} cannot be made for images of {facts.image_shape} with '
                f'{dict(config.model)}: {type(error).__name__}: {reason} (python -X dev shows where)'
            ) from error
        return experiment

    @property
    def mesh(self) -> meshes.AnyMesh:
        """The devices of the run."""
        return self.layout.mesh

    @property
    def weights(self) -> tuple[str, ...]:
        """What is evaluated: 'raw', and the name of the average where one is kept."""
        return ('raw',) if self.recipe.average is None else ('raw', self.average)

    def check_training(self) -> None:
        """Raises UserError where the data do not suffice for the method, or the length of the run for what is due."""
        self.plan.check_batch()
        if self.recipe.compression:
            self.recipe.compression.check(self.abstract_state().params, self.plan.all_steps)
        methods.check(self.config, self.method, self.source)
        other, ratio = self.source.unlabelled, self.config.unlabelled.get('ratio', 1)
        if other is not None and ratio * self.plan.batch_size > len(other):
            raise UserError(
                f'config.unlabelled.ratio is {ratio}: with config.batch_size={self.plan.batch_size} a batch would '
                f'repeat some of the {len(other):,} images without labels; expected a product of at most {len(other)}'
            )

    @property
    def selection(self) -> str:
        """The metric by which the best checkpoint is chosen."""
        return self.stopping.metric if self.stopping else self.task.metric

    def _create(self, seed: jax.Array, variables: dict | None = None) -> states.State:
        plateau = self.plateau.after([]) if self.plateau else None
        average = self.recipe.average is not None
        shape = self.source.facts.image_shape
        beside = self.method.initial(self.model, self.tx, shape, seed)
        return states.create(
            self.model,
            self.tx,
            shape,
            seed,
            average,
            plateau,
            self.recipe.skip > 0,
            self.task.sums,
            variables,
            beside,
            self.recipe.blank,
        )

    @functools.cached_property
    def _abstract_state(self) -> states.State:
        shapes = jax.eval_shape(self._create, jax.ShapeDtypeStruct((), jnp.uint32))
        placements = self.layout.of_state(shapes, dict(trees.named_leaves(shapes.params)))
        placed = lambda x, placement: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement)  # noqa: E731
        return jax.tree.map(placed, shapes, placements)

    def abstract_state(self) -> states.State:
        """Returns the shapes and dtypes of the state, and where on the mesh they lie."""
        return self._abstract_state

    @property
    def _placements(self) -> Any:
        """Of the state's leaves, as a state; one `NamedSharding` for all where none is divided."""
        if not self.layout.divides:
            return meshes.replicated(self.mesh)
        return jax.tree.map(lambda x: x.sharding, self.abstract_state())

    def initial_state(self, variables: dict | None = None) -> states.State:
        """Returns the state at step 0.

        Args:
          variables: {'params': ..., 'batch_stats': ...} on the host, in the layout of the run's state, to start from;
            initial ones if None.
        """
        # The seed is an argument and no constant, so that all seeds share one compiled program.
        return jax.jit(self._create, out_shardings=self._placements)(np.uint32(self.seed), variables)

    def training_at(self, step: int) -> tuple[nn.Module, steps.UpdateOptions]:
        """Returns the net and the options of the update from a step: what is frozen then, and how."""
        if not self.freezing.inference:
            return self.model, self.recipe
        modules = self.still_at(step)
        options = dict(never_learns=self.freezing.never_learns, held=freezing.held(modules, self.freezing))
        return overrides.frozen_in(self.model, modules), dataclasses.replace(self.recipe, **options)

    def still_at(self, step: int) -> frozenset[str]:
        """Returns the paths of the modules in inference mode in the update from a step."""
        return self.freezing.modules(self.abstract_state().params, step)

    def train_step(self, teacher: Callable[[jax.Array], jax.Array] | None = None, step: int = 0):
        """Returns the jitted update (state, batch) -> state; the old state's memory is reused.

        Args:
          teacher: of the experiment (`teacher.of`), from the images that the net sees to logits.
          step: from which it is made, or a later one at which as much is frozen.
        """
        model, recipe = self.training_at(step)
        recipe = dataclasses.replace(recipe, teacher=teacher)
        placements = self._placements
        if self.layout.divides:
            scatter = functools.partial(jax.lax.with_sharding_constraint, shardings=recipe.learning(placements.params))
            recipe = dataclasses.replace(recipe, gather=self._gather, scatter=scatter)
        update = self.method.make_train_step(
            steps.UpdateParts(
                model, self.tx, self.loss, self.augment, self.mean, self.std, recipe, self.task, self.schedule
            )
        )
        divided = meshes.by_example(self.mesh)

        def train_step(state: states.State, batch: dict) -> states.State:
            with devices.traced_for(self.mesh):
                return update(state, batch)

        return jax.jit(train_step, in_shardings=(placements, divided), out_shardings=placements, donate_argnums=0)

    def greeting(self, name: str, step: int) -> str:
        """Returns what a run says when it starts at a step: name of its net, parameters, data, steps to go, devices."""
        facts, device, there = self.source.facts, meshes.devices(self.mesh)[0].device_kind, jax.device_count()
        all_used = self.mesh.size == there or self.config.mesh.data != -1
        return (
            f'{name}: {trees.count(self.abstract_state().params):,} parameters; {facts.name}: '
            f'{self.plan.examples:,} images; {self.plan.steps - step:,} of {self.plan.steps:,} steps '
            f'on {self.mesh.size} x {device}'
            f'{"" if all_used else f" (of {there}, which do not divide a batch of {self.plan.batch_size})"}'
        )

    def training_flops(self) -> int:
        """Returns the floating-point operations of an update."""
        size, (height, width, channels) = self.augment.resize, self.source.facts.image_shape
        shape = (size or height, size or width, channels)
        return cost.training_flops(self.model, shape, self.plan.batch_size, 2 if self.recipe.sam else 1)

    def eval_step(self):
        """Returns the jitted (state, batch) -> sums of metrics."""
        return self._of_whole(passes.make_eval_step(self.model, self.loss, self.mean, self.std))

    def loss_of(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Returns the mean loss of kept logits, added up in float64."""
        target = self.task.target(jnp.asarray(labels), logits.shape[-1])
        return float(np.asarray(self.loss(jnp.asarray(logits), target), np.float64).mean())

    def with_plateau(self, state: states.State, rows: list[dict]) -> states.State:
        """Returns the state with the learning rate that the evaluations so far ask for."""
        if self.plateau is None:
            return state
        after = jax.tree.map(np.float32, self.plateau.after(rows))
        return state.replace(plateau=hosts.to_devices(after, meshes.replicated(self.mesh)))

    def with_precise_statistics(self, state: states.State, batches: Iterable[dict]) -> states.State:
        """Returns the state, and its average, with the statistics of norms computed anew over some training batches."""
        still = self.still_at(self.plan.steps - 1)
        net = recipes.statistics_net(self.model, still)
        step = self._of_whole(passes.make_statistics_step(net, self.augment, self.mean, self.std))
        replicated = meshes.replicated(self.mesh)
        # The average is a net with activations, and so with statistics, of its own.
        variants = [state, state.averaged()] if state.average else [state]
        statistics = [[jax.device_get(step(variant, batch)) for variant in variants] for batch in batches]
        exact = [recipes.population(list(tree)) for tree in zip(*statistics, strict=True)]
        before, held = [hosts.to_host(variant.model_state) for variant in variants], freezing.held(still)
        exact = [
            {name: param_filters.kept(old[name], new[name], held) for name in new}
            for old, new in zip(before, exact, strict=True)
        ]
        exact = [hosts.to_devices(tree, replicated) for tree in exact]
        state = state.replace(model_state=exact[0])
        return state.replace(average={**state.average, 'model_state': exact[1]}) if state.average else state

    def _gather(self, params):
        return jax.lax.with_sharding_constraint(params, meshes.replicated(self.mesh))

    def _of_whole(self, step: Callable) -> Callable:
        """Returns the jitted (state, batch) -> values for the host, of a step that needs the parameters whole."""

        def of_whole(state: states.State, batch: dict):
            with devices.traced_for(self.mesh):
                return step(state.replace(params=self._gather(state.params)) if self.layout.divides else state, batch)

        replicated, divided = meshes.replicated(self.mesh), meshes.by_example(self.mesh)
        return jax.jit(of_whole, in_shardings=(self._placements, divided), out_shardings=replicated)


def _check_numbers(config: ConfigDict) -> None:
    if not 0 <= config.seed < 2**32:
        raise UserError(f'config.seed is {config.seed}; expected 0 to 2**32 - 1')
    if config.epochs <= 0:
        raise UserError(f'config.epochs is {config.epochs}; expected more than 0')
    for name in ('keep', 'save_failures'):
        if config[name] < 1:
            raise UserError(f'config.{name} is {config[name]}; expected at least 1')
    numbers = ('max_steps', 'log_every_steps', 'evaluate_every_epochs', 'save_every_epochs', 'snapshot_every_epochs')
    for name in (*numbers, 'minival', 'precise_batches'):
        if config[name] < 0:
            raise UserError(f'config.{name} is {config[name]}; expected at least 0')


def _snapshots(config: ConfigDict, plan: Plan) -> frozenset[int]:
    """Returns the steps at which members of ensembles are kept, as far as the run goes."""
    ends = frozenset(schedules.cycle_ends(config.schedule, plan.all_steps, plan.steps_per_epoch))
    return frozenset(step for step in ends | plan.steps_every(config.snapshot_every_epochs) if step <= plan.steps)
