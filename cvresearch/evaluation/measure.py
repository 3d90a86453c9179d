"""Any classifier on any data, by any protocol: released weights are measured without a training."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.base.paths import local
from cvresearch.base.workdir import write_atomically
from cvresearch.data import identity, sources
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine import classifiers
from cvresearch.engine.trained import TrainedRun
from cvresearch.evaluation import ensemble, predictions, protocols
from cvresearch.evaluation.predictions import KEPT, Placed, Predictions, classes_of
from cvresearch.evaluation.protocols import Protocol
from cvresearch.interop.classifier import Classifier, parse
from cvresearch.objectives.tasks import MULTI

BATCH_SIZE = 64
PUBLISHED = 'as_published'
EVALUATION = 'evaluation.json'  # record in the folder of an evaluation without a run


class View(NamedTuple):
    """How images are shown to the nets.

    Attributes:
      protocol: in `evaluation/protocols.py`; 'as_given': as `predict` shows them to each net; 'as_published': as its
        accuracy was published with, which is another size for many weights of timm.
      resolution: side of the net's input; the net's own if None.
      scales: shorter sides before cropping; the protocol's if ().
      interpolation: of resizing; the protocol's if None.
      average: of views, 'probabilities' or 'logits'; the paper's if None.
    """

    protocol: str = 'as_given'
    resolution: int | None = None
    scales: tuple[int, ...] = ()
    interpolation: str | None = None
    average: str | None = None


def run(
    names: Sequence[str],
    data: str | None = None,
    root: str | Path | None = None,
    view: View = View(),
    out: Path | None = None,
    **how,
) -> dict:
    """Returns the record of an evaluation of a net, or of several as an ensemble of their probabilities.

    Args:
      names: of the nets, see `classifiers.load`.
      data: name of a source; of a run its own if None. All images of a folder without train/ are test images.
      root: of that source.
      view: how images are shown.
      out: folder for the record and the predictions; nothing is kept if None.
      **how: split, batch_size, limit, every; see `measure`.

    Raises:
      UserError: no such net or data; a folder that is there already.
    """
    if out and out.exists():
        raise UserError(f'--out is {out}, which exists; name a new folder')
    source = spec_of(data, root) if data else None
    nets = (classifiers.load(name) for name in names)
    members = [measure(net, source or own_data(net), view=view, **how) for net in nets]
    answers = members[0] if len(members) == 1 else together(members)
    record = metrics(answers)
    if len(members) > 1:
        record['members'] = [metrics(member) for member in members]
    if out:
        answers.save(out / KEPT / f'{data or "own"}_{answers.record["split"]}.npz')
        write_atomically(out / EVALUATION, json.dumps(record, indent=2) + '\n')
    return record


def spec_of(data: str, root: str | Path | None = None) -> dict:
    """Returns the arguments of a source; all images of a folder without train/ are test images."""
    defaults = {'every': 1} if data == 'image_folder' else {}
    return {'name': data, **defaults, **({'root': str(root)} if root else {})}


def listed(file: str, view: View) -> dict[str, tuple[str, View]]:
    """Returns {folder: (name of a net, how it is shown images)} of a file that lists nets.

    Args:
      file: text with a name in each line, where empty lines and lines that begin with # are passed over; or FILE.py,
        whose `sweep()` returns settings such as {'weights': 'run:a', 'protocol': 'resnet_10'}: a net, and fields of
        `View`.
      view: what is not set by the file.

    Raises:
      UserError: no such file, or no names in it; an unknown key; two evaluations with one folder.
    """
    if file.partition(':')[0].endswith('.py'):
        settings = configs.sweep_of(file)
        if not isinstance(settings, list) or not all('weights' in setting for setting in settings):
            raise UserError(f"sweep() of {file} has a setting without 'weights'; expected the name of a net in each")
        for setting in settings:
            check_arguments(f'a setting of {file}', setting, {'weights': ''} | View()._asdict())
        wanted = [(str(setting.pop('weights')), view._replace(**setting), setting) for setting in map(dict, settings)]
    else:
        path = local(file, 'the list of nets')
        if not path.is_file():
            raise UserError(f'there is no {path}; expected a file with the name of a net in each line')
        lines = (line.strip() for line in path.read_text(encoding='utf-8').splitlines())
        wanted = [(line, view, {}) for line in lines if line and not line.startswith('#')]
    folders = {
        '-'.join([folder_of(name), *(_word(value) for value in changes.values())]): (name, shown)
        for name, shown, changes in wanted
    }
    if not wanted or len(folders) < len(wanted):
        raise UserError(f'{file} names no net, or one twice; expected the name of another net in each line')
    return folders


def run_each(
    file: str, data: str | None, root: str | Path | None, view: View, out: Path | None, **how
) -> Iterator[dict | UserError]:
    """Yields the record of each net that a file lists, or why one cannot be evaluated.

    Each has a folder of its own in `out`, named by its net. A net whose folder is there already is not measured again,
    so that a long list can be continued; its record is yielded as it is kept.

    Args:
      file: see `listed`.
      out: folder for the folders, which may be there.
      data, root, view, **how: see `run`.

    Raises:
      UserError: see `listed`.
    """
    for folder, (name, shown) in listed(file, view).items():
        place = out / folder if out else None
        try:
            if place and (place / EVALUATION).exists():
                yield json.loads((place / EVALUATION).read_text(encoding='utf-8'))
            else:
                yield run([name], data, root, shown, place, **how)
        except UserError as error:
            yield UserError(f'{name}: {error}')


def folder_of(name: str) -> str:
    """Returns a net's name as the name of a folder.

    >>> folder_of('file:weights/resnet50.pth#torchvision/resnet50')
    'torchvision-resnet50-resnet50.pth'
    """
    parsed = parse(name)
    parts = (parsed.reference or parsed.kind, parsed.place if parsed.kind == 'hub' else Path(parsed.place).name)
    words = '-'.join([*(part for part in parts if part), *parsed.choices])
    return re.sub(r'[^\w.=]+', '-', words).strip('-')


def _word(value: object) -> str:
    return re.sub(r'[^\w.]+', '-', str(value)).strip('-')


def own_data(net: Classifier) -> dict:
    """Returns the data that a run was trained on, as its configuration names them.

    Raises:
      UserError: a net that is no run.
    """
    if net.provenance.kind != 'run':
        raise UserError(
            f'{net.provenance.name} has no data of its own; expected --data, such as imagenet or '
            'image_folder with --root'
        )
    return dict(TrainedRun.open(parse(net.provenance.name).place, images=False).config.data)


def measure(
    net: Classifier,
    data: dict,
    split: str = 'test',
    view: View = View(),
    batch_size: int | None = None,
    limit: int = 0,
    every: int = 1,
) -> Predictions:
    """Returns what a net says of a split.

    The labels become the net's numbers by the names of the classes (or ImageNet's WordNet ids, or numbers).

    Args:
      net: any.
      data: `name` of a source and its arguments, {'name': 'imagenet', 'root': ...}.
      split: 'test', 'train' or 'minival'.
      view: how images are shown.
      batch_size: images at once; made a multiple of the number of devices. The results do not depend on it.
      limit: at most so many images; every: one in so many; see `sources.part_of`.

    Raises:
      UserError: an unknown source, split or protocol; data with a class that the net does not know.
    """
    return of_variables(net, [net.variables], data, split, view, batch_size, limit, every)[0]


def of_variables(
    net: Classifier,
    variables: Sequence[dict],
    data: dict,
    split: str = 'test',
    view: View = View(),
    batch_size: int | None = None,
    limit: int = 0,
    every: int = 1,
) -> list[Predictions]:
    """Returns what a net says of a split with each of several variables in place of its own; see `measure`."""
    if view.protocol == PUBLISHED and isinstance(net.preprocessing, Preprocessing):
        net = dataclasses.replace(net, preprocessing=net.preprocessing.as_published())
    try:
        source = sources.load(data, class_names=net.class_names, preparation=net.preprocessing)
    except identity.UnknownClassError as error:
        raise UserError(f'{data["name"]} cannot be evaluated with {net.provenance.name}: {error}') from error
    if source.facts.multi_label != net.multi_label:
        raise UserError(
            f'{data["name"]} cannot be evaluated with {net.provenance.name}: one has one label an image, and the other '
            'any number of them'
        )
    source = sources.part_of(source, split, limit, every)
    examples = lookup('split', source.splits, split)
    protocol, mesh = protocol_of(net, view), meshes.make_mesh()
    record = {
        'net': net.provenance.name,
        'kind': net.provenance.kind,
        'model': net.provenance.variant,
        'digest': net.provenance.digest,
        'reference': net.provenance.reference,
        **net.provenance.facts,
        'data': source.facts.name,
        'split': split,
        **({'subset': source.subset} if source.subset else {}),
        **({'task': MULTI.name} if net.multi_label else {}),
        **protocol.record,
        'images_sha256': identity.images_sha256(examples),
    }
    members = ensemble.members_of(
        Placed(net.module, net.preprocessing.mean, net.preprocessing.std, mesh),
        variables,
        examples,
        protocol,
        meshes.fitting(batch_size or BATCH_SIZE, mesh),
        [record] * len(variables),
        False,
    )
    return [
        classes_of(source.facts, Predictions(member.logits, member.labels, record, net.class_names))
        for member in members
    ]


def protocol_of(net: Classifier, view: View) -> Protocol:
    """Returns the protocol by which a net is shown images.

    Raises:
      UserError: an unknown protocol; knobs of a protocol without one.
    """
    knobs = {key: value for key, value in view._asdict().items() if key not in ('protocol', 'resolution') and value}
    prepared, side = net.preprocessing, net.input_shape[0]
    if view.protocol not in ('as_given', PUBLISHED):
        return protocols.make(view.protocol, view.resolution or side, channels=prepared.channels, **knobs)
    if view.resolution or knobs:
        raise UserError('resolution, scales, interpolation and average belong to a --protocol; give one')
    scales = (prepared.resize,) if prepared.resize else ()
    return Protocol(
        view.protocol, side, scales=scales, interpolation=prepared.interpolation, channels=prepared.channels
    )


def together(members: Sequence[Predictions]) -> Predictions:
    """Returns the ensemble of several nets' answers: the mean of their probabilities.

    Raises:
      UserError: members of other images or classes.
    """
    first = members[0].record
    shared = {key: first[key] for key in ('data', 'split', 'protocol', 'images_sha256') if key in first}
    return ensemble.average(
        members,
        **shared,
        crops=sum(member.record['crops'] for member in members),
        weights='nets',
        net=[member.record['net'] for member in members],
        digest=[member.record['digest'] for member in members],
    )


def metrics(answers: Predictions) -> dict:
    """Returns the record of an evaluation with its metrics: top-1 and top-5 in percent, `n_seen`, ..."""
    return {key: value for key, value in answers.record.items() if value is not None} | predictions.summary(answers)
