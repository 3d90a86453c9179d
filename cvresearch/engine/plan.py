"""What a recipe needs of a machine that is not here, by that machine's own compiler.

    cvresearch plan --config configs/resnet50.py:goyal --machine v5e:2x4 --early
    cvresearch plan --config configs/resnet50.py:goyal --machine h100:8 --batch_sizes 1024,2048,4096 --shards 1,8

Compiles the recipe's real update and tells whether it fits, what it keeps in memory, what it moves to and from HBM,
what devices send each other, and the least time of a step and of an epoch: the slowest of arithmetic, HBM and links,
each at its peak. Several batch sizes or shards make a table; the best that fits is said. Needs the compiler of the
machine (pip install "cvresearch[plan]"), no device. The images need not be there. With --early no machine code is made,
which is most of the time; the compiler's cycles are not known then.
"""

import itertools
import json
import logging
import os
import sys

from cvresearch.base import cli, machines, tables
from cvresearch.base import config as configs
from cvresearch.base.errors import BAD_INPUT, UserError

COLUMNS = (
    'batch_size',
    'shard',
    'fits',
    'memory_gib',
    'hbm_mb_per_image',
    'padded',
    'sent_mb',
    'arithmetic_ms',
    'hbm_ms',
    'links_ms',
    'images_per_second',
)


def main(argv: list[str]) -> int:
    """Prints a plan; returns the exit code: 2 where nothing fits."""
    options = cli.parse(
        argv,
        __doc__,
        required=('config', 'machine'),
        config='experiment file, with :ARGUMENT where it takes one',
        machine='v5e:2x4, v6e:8, h100:8, ...',
        format='text (default), json, markdown, csv, latex or html',
        batch_sizes="numbers, separated by commas; the recipe's own by default",
        shards="of config.mesh.shard, separated by commas; the recipe's own by default",
        switches=dict(early='stop before machine code is made: seconds instead of minutes, without cycles'),
    )
    config, target, style = cli.config_of(options), machines.machine(options.machine), options.format or 'text'
    if style != 'json' and style not in tables.STYLES:
        raise UserError(f'--format is {style!r}; expected one of json, {", ".join(tables.STYLES)}')
    sizes = _numbers('batch_sizes', options.batch_sizes, config.batch_size)
    shards = _numbers('shards', options.shards, config.mesh.shard)
    machines.check_compiler(target.chip)
    # Nothing runs here: the devices of this host are left alone, and what their plugins lack is no matter.
    os.environ |= dict(JAX_PLATFORMS='cpu', TPU_SKIP_MDS_QUERY='1')
    logging.getLogger('jax._src.xla_bridge').setLevel(logging.CRITICAL)
    from cvresearch.engine import ahead, forecast

    forecasts, complaints = [], []
    for size, shard in itertools.product(sizes, shards):
        setting = config.copy_and_resolve_references()
        configs.override(setting, 'batch_size', str(size))
        configs.override(setting, 'mesh.shard', str(shard))
        forecasts.append(ahead.forecast_of(setting, target, bool(options.early)))
        if not forecasts[-1]['fits']:
            complaints.append(forecast.complaint(setting, target, forecasts[-1]))
    single = len(forecasts) == 1
    if style == 'json':
        print(json.dumps(forecasts[0] if single else forecasts))
    elif style == 'text' and single:
        print('\n'.join(_lines(forecasts[0])))
    else:
        print(tables.render([_row(row) for row in forecasts], COLUMNS, style))
    fitting = [row for row in forecasts if row['fits']]
    if not single and fitting and style == 'text':
        best = max(fitting, key=lambda row: row['most_images_per_second'])
        print(f'best that fits: batch {best["batch_size"]}, shard {best["shard"]}')
    if not fitting:
        print(f'error: {complaints[0]}', file=sys.stderr)
        return BAD_INPUT
    return 0


def _numbers(flag: str, text: str | None, default: int) -> list[int]:
    return [cli.integer(flag, number.strip()) for number in text.split(',')] if text else [default]


def _row(forecast: dict) -> dict:
    return dict(
        batch_size=forecast['batch_size'],
        shard=forecast['shard'],
        fits='yes' if forecast['fits'] else 'no',
        memory_gib=round(forecast['memory']['total'] / 2**30, 2),
        hbm_mb_per_image=round(forecast['hbm_bytes_per_image'] / 1e6, 1),
        padded=round(forecast['hbm_bytes_per_image_padded'] / 1e6, 1),
        sent_mb=round(sum(collective['wire_bytes'] for collective in forecast['collectives']) / 1e6, 1),
        **{f'{name}_ms': round(1e3 * value, 2) for name, value in forecast['seconds'].items()},
        images_per_second=round(forecast['most_images_per_second']),
    )


def _lines(forecast: dict) -> list[str]:
    """Returns a plan in words."""
    memory, images = forecast['memory'], forecast['images_per_device']
    gib = lambda name: f'{name} {memory[name] / 2**30:.2f}'  # noqa: E731
    times = ', '.join(f'{name} {1e3 * value:.2f} ms' for name, value in forecast['seconds'].items())
    sent = [
        f'  {item["kind"]}: {item["count"]:,} of {item["bytes"] / 1e6:,.1f} MB, '
        f'{item["wire_bytes"] / 1e6:,.1f} MB over links'
        for item in forecast['collectives']
    ]
    cycles = (
        'not known before machine code' if forecast['estimated_cycles'] is None else f'{forecast["estimated_cycles"]:,}'
    )
    return [
        f'{forecast["model"]}, {forecast["dtype"]}, on {forecast["machine"]}: batch {forecast["batch_size"]:,}, '
        f'{images:g} images a device, data {forecast["data"]} x shard {forecast["shard"]}, in '
        f'{forecast["accumulate"]} part(s)',
        f'memory of a device: {"fits" if forecast["fits"] else "DOES NOT FIT"}, {memory["total"] / 2**30:.2f} of '
        f'{memory["limit"] / 2**30:.2f} GiB: {", ".join(map(gib, ("arguments", "outputs", "temporaries")))}',
        f'  of the arguments: {", ".join(map(gib, ("parameters", "optimizer", "averages")))}',
        f'HBM: {forecast["hbm_bytes_per_image"] / 1e6:,.1f} MB an image, '
        f'{forecast["hbm_bytes_per_image_padded"] / 1e6:,.1f} with tiles filled up',
        f'operations: {forecast["flops_per_image"] / 1e9:,.2f} GFLOP an image',
        'sent between devices in a step:' if sent else 'sent between devices: nothing',
        *sent,
        f'estimated cycles of a step: {cycles}',
        f'least time of a step: {times}; bound by {forecast["bound_by"]}',
        f'at the most {forecast["most_images_per_second"]:,.0f} images/s; an epoch takes at least '
        f'{forecast["least_epoch_seconds"]:,.1f} s',
    ]
