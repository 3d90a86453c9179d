"""Finds one net among named tensors: under a prefix that a program put before its names ('model.', 'backbone.')."""

from collections import Counter
from collections.abc import Callable, Mapping, Set

from cvresearch.base.errors import UserError
from cvresearch.interop.state_dicts import AVERAGED

DEEPEST = 6  # parts of a prefix


def net_in(tensors: dict, wanted: Set[str], named: Callable[[dict], Mapping], note: Callable[[str], None]) -> dict:
    """Returns the tensors of a net by its own names; what lies elsewhere (a loss, a metric) is left, and said.

    Of two prefixes under which the whole net lies, one that speaks of averages counts. Names without a prefix are
    all kept: what the net does not have is for the caller to refuse.

    Args:
      tensors: by their names in a file.
      wanted: the net's names.
      named: maps tensors to the names that the library's code gives today.
      note: takes each line that a person should know.

    Raises:
      UserError: the net lies there several times.
    """
    prefix = _prefix(tensors, wanted, named)
    if not prefix:
        return dict(tensors)
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    outside = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    for name in wanted - named(inside).keys():  # a head that lies apart: backbone.conv1.weight, head.fc.weight
        same = [other for other in outside if other.endswith(f'.{name}')]
        if len(same) == 1:
            inside[name] = outside.pop(same[0])
    if outside:
        what = 'averaged weights' if _is_average(prefix) else 'the net'
        first = ', '.join(sorted(outside)[:3]) + (', ...' if len(outside) > 3 else '')
        note(f'{what} under {prefix!r} are taken and {len(outside)} other tensors are not ({first})')
    return inside


def _prefix(tensors: dict, wanted: Set[str], named: Callable[[dict], Mapping]) -> str:
    sizes: Counter[str] = Counter()
    for name in tensors:
        parts = name.split('.')[:-1][:DEEPEST]
        sizes.update('.'.join([*parts[:depth], '']) for depth in range(1, len(parts) + 1))
    # A prefix of less than half of the names cannot be the net, and to try one takes a pass over all tensors.
    enough = [prefix for prefix, size in sizes.items() if 2 * size >= len(wanted)]
    hits = {'': len(wanted & named(tensors).keys())}
    for prefix in enough:
        inside = {name.removeprefix(prefix): None for name in tensors if name.startswith(prefix)}
        hits[prefix] = len(wanted & named(inside).keys())
    most = max(hits.values())
    best = [prefix for prefix, count in hits.items() if count == most > 0]
    averages = [prefix for prefix in best if _is_average(prefix)]
    if len(averages) == 1:
        return averages[0]
    if len(best) > 1 and '' not in best:
        raise UserError(f'the net lies there several times, under {" and ".join(map(repr, best))}; save one alone')
    return '' if '' in best or not best else best[0]


def _is_average(prefix: str) -> bool:
    return any(map(AVERAGED.fullmatch, prefix.split('.')))
