"""What makes a net small while it trains: config.compress. Each kind adds pure functions to the update.

What it must know beside the parameters (masks, codes) is its memory, `State.compression`, so that a run goes on bit for
bit. A net that trains so has its blocks one by one (nn/stacked.py), and every layer its own name.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from ml_collections import ConfigDict

from cvresearch.base import trees
from cvresearch.base.errors import UserError, construct, lookup
from cvresearch.nn import dropout, fake_quantised
from cvresearch.optim import factorise, pruning, sharing
from cvresearch.optim.compression import Compression
from cvresearch.optim.kernels import require_share
from cvresearch.optim.updates import OptimizerOptions

SCOPES = ('layer', 'global')
# Their steps of equal weights with equal gradients differ, as they depend on where in the matrix the weights are.
NO_SHARING = ('muon', 'muon_published')


@dataclasses.dataclass(frozen=True)
class Prune(Compression):
    """The weights of least magnitude go, and stay away while the others train on (Han et al. 2015, arXiv:1506.02626).

    Zeros of a net that the run starts from (`config.init.weights`) stay zero too, but in a kernel that is all zeros. A
    net is pruned first and trained to its accuracy before, or from `begin_epochs` on within one run.

    Attributes:
      share: of the weights that go in the end, 0 to 1; with 0 the zeros that are there stay.
      quality: in place of a share: weights go that are below so many deviations of their layer (section 3.4).
      layers: patterns of the kernels that are pruned, or pairs (pattern, its own share or quality); the first that
        matches counts. All kernels if empty.
      scope: layer, each layer loses its share; global, the least of all layers go.
      schedule: one_shot, all at once; iterative, each time the same share of what is left; cubic, fast at first and
        slower at the end (Zhu & Gupta 2017, arXiv:1710.01878, equation 1).
      begin_epochs: when it first prunes; cubic drops nothing then.
      end_epochs: when it last prunes, with iterative and cubic.
      rounds: how many times it prunes, with iterative and cubic.
      adjust_dropout: the rate of dropout after a layer shrinks with the root of the share that is left (equation 2).
    """

    share: float = 0.0
    quality: float = 0.0
    scope: str = 'layer'
    schedule: str = 'one_shot'
    begin_epochs: float = 0.0
    end_epochs: float = 0.0
    rounds: int = 5
    adjust_dropout: bool = True
    steps_per_epoch: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        lookup('compress.scope', dict.fromkeys(SCOPES), self.scope)
        if self.share and self.quality:
            raise UserError('config.compress has a share and a quality; expected one of them to say what is pruned')
        if self.scope == 'global' and (self.quality or any(not isinstance(one, str) for one in self.layers)):
            raise UserError('config.compress.scope is global, with one share of all layers; expected no other numbers')
        if self.quality and self.schedule == 'cubic':
            raise UserError('config.compress.schedule is cubic, which is of a share; expected iterative or one_shot')
        if self.rounds < 1 or self.begin_epochs < 0:
            raise UserError(
                f'config.compress has begin_epochs {self.begin_epochs} and {self.rounds} rounds; expected '
                'at least 0 and 1'
            )
        self._made_rounds()

    @property
    def value(self) -> float:
        return self.quality or self.share

    def check_value(self, value: float) -> None:
        if not self.quality:
            require_share('config.compress.share', value)
        elif not value >= 0:
            raise UserError(f'config.compress.quality is {value}; expected at least 0')

    def _made_rounds(self) -> pruning.Rounds:
        begin, end = (round(epochs * self.steps_per_epoch) for epochs in (self.begin_epochs, self.end_epochs))
        return lookup('compress.schedule', pruning.SCHEDULES, self.schedule)(begin, end, self.rounds)

    def check(self, params, steps: int) -> None:
        super().check(params, steps)
        if (last := self._made_rounds().steps[-1]) >= steps:
            raise UserError(
                f'config.compress prunes last at step {last:,}, and the run has {steps:,} steps '
                f'({steps / self.steps_per_epoch:g} epochs); expected an earlier epoch'
            )

    def blank(self, params) -> dict:
        leaves = dict(trees.named_leaves(params))
        return {'masks': trees.nested({path: jnp.ones(leaves[path].shape, bool) for path in self.values(params)})}

    def begun(self, params) -> tuple[dict, dict]:
        leaves = dict(trees.named_leaves(params))
        # A kernel that is all zeros was not pruned: the last one of a residual block may begin so.
        held = {path: (leaves[path] != 0) | ~np.any(leaves[path]) for path in self.values(params)}
        return params, {'masks': trees.nested(held)}

    def due(self, step: jax.Array, params, memory: dict) -> tuple[dict, dict]:
        rounds = self._made_rounds()

        def pruned():
            masks = self._masks(params, dict(trees.named_leaves(memory['masks'])), rounds.made(step))
            return self.settled(new := {'masks': trees.nested(masks)}, params), new

        # Within the compiled update: one program serves all steps, whichever of them prune.
        is_due = (jnp.array(rounds.steps) == step).any()
        return lax.cond(is_due, pruned, lambda: (params, memory))

    def _masks(self, params, masks: dict[str, jax.Array], rounds_done: jax.Array) -> dict[str, jax.Array]:
        """Returns the masks after so many rounds, by path."""
        leaves, values, rounds = dict(trees.named_leaves(params)), self.values(params), self._made_rounds()
        if self.quality:
            return {path: pruning.above_deviation(leaves[path], masks[path], values[path]) for path in masks}
        if self.scope == 'global':
            numbers = rounds.numbers(self.share, sum(mask.size for mask in masks.values()))
            pruned = pruning.without_smallest_of_all(
                [leaves[path] for path in masks], list(masks.values()), jnp.array(numbers)[rounds_done]
            )
            return dict(zip(masks, pruned, strict=True))
        return {
            path: pruning.without_smallest(
                leaves[path], mask, jnp.array(rounds.numbers(values[path], mask.size))[rounds_done]
            )
            for path, mask in masks.items()
        }

    def computing(self, memory: dict) -> contextlib.AbstractContextManager:
        if not self.adjust_dropout:
            return contextlib.nullcontext()
        masks = trees.named_leaves(memory['masks'])
        return dropout.scaled({path.rpartition('/')[0]: jnp.sqrt(jnp.mean(mask)) for path, mask in masks})

    def tied(self, memory: dict, gradients):
        return self.settled(memory, gradients)

    def settled(self, memory: dict, params):
        return _over(memory['masks'], params, lambda leaf, mask: jnp.where(mask, leaf, 0))


@dataclasses.dataclass(frozen=True)
class Share(Compression):
    """The weights of a layer take few values, which train on (Han, Mao & Dally 2016, arXiv:1510.00149, section 3).

    The values are found at step 0 by k-means; zeros stay zero. From then on the members of a cluster move together, by
    the sum of their gradients (equation 3). It begins from a net that is trained, `config.init.weights`.

    Attributes:
      bits: of a code: a layer has at most 2^bits values, zero among them.
      layers: patterns of the kernels, or pairs (pattern, its own bits); the first that matches counts. All kernels if
        empty.
      kmeans: lloyd, from centroids spread evenly over the range; or optimal.
      uneven: whether the run's optimizer moves equal weights with equal gradients differently.
    """

    bits: int = 5
    kmeans: str = 'lloyd'
    uneven: bool = False

    def __post_init__(self):
        super().__post_init__()
        lookup('compress.kmeans', sharing.METHODS, self.kmeans)
        if self.uneven:
            raise UserError(
                'config.compress.name is share, and the optimizer moves equal weights differently (muon, '
                'agc); expected another, such as sgd or adam'
            )

    @property
    def value(self) -> float:
        return self.bits

    def check_value(self, value: float) -> None:
        if type(value) is not int or not 1 <= value <= sharing.MOST_BITS:
            raise UserError(f'config.compress.bits is {value}; expected a whole number from 1 to {sharing.MOST_BITS}')

    def blank(self, params) -> dict:
        leaves, bits = dict(trees.named_leaves(params)), self._bits(params)
        codes = {path: jnp.zeros(leaves[path].shape, jnp.int16) for path in bits}
        members = {path: jnp.zeros(2 ** bits[path], jnp.int32) for path in bits}
        return {'codes': trees.nested(codes), 'members': trees.nested(members)}

    def begun(self, params) -> tuple[dict, dict]:
        changed, codes, members = {}, {}, {}
        for path, bits in self._bits(params).items():
            kernel = np.asarray(dict(trees.named_leaves(params))[path])
            shared = sharing.share(kernel, bits, self.kmeans)
            changed[path], codes[path] = shared.weights(), shared.codes.astype(np.int16)
            used, first = np.unique(codes[path], return_index=True)
            # The first member of each cluster stands for its value: `settled` reads it there.
            members[path] = np.zeros(2**bits, np.int32)
            members[path][used[used >= 0]] = first[used >= 0]
        new = _over(trees.nested(changed), params, lambda leaf, kernel: kernel)
        return new, {'codes': trees.nested(codes), 'members': trees.nested(members)}

    def _bits(self, params) -> dict[str, int]:
        return {path: int(bits) for path, bits in self.values(params).items()}

    def tied(self, memory: dict, gradients):
        bits = self._bits(gradients)

        def of_layer(path, codes):
            # One entry more than there are values, which is zero: for the weights that stay zero.
            entries = sharing.codebook_gradient(dict(trees.named_leaves(gradients))[path], codes, 2 ** bits[path])
            return jnp.append(entries, 0)[jnp.where(codes < 0, 2 ** bits[path], codes)]

        tied = {path: of_layer(path, codes) for path, codes in trees.named_leaves(memory['codes'])}
        return _over(trees.nested(tied), gradients, lambda leaf, entries: entries)

    def settled(self, memory: dict, params):
        # A value is its first member's, to the last bit, whatever order a device adds in.
        leaves, members = (dict(trees.named_leaves(tree)) for tree in (params, memory['members']))

        def of_layer(path, codes):
            codebook = leaves[path].reshape(-1)[members[path]]
            return jnp.where(codes < 0, 0, codebook[jnp.maximum(codes, 0)])

        shared = {path: of_layer(path, codes) for path, codes in trees.named_leaves(memory['codes'])}
        return _over(trees.nested(shared), params, lambda leaf, kernel: kernel)


@dataclasses.dataclass(frozen=True)
class Factors(Compression):
    """A layer stays the product of two smaller ones, found at step 0 by the truncated SVD (Denton et al. 2014).

    The first, of all inputs, trains; the second, a basis of the outputs, stays. It begins from a net that is trained,
    `config.init.weights`. `cvresearch compress --svd size=...` with the same share then writes the factors and loses
    nothing more. Depthwise kernels, and layers that factors make no smaller, stay whole; other convolutions in groups
    are to be left out by `layers`.

    Attributes:
      size: share of a kernel's weights that its factors have at most, 0 to 1.
      layers: patterns of the kernels, or pairs (pattern, its own share); the first that matches counts. All kernels if
        empty.
    """

    size: float = 0.2

    @property
    def value(self) -> float:
        return self.size

    def check_value(self, value: float) -> None:
        require_share('config.compress.size', value)

    def check(self, params, steps: int) -> None:
        super().check(params, steps)
        if not self._ranks(params):
            raise UserError(f'config.compress: factors of a share {self.size} make no layer smaller; expected less')

    def _ranks(self, params) -> dict[str, int]:
        leaves, ranks = dict(trees.named_leaves(params)), {}
        for path, share in self.values(params).items():
            *inputs, features = leaves[path].shape
            rank = factorise.rank_by_size(leaves[path], share)
            depthwise = len(inputs) == 3 and inputs[2] == 1
            if not depthwise and factorise.is_smaller(math.prod(inputs), features, rank):
                ranks[path] = rank
        return ranks

    def blank(self, params) -> dict:
        leaves = dict(trees.named_leaves(params))
        bases = {path: jnp.zeros((rank, leaves[path].shape[-1])) for path, rank in self._ranks(params).items()}
        return {'bases': trees.nested(bases)}

    def begun(self, params) -> tuple[dict, dict]:
        leaves = dict(trees.named_leaves(params))
        bases = {path: factorise.basis(np.asarray(leaves[path]), rank) for path, rank in self._ranks(params).items()}
        memory = {'bases': trees.nested(bases)}
        return self.settled(memory, params), memory

    def tied(self, memory: dict, gradients):
        return self.settled(memory, gradients)

    def settled(self, memory: dict, params):
        return _over(memory['bases'], params, factorise.within)


@dataclasses.dataclass(frozen=True)
class Int8(Compression):
    """The net trains as int8 will compute it: nn/fake_quantised.py. `cvresearch compress --int8` then stores it.

    Attributes:
      layers: patterns of the kernels that are rounded; all if empty.
      per_channel: a scale for each feature of a kernel; one for all otherwise.
      activations: the inputs of all convolutions and dense layers are rounded too, to levels of the batch's range.
    """

    per_channel: bool = True
    activations: bool = True

    def used(self, params):
        rounded = {
            path: fake_quantised.kernel(dict(trees.named_leaves(params))[path], self.per_channel)
            for path in self.values(params)
        }
        return _over(trees.nested(rounded), params, lambda leaf, kernel: kernel)

    def computing(self, memory: dict) -> contextlib.AbstractContextManager:
        return fake_quantised.of_inputs() if self.activations else contextlib.nullcontext()


def _none() -> None:
    return None


COMPRESSIONS = {'none': _none, 'prune': Prune, 'share': Share, 'factors': Factors, 'int8': Int8}
SUPPLIED = ('steps_per_epoch', 'never_learns', 'uneven')


def make(config: ConfigDict, steps_per_epoch: float, options: OptimizerOptions) -> Compression | None:
    """Returns what a config's `compress` names, None for nothing.

    Args:
      config: of the run.
      steps_per_epoch: for what is given in epochs.
      options: what stands around the optimizer; what is frozen for good is left alone.

    Raises:
      UserError: an unknown name or argument, or one out of range.
    """
    uneven = config.optimizer.get('name') in NO_SHARING or bool(options.agc)
    supplied = dict(steps_per_epoch=steps_per_epoch, never_learns=options.never_learns, uneven=uneven)
    return construct('compress', COMPRESSIONS, config.get('compress', {'name': 'none'}), **supplied)


def _over(part: Mapping, tree: Mapping, rule: Callable) -> dict:
    """Returns a tree with rule(leaf, leaf of `part`) in place of the leaves that `part` has."""
    return {
        name: (_over(part[name], node, rule) if isinstance(node, Mapping) else rule(node, part[name]))
        if name in part
        else node
        for name, node in tree.items()
    }
