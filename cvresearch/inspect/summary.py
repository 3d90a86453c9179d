"""What a net is made of: cvresearch summary lenet5 [--format text|markdown|csv|latex].

Layer by layer output shape, parameters, multiply-adds, activation memory and receptive field,
counted from the traced program; every parameter with --parameters; or all variants against their
facts with --all. And what a run needs of each device's memory, on any number of devices, with
--mesh --config configs/resnet50.py [--devices 256] [--memory 16GiB] [--config.mesh.shard=8].
"""

import csv
import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview

from cvresearch.base import cli, memory, plugins, tables, trees
from cvresearch.base.errors import UserError
from cvresearch.engine import memory_plan
from cvresearch.engine.experiment import Experiment
from cvresearch.inspect import cost
from cvresearch.models import registry

LAYER_COLUMNS = ('layer', 'kind', 'output', 'params', 'macs', 'activation_bytes', 'receptive_field')
CATALOGUE_COLUMNS = (
    'name',
    'family',
    'input',
    'params',
    'params_reference',
    'macs',
    'macs_reference',
    'equal',
    'parity',
    'paper',
    'evidence',
)
# The largest difference from a reference's logits over the largest logit, as measured by
# tests/goldens/measure.py.
PARITY = Path(__file__).parent.parent / 'report' / 'parity.csv'
UNITS = {'': 1, 'KiB': 2**10, 'MiB': 2**20, 'GiB': 2**30, 'KB': 10**3, 'MB': 10**6, 'GB': 10**9}


def layer_rows(name: str, image_shape: tuple[int, int, int] | None = None, **arguments) -> list[dict]:
    """Returns one row per layer of a variant, and the totals.

    Args:
      name: of the variant.
      image_shape: (height, width, channels); the variant's own by default.
      **arguments: of the model's constructor.

    Raises:
      UserError: an unknown variant or argument, an image that does not fit.
    """
    model = registry.build(name, **arguments)
    layers = cost.layers(model, image_shape or registry.variant(name).input_shape)
    rows: list[dict[str, Any]] = [
        dict(
            layer=layer.name,
            kind=layer.kind,
            output='x'.join(map(str, layer.shape)),
            params=layer.params,
            macs=layer.macs,
            activation_bytes=layer.activation_bytes,
            receptive_field='x'.join(map(str, layer.receptive_field)),
        )
        for layer in layers
    ]
    totals = {key: sum(row[key] for row in rows) for key in ('params', 'macs', 'activation_bytes')}
    return [*rows, dict.fromkeys(LAYER_COLUMNS, '') | dict(layer='total') | totals]


def catalogue_rows() -> list[dict]:
    """Returns one row per variant: our counts, the counts of the facts, whether they are equal, and parity."""
    rows, parity = [], _parity()
    for name, variant in registry.catalogue().items():
        model = registry.build(name)
        shapes = cost.shapes(model, variant.input_shape)
        params = trees.count(shapes['params'])
        macs = cost.macs(model, variant.input_shape, shapes)
        known = [(ours, facts) for ours, facts in ((params, variant.params), (macs, variant.macs)) if facts is not None]
        rows.append(
            dict(
                name=name,
                family=variant.module.__module__.rpartition('.')[2],
                input='x'.join(map(str, variant.input_shape)),
                params=params,
                params_reference=variant.params,
                macs=macs,
                macs_reference=variant.macs,
                equal='' if not known else 'yes' if all(a == b for a, b in known) else 'NO',
                parity=parity.get(name),
                paper=variant.paper,
                evidence=variant.evidence,
            )
        )
    return rows


def mesh_lines(experiment: Experiment, limit: int) -> list[str]:
    """Returns the totals below the table of a mesh: what each device holds, beside its memory of `limit` bytes."""
    need = memory_plan.of(experiment)
    sizes = {field.name: getattr(need, field.name) for field in dataclasses.fields(need)} | {'total': need.total}
    share = experiment.plan.batch_size // experiment.recipe.accumulate / experiment.mesh.size
    return [
        *(f'{name:>12} {size:>17,} bytes  {size / 2**20:>10,.1f} MiB' for name, size in sizes.items()),
        f'activations: what the backward pass is handed for the {share:g} images that a device has at once',
        memory_plan.complaint(experiment, need, limit) or f'fits into {limit / 2**20:,.0f} MiB',
    ]


def _memory_of(text: str | None) -> int:
    if text is None:
        return memory.of_device(jax.devices()[0], jax.local_device_count())
    match = re.fullmatch(r'(\d+(?:\.\d+)?) ?(\w*)', text)
    if match is None or match[2] not in UNITS:
        raise UserError(f'--memory is {text!r}; expected a size such as 16GiB (units: {", ".join(list(UNITS)[1:])})')
    return int(float(match[1]) * UNITS[match[2]])


def _print_mesh(options, style: str) -> int:
    if not options.config:
        raise UserError('--mesh is about a run: give its --config')
    config = cli.config_of(options)
    devices = options.devices and cli.integer('devices', options.devices)
    wanted = config.mesh.data * config.mesh.shard
    experiment = memory_plan.experiment_for(config, devices or (wanted if wanted > 0 else jax.device_count()))
    sizes = ' x '.join(f'{axis} {size}' for axis, size in experiment.mesh.shape.items())
    if style == 'text':
        print(f'{config.model.name} on a mesh of {sizes}, batch {config.batch_size}: bytes that each device holds')
    print(tables.render(list(memory_plan.rows(experiment)), memory_plan.COLUMNS, style))
    if style == 'text':
        print('\n'.join(mesh_lines(experiment, _memory_of(options.memory))))
    return 0


def _parity() -> dict[str, str]:
    """Returns 'torchvision 1e-06, keras 9e-07' by variant, from the measurements kept in the docs."""
    compared: dict[str, list[str]] = {}
    if PARITY.exists():
        for row in csv.DictReader(PARITY.read_text(encoding='utf-8').splitlines()):
            library = row['reference'].partition('/')[0]
            compared.setdefault(row['variant'], []).append(f'{library} {float(row["relative_error"]):.0e}')
    return {variant: ', '.join(errors) for variant, errors in compared.items()}


def _only(names: list[str]) -> str:
    if len(names) != 1:
        raise UserError(f'expected the name of one variant, got {" ".join(names) or "none"}; or --all')
    return names[0]


def main(argv: list[str]) -> int:
    """Prints a summary; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='variant',
        switches=dict(
            all='one row for every variant, against the facts',
            parameters='every parameter by name, shape and size instead of the layers',
            mesh='what a run (--config) keeps on each device, and whether it fits',
        ),
        model='the variant, where a flag is preferred',
        format='text, markdown, csv or latex',
        image_size="height and width in pixels; the variant's own by default",
        num_classes="number of classes; the variant's own by default",
        config='experiment, for --mesh',
        devices='of the mesh, for --mesh; those that are here by default',
        memory='of a device, for --mesh: 16GiB; its own by default',
        plugins='a module or .py file with nets of your own; may be given several times',
        repeated=('plugins',),
    )
    style = options.format or 'text'
    plugins.load(plugins.resolved(options.plugins))
    if options.mesh:
        return _print_mesh(options, style)
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
            print(parameter_overview.get_parameter_overview(cost.shapes(model, shape)['params'], include_stats=False))
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
