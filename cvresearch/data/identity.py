"""What a run knows of its data: names of classes, examples of each class, and a digest of every split.

The record is made at the start of a run and compared by whatever uses the run later. Two names are the same where
they are equal in Unicode's normal form NFC, since file systems and archives change between its forms. Upper and lower
case are different names.
"""

import dataclasses
import difflib
import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data.examples import (
    Decoded,
    Encoded,
    Example,
    Facts,
    Index,
    Source,
    Stamped,
    Subset,
    Unlabelled,
    WithIds,
    WithLabels,
    ids,
    labels_of,
    pixels,
)

CHUNK = 1 << 12  # examples hashed at once
MOST_NAMED = 5  # classes that a message names


class UnknownClassError(UserError):
    """Data have classes that a net does not know."""


@dataclasses.dataclass(frozen=True)
class Relabelled:
    """Other examples under other labels: label c becomes `numbers[c]`; -1, which is no label, stays."""

    base: Encoded
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Example:
        example = self.base[index]
        return example._replace(label=_renumbered(np.asarray(example.label), self.numbers)[()])

    @property
    def labels(self) -> np.ndarray | None:
        """The new labels; the base's other attributes (such as `stamp`) are not taken over."""
        labels = labels_of(self.base)
        return None if labels is None else _renumbered(labels, self.numbers)

    def ids(self, index: Index) -> list[str]:
        """Returns the ids of the examples at `index`."""
        return ids(self.base, index)

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images at `index` and their new labels."""
        images, labels = pixels(self.base).take(index, keys)
        return images, _renumbered(labels, self.numbers)


def mapping(names: Sequence[str], net_names: Sequence[str], *others: Sequence[str]) -> np.ndarray:
    """Returns the net's number of each class of some data, int32 (len(names),).

    Args:
      names: of the data's classes, in the order of its labels.
      net_names: of the net's classes, in the order of its outputs.
      *others: further namings of the net's classes in the same order (such as WordNet ids). The first naming that
        has all the names is used.

    Raises:
      UnknownClassError: a class that the net does not have.
      UserError: a name that two of the net's classes have; two classes of the data that are one.
    """
    _check_distinct(names)
    wanted = list(map(_normal, names))
    for naming in (net_names, *others):
        numbered = list(map(_normal, naming))
        if wanted == numbered:
            return np.arange(len(wanted), dtype=np.int32)
        number = {name: place for place, name in enumerate(numbered)}
        if all(name in number for name in wanted):
            if twice := [name for name in wanted if numbered.count(name) > 1]:
                raise UserError(f"two of the net's classes are called {twice[0]!r}; nothing can be mapped by name")
            return np.array([number[name] for name in wanted], np.int32)
    known = set(map(_normal, net_names))
    unknown = [name for name in names if _normal(name) not in known]
    raise UnknownClassError(
        f'the data have {_classes(unknown, net_names)} that the net does not know; expected names among its '
        f'{len(net_names)} classes: {_few(net_names)}. Give the classes the names that the net was trained with'
    )


def permutation(names: Sequence[str], other_names: Sequence[str], outputs: int) -> np.ndarray:
    """Returns at which places another net has the outputs of a net with the same classes, int32 (outputs,).

    Args:
      names: of the one net's classes, in the order of its outputs.
      other_names: of the other's.
      outputs: of either net; those above the number of names stay where they are.

    Raises:
      UserError: the names are not the same set.
    """
    if set(map(_normal, names)) != set(map(_normal, other_names)) or len(names) != len(other_names):
        raise UserError(f'expected the same classes: {changed_classes(names, other_names)}')
    return np.concatenate([mapping(names, other_names), np.arange(len(names), outputs, dtype=np.int32)])


def mapped(source: Source, net_names: Sequence[str], *others: Sequence[str]) -> Source:
    """Returns the source with labels that are the net's numbers; its facts have the net's class names.

    Arguments and errors are as in `mapping`.
    """
    numbers = mapping(source.facts.class_names, net_names, *others)
    occurring = source.facts.classes
    occurring = None if occurring is None else tuple(sorted(int(numbers[label]) for label in occurring))
    facts = dataclasses.replace(source.facts, class_names=tuple(net_names), classes=occurring)
    if np.array_equal(numbers, np.arange(len(numbers))):
        return dataclasses.replace(source, facts=facts)
    splits = {name: Relabelled(examples, numbers) for name, examples in source.splits.items()}
    return dataclasses.replace(source, facts=facts, splits=splits)


def of(source: Source) -> dict:
    """Returns the record of a source, which JSON can hold.

    Returns:
      name, class_names, image_shape, mean, std, encoded, and what `of_split` says for each of `splits` and for the
      `unlabelled` images, if there are any.

    Raises:
      UserError: two classes whose names differ in nothing but Unicode's normal form.
    """
    facts = source.facts
    _check_distinct(facts.class_names)
    return {
        'name': facts.name,
        'class_names': list(facts.class_names),
        'image_shape': list(facts.image_shape),
        'mean': list(map(float, facts.mean)),
        'std': list(map(float, facts.std)),
        'encoded': source.encoded,
        'splits': {name: of_split(examples, facts.num_classes) for name, examples in source.splits.items()},
        **({'multi_label': True} if facts.multi_label else {}),
        **({} if source.unlabelled is None else {'unlabelled': of_split(source.unlabelled, facts.num_classes)}),
    }


def without_images(record: dict) -> Source:
    """Returns the source that `of` has recorded: its facts, and splits that have lengths and no images."""
    facts = Facts(
        record['name'],
        tuple(record['class_names']),
        tuple(record['image_shape']),
        tuple(record['mean']),
        tuple(record['std']),
        multi_label=record.get('multi_label', False),
    )
    splits = {name: range(split['examples']) for name, split in record['splits'].items()}
    return Source(facts, splits, record['encoded'])


def of_split(examples: Encoded, classes: int) -> dict:
    """Returns the record of a split; no image file is read.

    Returns:
      examples: how many; per_class: how many of each class (an image with several labels counts for each), None
      where labels are not known without reading the images; sha256: of the lines 'label<TAB>id' in the order of
      label and id, or of arrays' pixels and labels in the order of the split.
    """
    examples = _undecoded(examples)
    labels = labels_of(examples)
    per_class = None
    if labels is not None and np.issubdtype(labels.dtype, np.integer):
        per_class = np.bincount(labels[labels >= 0], minlength=classes).tolist()
    return {'examples': len(examples), 'per_class': per_class, 'sha256': _digest(examples, labels)}


def images_sha256(examples: Encoded) -> str:
    """Returns the digest of a split's images in their order, whatever their labels: of ids, or of arrays' pixels."""
    digest = hashlib.sha256()
    for chunk in _content(examples):
        digest.update(chunk)
    return digest.hexdigest()


def differences(recorded: dict, now: dict) -> list[str]:
    """Returns in words how two records differ: in their classes, else in their splits; [] where they do not."""
    if changed := changed_classes(recorded['class_names'], now['class_names']):
        return [changed]
    names, sentences = recorded['class_names'], []
    before, after = ({**record['splits'], 'unlabelled': record.get('unlabelled')} for record in (recorded, now))
    for split in dict.fromkeys([*before, *after]):
        was, is_now = before.get(split), after.get(split)
        if was == is_now:
            continue
        if was is None or is_now is None:
            sentences.append(f'{split} is {"new" if was is None else "gone"}')
        elif changed := changed_split(split, was, is_now, names):
            sentences.append(changed)
    return sentences


def changed_classes(names: Sequence[str], names_now: Sequence[str]) -> str:
    """Returns in words how two lists of classes differ, '' where they do not."""
    was, is_now = list(map(_normal, names)), list(map(_normal, names_now))
    if was == is_now:
        return ''
    gone = [name for name in names if _normal(name) not in set(is_now)]
    new = [name for name in names_now if _normal(name) not in set(was)]
    parts = [f'without {_classes(gone, ())}'] * bool(gone) + [f'with the new {_classes(new, gone)}'] * bool(new)
    if not parts:
        place = next((i for i, pair in enumerate(zip(was, is_now, strict=False)) if len(set(pair)) > 1), len(was))
        other = names_now[place] if place < len(names_now) else 'none'
        parts = [f'in another order (class {place} was {names[place]!r} and is {other!r})']
    return f'{len(names)} classes ({_few(names)}), now {len(names_now)} ({_few(names_now)}): {", ".join(parts)}'


def changed_split(split: str, was: dict, is_now: dict, names: Sequence[str]) -> str:
    """Returns in words how two records of a split differ, '' where they do not."""
    if was == is_now:
        return ''
    digests = f'sha256 {was["sha256"][:12]}, now {is_now["sha256"][:12]}'
    counts = zip(names, was['per_class'] or (), is_now['per_class'] or (), strict=False)
    classes = [f'{name!r} {before} -> {after}' for name, before, after in counts if before != after]
    of_classes = f'; {_listed(classes)}' if classes else ''
    if was['examples'] == is_now['examples']:
        return f'{split} has as many images as before ({was["examples"]:,}) but other ones{of_classes}; {digests}'
    return f'{split} had {was["examples"]:,} images, now {is_now["examples"]:,}{of_classes}; {digests}'


def same_names(names: Sequence[str], other_names: Sequence[str]) -> bool:
    """Whether two lists name the same classes in the same order."""
    return list(map(_normal, names)) == list(map(_normal, other_names))


def named(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns the names of labels in one normal form, of the labels' shape; '' for -1."""
    return np.array([*map(_normal, names), ''])[labels]


def shown(names: Sequence[str], classes: int) -> list[str]:
    """Returns what to call each of a net's outputs in tables and pictures; no two are the same.

    A class without a name is called by its number, a name that occurs twice has its number behind it, and what cannot
    be printed (line breaks, bytes that are not UTF-8) is escaped.
    """
    named_so = [repr(name)[1:-1] if not name.isprintable() else name for name in names[:classes]]
    named_so += map(str, range(len(named_so), classes))
    twice = len(set(named_so)) < len(named_so)
    return [f'{name} ({c})' if twice and named_so.count(name) > 1 else name for c, name in enumerate(named_so)]


def _digest(examples: Encoded, labels: np.ndarray | None) -> str:
    """Returns the digest of `of_split`."""
    digest = hashlib.sha256()
    if labels is not None and isinstance(_base(examples)[0], WithIds):
        for line in _sorted_lines(examples, labels):
            digest.update(line)
        return digest.hexdigest()
    for chunk in _content(examples):
        digest.update(chunk)
    if labels is not None:
        digest.update(np.ascontiguousarray(labels.astype('<i8')).tobytes())
    return digest.hexdigest()


def _sorted_lines(examples: Encoded, labels: np.ndarray) -> Iterator[bytes]:
    """Yields the lines 'label<TAB>id', sorted by label and id, one (first) label at a time."""
    first = labels if labels.ndim == 1 else labels[:, 0]
    order = np.argsort(first, kind='stable')
    starts = np.flatnonzero(np.diff(first[order])) + 1
    for part in np.split(order, starts) if len(order) else ():
        if labels.ndim == 1:
            label = int(first[part[0]])
            lines = [f'{label}\t{name}\n' for name in sorted(ids(examples, part))]
        else:
            rows = zip(ids(examples, part), labels[part].tolist(), strict=True)
            lines = sorted(f'{",".join(str(label) for label in row if label >= 0)}\t{name}\n' for name, row in rows)
        yield ''.join(lines).encode(errors='surrogateescape')


def _content(examples: Encoded) -> Iterator[bytes]:
    """Yields what tells a split's images apart, in their order: a stamp and places, ids, or pixels."""
    base, index = _base(examples)
    stamp = base.stamp if isinstance(base, Stamped) else ''
    yield f'{stamp}\n'.encode()
    for start in range(0, len(index), CHUNK):
        part = index[start : start + CHUNK]
        if isinstance(base, WithIds) and not stamp:
            yield ''.join(f'{_normal(name)}\n' for name in base.ids(part)).encode(errors='surrogateescape')
        elif isinstance(base, WithLabels) and not stamp:
            yield np.ascontiguousarray(pixels(cast(Encoded, base)).take(part)[0]).tobytes()
        else:
            yield part.astype('<i8').tobytes()


def _base(examples: Encoded) -> tuple[Encoded, np.ndarray]:
    """Returns the examples below subsets, decoding and other labels, and where in them each example is."""
    index = np.arange(len(examples))
    while True:
        examples = _undecoded(examples)
        if isinstance(examples, Subset):
            index = examples.index[index]
        elif not isinstance(examples, Relabelled | Unlabelled):
            return examples, index
        examples = examples.base


def _undecoded(examples: Encoded) -> Encoded:
    return examples.encoded if isinstance(examples, Decoded) else examples


def _renumbered(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    renumbered = np.append(numbers, -1).astype(np.int32)[labels]
    if renumbered.ndim < 2:
        return renumbered
    most = np.iinfo(np.int32).max  # of several labels the order has no meaning: ascending, the filling last
    ordered = np.sort(np.where(renumbered < 0, most, renumbered), axis=-1)
    return np.where(ordered == most, -1, ordered)


def _normal(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize('NFC', name)


def _check_distinct(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(_normal(name), name)) != name:
            raise UserError(
                f"the classes {other!a} and {name!a} have one name in two of Unicode's normal forms; "
                'expected one folder for a class. Move the images into one of them'
            )


def _classes(names: Sequence[str], choices: Sequence[str]) -> str:
    """Returns "the class 'Cat' (did you mean 'cat'?)" or the like, the nearest of the choices beside each name."""
    folded = {choice.casefold(): choice for choice in choices}
    parts = []
    for name in names[:MOST_NAMED]:
        near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
        parts.append(f'{name!r} (did you mean {folded[near[0]]!r}?)' if near else repr(name))
    more = len(names) - len(parts)
    return f'class{"es" * (len(names) > 1)} {", ".join(parts)}{f" and {more:,} more" if more else ""}'


def _few(names: Sequence[str]) -> str:
    return _listed(list(map(repr, names)))


def _listed(parts: Sequence[str]) -> str:
    more = len(parts) - MOST_NAMED
    return ', '.join(parts[:MOST_NAMED]) + (f' and {more:,} more' if more > 0 else '')
