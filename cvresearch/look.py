"""Looks inside a net: why it answers so, what it has learned, and how it trains.

    cvresearch look KIND --weights NAME IMAGE... --out FILE.png [--arrays FILE.npz]
    cvresearch look KIND RUN... --out FILE.png

KIND, of a net and images; several of the first row may come with commas between, side by side in one sheet:
    cam gradcam gradcam++ gradcam++exp saliency smoothgrad integrated guided deconv occlusion
        which places of the IMAGEs speak for a class (--class; the likeliest by default)
    maps        the feature maps of one IMAGE at --layer
    exciting    the IMAGEs, or what of them --channel of --layer looks at, in which its value is largest
    pca tsne umap   the IMAGEs as points, by what --layer says of them, averaged over the image
    cka         how alike the layers of two nets are (--weights and --other), by the IMAGEs
    activations gradients   how they are distributed in each layer (of the cross entropy of --class)
of a net alone:
    filters     of the first convolution
    templates   of a dense layer on the pixels, one for each class of a linear classifier
    surface     the loss around the parameters along two filter-normalised directions; of --data, or a run's own
    layers      prints the names of the layers and their shapes
of runs, in place of --weights and IMAGEs:
    training    sizes of activations and gradients, dead units and updates along a RUN that was trained with
                --config.watch.name=layers; activations, gradients: their histograms
    curves      the losses of the RUNs in one picture, such as of several learning rates
    confusion calibration classes mistakes   what a net says of a split: of the predictions that a RUN, or the --out of
                cvresearch evaluate, keeps, or of a file of predictions

--weights is 'run:DIR', 'file:PATH#torchvision/resnet50', 'hub:NAME', or a path. An IMAGE may be a folder or a quoted
pattern. FILE.npz has, for the first row, `map`, float32 (images, height, width) of the photographs' own size, zero
where the net saw nothing; `class`, (images,); `logits`, (images, classes); `layer`. With several KINDs or classes,
`map` is (images, panels, height, width) and `class` (images, panels), in the order of the picture, and `kind` names
the panels. Of gradients, a map is the largest absolute value of the channels.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cvresearch.base import cli
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.paths import local
from cvresearch.data.walk import images_of
from cvresearch.engine import classifiers
from cvresearch.inspect import learned, program
from cvresearch.interop.classifier import NAMING, Classifier
from cvresearch.report import look_inside, look_training, looks
from cvresearch.report.look_inside import MAPS


def _print_layers(net: Classifier, options: SimpleNamespace) -> None:
    for name, shape in program.layers(net.module, net.variables, net.input_shape).items():
        print(f'{name:<48}{"x".join(map(str, shape))}')


CLASS: dict[str, Any] = {'class': 'classes by name or number, with commas between; the likeliest by default'}
# (net, images, options)
OF_IMAGES: dict[str, Callable] = {
    'maps': look_inside.maps,
    'exciting': look_inside.exciting,
    'cka': look_inside.compare,
    **{name: functools.partial(look_inside.embed, method=name) for name in learned.EMBEDDINGS},
    **{name: functools.partial(look_inside.distributions, what=name) for name in ('activations', 'gradients')},
}
# (net, options)
OF_THE_NET: dict[str, Callable] = {
    'filters': look_inside.filters,
    'templates': look_inside.templates,
    'surface': look_training.surface,
    'layers': _print_layers,
}
# (folders or files, options)
OF_RUNS: dict[str, Callable] = {
    **{name: functools.partial(look_training.layers, name) for name in ('training', 'activations', 'gradients')},
    'curves': look_training.curves,
    **{
        name: functools.partial(look_training.answered, name)
        for name in ('confusion', 'calibration', 'classes', 'mistakes')
    },
}
KINDS = tuple(dict.fromkeys((*MAPS, *OF_IMAGES, *OF_THE_NET, *OF_RUNS)))
# Which kinds a flag is for.
FLAGS = {
    'layer': (
        'gradcam',
        'gradcam++',
        'gradcam++exp',
        'maps',
        'exciting',
        *learned.EMBEDDINGS,
        'activations',
        'gradients',
    ),
    'class': (*MAPS, 'gradients'),
    'window': ('occlusion',),
    'stride': ('occlusion',),
    'samples': ('smoothgrad', 'integrated'),
    'channel': ('exciting',),
    'other': ('cka',),
    'shared': ('maps', 'filters', 'templates'),
    'points': ('surface',),
    'reach': ('surface',),
    'limit': ('surface',),
    'data': ('surface', 'mistakes'),
    'root': ('surface', 'mistakes'),
    'split': ('surface', 'curves', 'confusion', 'calibration', 'classes', 'mistakes'),
    'bins': ('calibration',),
    'number': ('mistakes',),
}


def main(argv: list[str]) -> int:
    """Draws what a KIND says of a net; bad input is one line."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='KIND, and images or runs',
        places=('arrays',),
        switches=dict(shared='one scale for all pictures of a sheet, rather than one for each'),
        weights=f'the net: {NAMING}',
        out='the picture: .png, .pdf or .svg; it must not be there yet',
        arrays='.npz in which the numbers are kept',
        layer='name of the layer (cvresearch look layers); found by default',
        channel='channels of the layer, with commas between',
        window="side of the square that occlusion covers, in pixels of the net's input",
        stride='pixels from square to square',
        samples='noisy copies of smoothgrad, steps of integrated (50)',
        other='the second net of cka',
        data="data set of surface and of mistakes, such as image_folder; a run's own by default",
        root='folder of that data set',
        split='train, test or minival',
        limit='images of surface (256)',
        points='places along each direction of surface (21)',
        reach='how far surface goes to either side, in norms of the filters (1)',
        bins='of calibration (15)',
        number='images of mistakes (25)',
        **CLASS,
    )
    options.classes = getattr(options, 'class')
    if not options.rest:
        raise UserError(f'no KIND is given; valid: {", ".join(KINDS)}')
    kind, *named = options.rest
    kinds = kind.split(',')
    for name in kinds:
        lookup('KIND', dict.fromkeys(KINDS if len(kinds) == 1 else MAPS), name)
    for flag, takers in FLAGS.items():
        if getattr(options, flag) and not set(kinds) & set(takers):
            raise UserError(f'{kind} takes no --{flag}; it is for {", ".join(takers)}')
    if kind != 'layers':
        _check_places(options)
    if kind in OF_RUNS and not options.weights:
        if not named:
            raise UserError(f'no run is given; name the folder of one after {kind}')
        OF_RUNS[kind](named, options)
        return 0
    _of_net(kind, named, options)
    return 0


def _of_net(kind: str, named: list[str], options: SimpleNamespace) -> None:
    """Draws a kind of a net, and of images if it takes any."""
    if kind not in (*OF_IMAGES, *OF_THE_NET) and kind in OF_RUNS:
        raise UserError(f'{kind} takes no --weights, but the folder of a run: cvresearch look {kind} RUN')
    if not options.weights:
        raise UserError(f'--weights is missing: the net: {NAMING}')
    if kind in OF_THE_NET:
        if named:
            raise UserError(f'{kind} takes no image, and {named[0]!r} is given')
        OF_THE_NET[kind](classifiers.load(options.weights), options)
        return
    if not named:
        raise UserError(f'no image is given; name image files after {kind}')
    paths = [path for text in named for path in _expanded(text)]
    net = classifiers.load(options.weights)
    if kind in OF_IMAGES:
        OF_IMAGES[kind](net, paths, options)
    else:
        look_inside.explain(net, paths, kind.split(','), options)


def _check_places(options: SimpleNamespace) -> None:
    """Refuses what could not be written, before anything is computed."""
    if not options.out:
        raise UserError('--out is missing: the picture, .png, .pdf or .svg')
    options.out = local(options.out, '--out')
    looks.check(options.out)
    if options.arrays:
        looks.check_arrays(options.arrays)


def _expanded(text: str) -> list[str]:
    try:
        return images_of(str(local(text)))
    except UserError as error:
        raise UserError(f'{text}: {error}') from error


if __name__ == '__main__':
    cli.run(main)
