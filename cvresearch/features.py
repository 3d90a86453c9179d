"""Features of a whole data set, by the names of layers, in one file.

    cvresearch features --weights NAME --data SOURCE [--root DIR] --at NAME[,NAME...] --out FILE.npz|.h5

NAME of --weights is run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k or a path; images are prepared
as the net was published with. A layer is a name that --list prints, or penultimate: what the last layer is given.
fc7:relu is the layer after its ReLU, stage4:mean its mean over all positions; decaf6, decaf7 and razavian are the
papers' layers. The file has the features, and ids, labels, splits, class_names and a record with digests. The same
command goes on where a killed one ended.
"""

import json

from cvresearch.base import cli
from cvresearch.base.errors import UserError


def main(argv: list[str]) -> int:
    """Writes a file of features; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=('weights',), places=('root', 'out'),
        switches=dict(list='print the layers, and do nothing else'),
        weights='the net: run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET or a path', data='name of a data set',
        root='of the data set', at='layers, with commas between (penultimate)', out='the file, .npz or .h5',
        batch_size='images at once (64)',
        every='of a folder without a test split one image in so many is a test image (5)',
    )  # fmt: skip
    from cvresearch.engine import classifiers
    from cvresearch.evaluation import feature_files

    net = classifiers.load(options.weights)
    if options.list:
        for name, shape in net.feature_names().items():
            print(f'{name} {"x".join(map(str, shape))}')
        return 0
    if not options.data or not options.out:
        raise UserError('--data and --out are missing: a data set, such as image_folder with --root, and a file')
    data = {'name': options.data} | ({'root': str(options.root)} if options.root else {})
    if options.every:
        data['every'] = cli.integer('every', options.every)
    wanted = (options.at or feature_files.PENULTIMATE).split(',')
    size = cli.integer('batch_size', options.batch_size or '64')
    found = feature_files.extract(net, data, wanted, options.out, size)
    shapes = {name: list(values.shape) for name, values in found.values.items()}
    print(json.dumps({'out': str(options.out), 'shapes': shapes, **found.record}))
    return 0


if __name__ == '__main__':
    cli.run(main)
