"""Convolutions of a net one by one beside PyTorch's, forward and both gradients: where the time of a step goes.

    python -m tests.peers.layers [NET...] [--format markdown] [--record FILE]

Each distinct convolution of a net (tests/peers/pytorch.py has the nets and their sizes) runs as a program of its own,
in turns with PyTorch's, and counts as often as the net has it. A row of the table joins those of one kernel on maps of
one size; small ones come together. What a step takes beyond its convolutions is norms, activations and the update.
Within a step they are fused with what stands around them, and several run at a time, so a sum of layers is not a step.
Needs PyTorch; run it on an idle machine.
"""

import argparse
import collections
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import torch
from jax.extend import core

from cvresearch.base import records, tables
from cvresearch.base.memory import keep_freed_pages
from cvresearch.inspect.jaxprs import opened, shaped
from cvresearch.models import registry
from cvresearch.nn.conv_primitives import Window, forward_p, input_gradient_p, kernel_gradient_p
from tests.peers.pytorch import NETS, in_turns

DIRECTIONS = {'forward': forward_p, 'input': input_gradient_p, 'kernel': kernel_gradient_p}
IMAGE_CHANNELS = 3  # a convolution of at most so many needs no gradient for its input
LEAST = 0.06  # of the time of a net's convolutions: rows with less come together in one


def convolutions(name: str) -> collections.Counter:
    """Returns how often a net has each convolution: (shape of the images, shape of the kernel, window)."""
    _, batch_size, size = NETS[name]
    model = registry.build(name)
    images = jnp.zeros((batch_size, size, size, 1 if name == 'lenet5' else 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    return collections.Counter(_found(jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, images)))


def _found(program: core.Jaxpr | core.ClosedJaxpr) -> Iterator[tuple]:
    """Yields each convolution as often as it runs."""
    for equation in opened(program).eqns:
        if equation.primitive is forward_p:
            image, kernel = (shaped(variable).shape for variable in equation.invars)
            yield image, kernel, equation.params['window']
        for body in jax.core.jaxprs_in_params(equation.params):
            yield from list(_found(body)) * equation.params.get('length', 1)


def milliseconds(image: tuple, kernel: tuple, window: Window, direction: str) -> tuple[float, float]:
    """Returns what one convolution, or one gradient of it, takes: ours and PyTorch's."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = image, kernel, (image[0], *window.output, kernel[3])
    x, k, g = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    left, right = {'forward': (x, k), 'input': (g, k), 'kernel': (x, g)}[direction]
    bind = functools.partial(DIRECTIONS[direction].bind, window=window, members=False)
    compiled = jax.jit(bind).lower(left, right).compile()
    ours, theirs = lambda: jax.block_until_ready(compiled(left, right)), _torch(x, k, g, window, direction)
    seconds = in_turns([functools.partial(_seconds, function) for function in (ours, theirs)])
    our_ms, their_ms = (1e3 * statistics.median(each) for each in seconds)
    return our_ms, their_ms


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _torch(x: jax.Array, k: jax.Array, g: jax.Array, window: Window, direction: str) -> Callable[[], object]:
    """Returns PyTorch's convolution or gradient, channels last; it pads alike on both sides."""
    (top, bottom), (left, right) = window.padding
    to = lambda array, axes: torch.from_numpy(jax.device_get(array).transpose(axes).copy())  # noqa: E731
    images, gradient = (to(a, (0, 3, 1, 2)).to(memory_format=torch.channels_last) for a in (x, g))
    weights = to(k, (3, 2, 0, 1)).to(memory_format=torch.channels_last)
    if (top, left) != (bottom, right):
        images, top, left = torch.nn.functional.pad(images, (left, right, top, bottom)), 0, 0
    fixed = window.strides, (top, left), window.dilation
    if direction == 'forward':
        return lambda: torch.nn.functional.conv2d(images, weights, None, *fixed, window.groups)
    mask = [direction == 'input', direction == 'kernel', False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(gradient, images, weights, None, *fixed, False, [0, 0], window.groups, mask)


def rows_of(name: str) -> list[dict]:
    """Returns a row for each kernel and size of map, and one for all: milliseconds a step, ours and PyTorch's."""
    found: dict[tuple[str, int | str], collections.Counter] = {}
    for (image, kernel, window), count in convolutions(name).items():
        row = found.setdefault(_kind(kernel, window), collections.Counter())
        row['layers'] += count
        for direction in DIRECTIONS:
            if direction == 'input' and image[-1] <= IMAGE_CHANNELS:
                continue
            for who, spent in zip(('ours', 'pytorch'), milliseconds(image, kernel, window, direction), strict=True):
                row[f'{direction}_{who}_ms'] += count * spent
        print(name, image, kernel, window.strides, file=sys.stderr, flush=True)
    every = sum(found.values(), collections.Counter())
    large = {kind: row for kind, row in found.items() if _spent(row, 'ours') >= LEAST * _spent(every, 'ours')}
    small = sum((row for kind, row in found.items() if kind not in large), collections.Counter())
    rows = large | {('others', ''): small, ('all', ''): every}
    return [dict(net=name, kernel=kind, pixels=pixels) | _rounded(row) for (kind, pixels), row in rows.items()]


def _spent(row: collections.Counter, who: str) -> float:
    return sum(row[f'{direction}_{who}_ms'] for direction in DIRECTIONS)


def _kind(kernel: tuple, window: Window) -> tuple[str, int]:
    """Returns what a row of the table joins: the kernel and the map that it makes."""
    height, width, depth, _ = kernel
    groups = '' if window.groups == 1 else ', depthwise' if depth == 1 else f', {window.groups} groups'
    stride = f' / {window.strides[0]}' if window.strides[0] > 1 else ''
    return f'{height} x {width}{stride}{groups}', window.output[0]


def _rounded(row: collections.Counter) -> dict:
    columns = [f'{direction}_{who}_ms' for direction in DIRECTIONS for who in ('ours', 'pytorch')]
    found = {column: row[column] for column in columns} | {'behind_ms': _spent(row, 'ours') - _spent(row, 'pytorch')}
    return dict(layers=row['layers']) | {column: round(value, 1) for column, value in found.items()}


def main() -> None:
    """Prints the table; the record is written anew after each net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('nets', nargs='*', help='of ' + ', '.join(NETS), metavar='NET')
    parser.add_argument('--format', default='text', choices=['text', 'markdown', 'csv'])
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    options = parser.parse_args()
    keep_freed_pages()
    rows = []
    for name in options.nets or list(NETS):
        rows += rows_of(name)
        if options.record:
            records.write_measurement(options.record, rows, load_average=os.getloadavg())
    print(tables.render(rows, tuple(rows[0]), options.format))


if __name__ == '__main__':
    main()
