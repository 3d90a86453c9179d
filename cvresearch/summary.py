"""What a net is made of: python -m cvresearch.summary lenet5 [--format text|markdown|csv|latex].

Layer by layer output shape, parameters, multiply-adds, activation memory and receptive field,
counted from the traced program; every parameter with --parameters; or all variants against their
facts with --all.
"""

import csv
from pathlib import Path

from clu import parameter_overview

from cvresearch.base import cli, tables, trees
from cvresearch.base.errors import UserError
from cvresearch.engine import trace
from cvresearch.models import registry

LAYER_COLUMNS = ('layer', 'kind', 'output', 'params', 'macs', 'activation_bytes', 'receptive_field')
CATALOGUE_COLUMNS = (
    'name', 'family', 'input', 'params', 'params_reference', 'macs', 'macs_reference', 'equal', 'parity', 'paper',
    'evidence',
)  # fmt: skip
# The largest difference from a reference's logits over the largest logit, as measured by
# tests/goldens/measure.py.
PARITY = Path(__file__).parent.parent / 'docs' / 'records' / 'parity.csv'



def layer_rows(name: str, image_shape: tuple[int, int, int] | None = None, **arguments) -> list[dict]:
    """Returns one row per layer of a variant, and the totals.

    Args:
      name: of the variant.
      image_shape: (height, width, channels); the variant's own where not given.
      **arguments: of the model's constructor.

    Raises:
      UserError: an unknown variant or argument, an image that does not fit.
    """
    model = registry.build(name, **arguments)
    layers = trace.layers(model, image_shape or registry.variant(name).input_shape)
    rows = [
        dict(
            layer=layer.name, kind=layer.kind, output='x'.join(map(str, layer.shape)), params=layer.params,
            macs=layer.macs, activation_bytes=layer.activation_bytes,
            receptive_field='x'.join(map(str, layer.receptive_field)),
        )
        for layer in layers
    ]  # fmt: skip
    totals = {key: sum(row[key] for row in rows) for key in ('params', 'macs', 'activation_bytes')}
    return [*rows, dict.fromkeys(LAYER_COLUMNS, '') | dict(layer='total') | totals]


def catalogue_rows() -> list[dict]:
    """Returns one row per variant: our counts, those of the facts, whether they are equal, and parity."""
    rows, parity = [], _parity()
    for name, variant in registry.catalogue().items():
        model = registry.build(name)
        shapes = trace.shapes(model, variant.input_shape)
        params = trees.count(shapes['params'])
        macs = trace.macs(model, variant.input_shape, shapes)
        known = [(ours, facts) for ours, facts in ((params, variant.params), (macs, variant.macs)) if facts is not None]
        rows.append(dict(
            name=name, family=variant.module.__module__.rpartition('.')[2],
            input='x'.join(map(str, variant.input_shape)),
            params=params, params_reference=variant.params, macs=macs, macs_reference=variant.macs,
            equal='' if not known else 'yes' if all(a == b for a, b in known) else 'NO',
            parity=parity.get(name), paper=variant.paper, evidence=variant.evidence,
        ))  # fmt: skip
    return rows


def _parity() -> dict[str, str]:
    """Returns 'torchvision 1e-06, keras 9e-07' by variant, from the measurements kept in the docs."""
    found: dict[str, list[str]] = {}
    if PARITY.exists():
        for row in csv.DictReader(PARITY.read_text().splitlines()):
            library = row['reference'].partition('/')[0]
            found.setdefault(row['variant'], []).append(f'{library} {float(row["relative_error"]):.0e}')
    return {variant: ', '.join(errors) for variant, errors in found.items()}


def _only(names: list[str]) -> str:
    if len(names) != 1:
        raise UserError(f'expected the name of one variant, got {" ".join(names) or "none"}; or --all')
    return names[0]


def main(argv: list[str]) -> int:
    """Prints a summary; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=(), positional='variant',
        switches=dict(
            all='one row for every variant, against the facts',
            parameters='every parameter by name, shape and size instead of the layers',
        ),
        model='the variant, where a flag is preferred',
        format='text, markdown, csv or latex',
        image_size='height and width in pixels; the variant\'s own by default',
        num_classes='number of classes; the variant\'s own by default',
    )  # fmt: skip
    style = options.format or 'text'
    if options.all:
        rows, columns = catalogue_rows(), CATALOGUE_COLUMNS
    else:
        name = _only(options.rest + [options.model] * bool(options.model))
        shape = registry.variant(name).input_shape
        if options.image_size:
            size = cli.integer('image_size', options.image_size)
            shape = (size, size, shape[2])
        classes = options.num_classes and cli.integer('num_classes', options.num_classes)
        if options.parameters:
            model = registry.build(name, classes)
            print(parameter_overview.get_parameter_overview(trace.shapes(model, shape)['params'], include_stats=False))
            return 0
        rows, columns = layer_rows(name, shape, num_classes=classes), LAYER_COLUMNS
        title = f'{name}, input {"x".join(map(str, shape))}'
        if style == 'text':
            print(title)
    print(tables.render(rows, columns, style))
    if not options.all and style == 'text':
        total = rows[-1]
        print(
            f'{total["params"]:,} parameters ({total["params"] * 4 / 2**20:.1f} MiB in float32), '
            f'{total["macs"]:,} multiply-adds and {total["activation_bytes"] / 2**20:.2f} MiB of activations an image, '
            f'batch norms and biases not counted as multiply-adds'
        )
    return 0


if __name__ == '__main__':
    cli.run(main)
