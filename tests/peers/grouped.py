"""Convolutions with groups on a TPU: XLA's own form beside joined ones, by the TPU's compiler (docs/speed.md).

    python -m tests.peers.grouped --record docs/records/grouped.json [--jobs 2]

A layer stands between two 1x1 convolutions with norms and ReLU, in bfloat16, 128 images, forward and backward: what is
fused with it counts too. It needs the extra `plan` and no device; a minute of a core for each form.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

IMAGES = 128
MACHINE = 'v5e:1'
# Pixels of a side, channels, groups, and where such layers are. 0 is XLA's own form, others join as many channels.
LAYERS = {
    (56, 128, 32): 'ResNeXt-50, stage 1',
    (28, 256, 32): 'ResNeXt-50, stage 2',
    (14, 512, 32): 'ResNeXt-50, stage 3',
    (7, 1024, 32): 'ResNeXt-50, stage 4',
    (56, 256, 64): 'SENet-154, stage 1',
    (12, 768, 6): 'NFNet-F0, stage 3',
}
FORMS = (0, 128, 256)


def step(x, kernel, scale, offset, before, after, form: int):
    """Returns the gradients of a layer between others; see the head of this file."""
    import jax
    import jax.numpy as jnp

    from cvresearch.nn import conv_groups
    from cvresearch.nn.conv_primitives import Window, plain

    def convolution(x, kernel, groups=1):
        half = kernel.shape[0] // 2
        window = Window(x.shape[1:3], kernel.shape[:2], padding=((half, half), (half, half)), groups=groups)
        if groups > 1 and form:
            return conv_groups.convolution(plain, x, kernel, window, form, groups)
        return plain(x, kernel, window)

    def norm(y):
        wide = y.astype(jnp.float32)
        mean, square = wide.mean((0, 1, 2)), jnp.square(wide).mean((0, 1, 2))
        factor = scale * jax.lax.rsqrt(square - jnp.square(mean) + 1e-5)
        return jax.nn.relu((wide * factor + offset - mean * factor).astype(y.dtype))

    def loss(x, kernel, before, after):
        y = norm(convolution(x, before))
        y = norm(convolution(y, kernel, x.shape[-1] // kernel.shape[2]))
        return jnp.square(convolution(y, after).astype(jnp.float32)).sum()

    return jax.grad(loss, (0, 1, 2, 3))(x, kernel, before, after)


def compile_form(side: int, channels: int, groups: int, form: int) -> None:
    """Compiles a form, in the process that is there for it."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from cvresearch.base import machines
    from cvresearch.engine import ahead

    placed = SingleDeviceSharding(ahead.devices_of(machines.machine(MACHINE))[0])
    images, depth, vector = (IMAGES, side, side, channels), channels // groups, (channels,)
    shapes = images, (3, 3, depth, channels), vector, vector, (1, 1, channels, channels), (1, 1, channels, channels)
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32 if shape == vector else jnp.bfloat16, sharding=placed)
        for shape in shapes
    ]

    def train_step(*arrays):
        return step(*arrays, form)

    jax.jit(train_step).trace(*arguments).lower(lowering_platforms=('tpu',)).compile()


def measure(layer: tuple[int, int, int], form: int) -> tuple[float, float]:
    """Returns MB of HBM and thousands of cycles an image."""
    from cvresearch.base import machines
    from cvresearch.engine import ahead
    from cvresearch.inspect import hlo, traffic

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'tests.peers.grouped', '--compile', *map(str, (*layer, form))]
        compiled = ahead.compile_by(command, Path(folder), machines.machine(MACHINE))
    moved = traffic.traffic(hlo.parse(compiled.text), on_chip=True)
    return moved.hbm / IMAGES / 1e6, (moved.cycles or float('nan')) / IMAGES / 1e3


def main() -> None:
    """Prints the table, and records it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--compile', nargs=4, type=int, help=argparse.SUPPRESS)
    parser.add_argument('--jobs', type=int, default=1, help='compilers at the same time')
    parser.add_argument('--record', type=Path, help='the file of the record')
    options = parser.parse_args()
    if options.compile:
        compile_form(*options.compile)
        return
    os.environ['JAX_PLATFORMS'] = 'cpu'  # for the record's facts no plugin need look for devices that are not here
    from cvresearch.base import records, tables

    with ThreadPoolExecutor(options.jobs) as pool:
        running = {(layer, form): pool.submit(measure, layer, form) for layer in LAYERS for form in FORMS}
        rows = []
        for (side, channels, groups), where in LAYERS.items():
            row = dict(layer=where, pixels=side, channels=channels, groups=groups)
            for form in FORMS:
                megabytes, cycles = running[(side, channels, groups), form].result()
                name = str(form) if form else "XLA's own"
                row |= {f'MB, {name}': round(megabytes, 2), f'kcycles, {name}': round(cycles, 1)}
            rows.append(row)
            print(row, flush=True)
    print(tables.render(rows, tuple(rows[0]), 'text'))
    if options.record:
        records.write_measurement(options.record, rows, machine=MACHINE)


if __name__ == '__main__':
    main()
