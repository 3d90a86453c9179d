"""Which layers bear pruning: one layer at a time is pruned, the others whole, and the net measured.

    cvresearch compress sensitivity --weights NAME --data SOURCE [--root DIR] [--limit 1000] --out FILE.json
    cvresearch report plots sensitivity --curve FILE.json --out FILE.svg

Han et al. 2015, "Learning both weights and connections for efficient neural networks", arXiv:1506.02626, figure 6.
Nothing is trained. FILE.json has the top-1 of every layer at every share, and of the whole net.
"""

import json
from collections.abc import Iterable

import jax

from cvresearch.base import cli, tables
from cvresearch.base.errors import UserError
from cvresearch.base.workdir import write_atomically
from cvresearch.compress import prune
from cvresearch.engine import classifiers
from cvresearch.evaluation import measure
from cvresearch.interop.classifier import Classifier
from cvresearch.optim.kernels import chosen, kernels

SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


def scan(
    net: Classifier, data: dict, shares: Iterable[float] = SHARES, layers: Iterable[str] | None = None, limit: int = 0
) -> dict:
    """Returns the record of a scan: `layers`, `shares`, `top1` (layers, shares) and that of the whole net, in percent.

    Args:
      net: any.
      data: `name` of a source and its arguments.
      shares: of a layer's weights, to drop.
      layers: to scan; all if None.
      limit: at most so many images of its test split.

    Raises:
      UserError: a share outside 0 to 1, a layer that does not exist, images with any number of labels.
    """
    variables = jax.device_get(net.variables)
    weights, shares = kernels(variables['params']), sorted(shares)
    names = chosen(weights, layers)
    pruned = [
        {**variables, 'params': prune.masked(variables['params'], prune.by_layer(weights, {name: share}))}
        for name in names
        for share in shares
    ]
    if net.multi_label:
        raise UserError('the images have any number of labels, and this scan tells top-1; expected one label an image')
    unpruned, *records = map(measure.metrics, measure.of_variables(net, [variables, *pruned], data, limit=limit))
    top1 = [record['top1'] for record in records]
    rows = [top1[at * len(shares) : (at + 1) * len(shares)] for at in range(len(names))]
    return {
        'net': net.provenance.record,
        'data': unpruned['data'],
        'n_seen': unpruned['n_seen'],
        'whole': unpruned['top1'],
        'shares': shares,
        'layers': names,
        'weights': [weights[name].size for name in names],
        'top1': rows,
    }


def table(record: dict) -> str:
    """Returns the table of a scan: a row for each layer, a column for each share that was dropped."""
    columns = [f'{share:g} dropped' for share in record['shares']]
    rows = [
        {'layer': layer, 'weights': weights, **dict(zip(columns, (f'{value:.1f}' for value in values), strict=True))}
        for layer, weights, values in zip(record['layers'], record['weights'], record['top1'], strict=True)
    ]
    return tables.render(rows, ('layer', 'weights', *columns))


def main(argv: list[str]) -> int:
    """Writes the record and prints its table."""
    options = cli.parse(
        argv,
        __doc__,
        required=('weights', 'data', 'out'),
        places=('out', 'root'),
        repeated=('layer',),
        weights='the net: run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k, a path',
        data='a data set to measure on: image_folder, imagenet, mnist5k, ...',
        root='of that data set',
        limit='at most so many of its test images',
        out='file to write, .json; must not exist',
        shares=f'of a layer to drop, with commas between; {",".join(map(str, SHARES))} by default',
        layer='to scan; may be repeated; all by default',
    )
    try:
        shares = [float(share) for share in options.shares.split(',')] if options.shares else SHARES
    except ValueError as error:
        raise UserError(f'--shares is {options.shares!r}; expected numbers such as 0.5,0.9') from error
    if options.out.exists():
        raise UserError(f'--out {options.out} exists already; nothing is overwritten')
    limit = cli.integer('limit', options.limit) if options.limit else 0
    net = classifiers.load(options.weights)
    record = scan(net, measure.spec_of(options.data, options.root), shares, options.layer or None, limit)
    write_atomically(options.out, json.dumps(record, indent=1) + '\n')
    print(table(record))
    print(f'top-1 {record["whole"]:.2f} of {record["n_seen"]:,} images with all weights')
    return 0


if __name__ == '__main__':
    cli.run(main)
