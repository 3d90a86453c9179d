"""The start of a run from weights that are there: config.init.

What the configuration leaves open follows from the weights (`WarmStart.of`): the net, its arguments, the size of its
images and their normalization. At step 0 the weights take the place of the initial values (`started`); what is loaded,
new, left over and adapted is said and recorded. A run that has a checkpoint goes on from that, and does not need the
weights any more.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cvresearch.base import hosts, trees
from cvresearch.base.config import RENAMED
from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.base.records import read_card
from cvresearch.data import identity, sources
from cvresearch.engine import classifiers, finetuning
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.state import State
from cvresearch.engine.transplant import HEADS, INPUTS, Transplant, transplanted
from cvresearch.interop.classifier import Classifier
from cvresearch.nn.stacked import stack, unstack

SHOWN = 8  # modules in a line
KNOBS = dict(weights='', head='new', skip=(), input='adapt')


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What a run starts from.

    Attributes:
      config: of the run, with what follows from the weights.
      followed: that, by dotted key; {} for a run from scratch.
      record: what an earlier process of the run recorded of its start; None before there was one.
    """

    config: ConfigDict
    followed: dict
    record: dict | None = None

    @classmethod
    def of(cls, config: ConfigDict, workdir: str | Path) -> 'WarmStart':
        """Completes a configuration; the weights are read only if the run in `workdir` has not begun.

        Raises:
          UserError: no such weights, or a configuration that does not go with them.
        """
        init = config.get('init', ConfigDict(KNOBS))
        check_arguments('config.init', init.to_dict(), KNOBS)
        lookup('init.head', dict.fromkeys(HEADS), init.head)
        lookup('init.input', dict.fromkeys(INPUTS), init.input)
        method = config.get('finetune', {}).get('name', 'all')
        if not init.weights:
            if method != 'all':
                raise UserError(
                    f'config.finetune.name is {method!r}, but there are no weights to go on from; expected '
                    '--config.init.weights=run:DIR, file:PATH#LIBRARY/NET or hub:OWNER/NET'
                )
            return cls(config, {})
        card = hosts.broadcast((read_card(Path(workdir)) or {}).get('init') if hosts.is_primary() else None)
        record = card if card and card['name'] == init.weights else None
        start = cls(config, {}, record)
        followed = record['followed'] if record else start._open_keys()
        # By the names of today: the record may be of an earlier version.
        followed = {
            RENAMED.get(key, key): tuple(value) if isinstance(value, list) else value for key, value in followed.items()
        }
        completed = _with(config, followed)
        if not record:
            tuned = finetuning.of(completed)
            followed, completed = followed | tuned, _with(completed, tuned)
        return dataclasses.replace(start, config=completed, followed=followed)

    @functools.cached_property
    def net(self) -> Classifier:
        """The net whose weights are taken."""
        return classifiers.load(self.config.init.weights)

    def _open_keys(self) -> dict:
        """Returns what the configuration leaves open and the weights decide, by dotted key."""
        config, net = self.config, self.net
        variant, configured = net.provenance.variant, config.model.get('name', '')
        if configured and configured != variant:
            raise UserError(
                f'config.model.name is {configured!r}, and {config.init.weights} has the weights of {variant!r}; '
                'leave the name out, or name other weights'
            )
        values: dict[str, Any] = {'model.name': variant}
        values |= {f'model.{key}': value for key, value in net.provenance.arguments.items()}
        mean, std = normalization(net, _channels(config))
        if config.normalize.name == 'dataset' and config.normalize.mean is None and config.normalize.std is None:
            values |= {'normalize.mean': mean, 'normalize.std': std}
        prepared = net.preprocessing
        for part in config.transform:
            values[f'transform.{part}.interpolation'] = prepared.interpolation
            values[f'transform.{part}.crop.size'] = net.input_shape[0]
            if prepared.resize and config.transform[part].get('crop', {}).get('name') == 'resize_center_crop':
                values[f'transform.{part}.crop.resize'] = prepared.resize
        return {key: value for key, value in values.items() if _is_open(config, key)}

    def started(self, experiment: Experiment) -> tuple[State, dict | None]:
        """Returns the state at step 0, and the record of what it came from; None from scratch.

        Raises:
          UserError: weights that do not fit, or that are not the ones the run began with.
        """
        state, init = experiment.initial_state(), self.config.get('init', ConfigDict(KNOBS))
        if not init.weights:
            return state, None
        provenance = self.net.provenance
        if self.record and self.record['digest'] != provenance.digest:
            raise UserError(
                f'{init.weights} holds other weights (SHA-256 {provenance.digest[:12]}) than the run began with '
                f'({self.record["digest"][:12]}); put those back, or choose another --workdir'
            )
        initial = {'params': state.params, **state.model_state}
        unstacked = unstack(hosts.to_host(initial))
        order = head_order(self.net, experiment) if init.head == 'keep' else None
        transplant = transplanted(self.net, unstacked, tuple(init.skip), order, init.input, _order(self.config))
        state = experiment.initial_state(stack(transplant.variables, initial))
        return state, self._record(experiment, transplant)

    def _record(self, experiment: Experiment, transplant: Transplant) -> dict:
        net, facts = self.net, experiment.source.facts
        lines = [
            f'starts from {net.provenance.name} ({net.provenance.variant}, SHA-256 {net.provenance.digest[:12]}): '
            f'{transplant.loaded} of {len(trees.named_leaves(transplant.variables))} arrays loaded'
        ]
        if self.followed:
            lines.append('follows the weights: ' + ', '.join(f'{key}={_short(v)}' for key, v in self.followed.items()))
        if 'head' in transplant.new:
            lines.append(
                f'the head is new, from zero: {facts.num_classes:,} classes ({", ".join(facts.class_names[:5])}'
                f'{", ..." if facts.num_classes > 5 else ""}); the weights have {net.num_classes:,}'
            )
        for what, names in (('new', transplant.new), ('left over', transplant.left_over)):
            if names not in ([], ['head']):
                more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
                lines.append(f'{what}: {", ".join(names[:SHOWN])}{more}')
        lines += [f'adapted: {path}: {rule}' for path, rule in transplant.adapted.items()]
        expected = normalization(net, facts.image_shape[-1], _order(self.config))
        if not np.allclose(expected, _as_given(experiment, facts.image_shape[-1]), atol=1e-6):
            lines.append(
                f'images are normalized by mean {_short(experiment.mean)} and deviation {_short(experiment.std)}; the '
                f'weights expect {_short(expected[0])} and {_short(expected[1])} (config.normalize)'
            )
        record = net.provenance.record
        return {
            **record,
            'name': self.config.init.weights,
            'loaded': transplant.loaded,
            'new': transplant.new,
            'left_over': transplant.left_over,
            'adapted': transplant.adapted,
            'followed': self.followed,
            'lines': lines,
        }


def compressed(experiment: Experiment, state: State) -> State:
    """Returns the state at step 0 with its weights and its memory as the first update finds them (config.compress)."""
    compression = experiment.recipe.compression
    if compression is None:
        return state
    params, memory = compression.begun(hosts.to_host(state.params))
    average = {**state.average, 'params': params} if state.average else {}
    new = state.replace(params=params, compression=memory, average=average)
    return hosts.to_devices(new, jax.tree.map(lambda x: x.sharding, experiment.abstract_state()))


def normalization(net: Classifier, channels: int, order: str = 'RGB') -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and the deviation that a net's weights expect, for images of so many channels.

    For grey images, and for a fourth channel, they are the means over the channels.

    Args:
      net: the net.
      channels: of the run's images.
      order: of the run's channels, 'RGB' or 'BGR'.
    """
    preprocessing, reverse = (
        net.preprocessing,
        'BGR' in (net.preprocessing.channels, order) and (net.preprocessing.channels != order),
    )

    def of(values: tuple[float, ...]) -> tuple[float, ...]:
        values = tuple(map(float, values[::-1] if reverse else values))
        average = float(np.mean(values))
        if channels == 1:
            return (average,)
        values = values * 3 if len(values) == 1 else values
        return (*values[:channels], *[average] * (channels - len(values)))

    return of(preprocessing.mean), of(preprocessing.std)


def head_order(net: Classifier, experiment: Experiment) -> np.ndarray:
    """Returns at which outputs of a net the run's classes are.

    Raises:
      UserError: the classes are not the same.
    """
    facts, outputs = experiment.source.facts, experiment.model.num_classes
    if net.num_classes != outputs:
        raise UserError(
            f'config.init.head is keep, but {net.provenance.name} has {net.num_classes} classes and the run has '
            f'{outputs}; expected config.init.head=new, which makes a new head'
        )
    names = net.class_names
    if all(name == f'class {number}' for number, name in enumerate(names)) and not _numbered(facts.class_names):
        return np.arange(outputs)  # the weights name no classes: they are told by their numbers
    try:
        order = identity.mapping(facts.class_names, names, *sources.namings(names))
    except UserError as error:
        raise UserError(
            f'config.init.head is keep, but the classes differ from {net.provenance.name}: {error}; or '
            'config.init.head=new makes a new head'
        ) from error
    return np.concatenate([order, np.arange(len(order), outputs, dtype=np.int32)])


def _numbered(names: tuple[str, ...]) -> bool:
    return all(name.isdecimal() for name in names)


def _is_open(config: ConfigDict, key: str) -> bool:
    """Whether a configuration says nothing of a key; an empty name or list says nothing."""
    node = config
    for part in key.split('.'):
        if not isinstance(node, ConfigDict) or part not in node:
            return True
        node = node[part]
    return node is None or node in ('', (), [])


def _with(config: ConfigDict, values: dict) -> ConfigDict:
    """Returns a copy of a configuration with values by dotted key where it says nothing."""
    config = config.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        for key, value in values.items():
            if not _is_open(config, key):
                continue
            node, (*parents, last) = config, key.split('.')
            for parent in parents:
                if parent not in node:
                    node[parent] = ConfigDict()
                node = node[parent]
            node[last] = value
    return config


def _channels(config: ConfigDict) -> int:
    """Returns the channels of a run's images; only data that are arrays may have others than three."""
    return 3 if config.transform else sources.load(config.data).facts.image_shape[-1]


def _order(config: ConfigDict) -> str:
    return next((knobs.get('channels', 'RGB') for knobs in config.transform.values()), 'RGB')


def _as_given(experiment: Experiment, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = experiment.mean, experiment.std
    return mean if len(mean) == channels else mean * channels, std if len(std) == channels else std * channels


def _short(value) -> str:
    if isinstance(value, tuple | list):
        return f'({", ".join(map(_short, value))})'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
