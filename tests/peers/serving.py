"""Six nets as they are served: ours under jit, their ONNX files in onnxruntime, torchvision's in PyTorch, in turns.

    python -m tests.peers.serving [--record docs/records/serving.json]
    python -m tests.peers.serving --table                              # the table of docs/export.md
    python -m tests.peers.serving --picture docs/pictures/serving.svg

The axes are Canziani et al.'s (2016, "An analysis of deep neural network models for practical applications",
arXiv:1605.07678): accuracy, operations, parameters, time. Each round asks every runtime once, so a machine that drifts
favours none; a ratio is the median over the rounds. Needs torch and torchvision (tests/peers/requirements.txt).
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
RECORD = ROOT / 'docs' / 'records' / 'serving.json'
NETS = ('alexnet', 'squeezenet1_1', 'googlenet', 'mobilenet_v2', 'resnet18', 'resnet50')
RUNTIMES = {'ours': 'ours, jit', 'onnxruntime': 'onnxruntime', 'torchvision': 'torchvision'}
BATCH, ROUNDS, SINGLE = 16, 7, 5


def runtimes(name: str) -> tuple[dict, dict]:
    """Returns {runtime: images (batch, height, width, channels) -> logits} of a net with seeded weights, and its facts.

    Raises:
      SystemExit: two runtimes give other logits.
    """
    import jax
    import onnxruntime
    import torch

    from cvresearch.inspect import cost
    from cvresearch.interop import conversion, inference
    from cvresearch.interop.onnx_export import to_onnx
    from cvresearch.models import registry
    from tests.goldens import seeded, torch_reference
    from tests.interop.nets import relative_error, seeded_variables

    reference = f'torchvision/{name}{"_no_aux" if name == "googlenet" else ""}'
    found = registry.reference(reference)
    module, shape = registry.build(found.variant, **found.arguments), (224, 224, 3)
    variables = seeded_variables(module, shape, 1.4)
    theirs = torch_reference.build(reference)
    tensors = {key: torch.from_numpy(tensor) for key, tensor in conversion.to_tensors(variables, reference).items()}
    theirs.load_state_dict(theirs.state_dict() | tensors)
    theirs.eval()
    model = to_onnx(inference.function(module, variables), inference.image_spec(shape, raw=False))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    jitted = jax.jit(lambda v, x: module.apply(v, x, train=False))
    on_device = jax.device_put(variables)

    def eager(images):
        with torch.no_grad():
            return theirs(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()).numpy()

    functions = {
        'ours': lambda images: np.asarray(jitted(on_device, images)),
        'onnxruntime': lambda images: session.run(None, {'images': images})[0],
        'torchvision': eager,
    }
    images = seeded.image((BATCH, *shape))
    expected = functions['ours'](images)
    for runtime, function in functions.items():
        function(images[:1])  # compiled, and its memory taken
        if (error := relative_error(function(images), expected)) > 1e-4:
            sys.exit(f'{name}: the logits of {runtime} differ by {error:.1e} from ours; the times would say nothing')
    params = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    return functions, dict(net=name, macs=cost.macs(module, shape), params=params)


def timed(function, images: np.ndarray, repeats: int) -> float:
    """Returns the median seconds of a call."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(images)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def measure() -> dict:
    """Returns the record."""
    import jax
    import onnxruntime
    import torch

    from tests.goldens import seeded

    images = seeded.image((BATCH, 224, 224, 3))
    rows, load = [], os.getloadavg()[0]
    for name in NETS:
        functions, facts = runtimes(name)
        single, many = ({runtime: [] for runtime in functions} for _ in range(2))
        for number in range(ROUNDS):
            order = list(functions) if number % 2 else list(functions)[::-1]
            for runtime in order:
                single[runtime].append(timed(functions[runtime], images[:1], SINGLE))
                many[runtime].append(timed(functions[runtime], images, 1))
        row = dict(facts, top1=published(name))
        for runtime in functions:
            row[runtime] = dict(
                latency_ms=round(1e3 * statistics.median(single[runtime]), 2),
                images_per_second=round(BATCH / statistics.median(many[runtime]), 1),
                # Over ours, of the same round.
                latency_ratio=round(ratio(single[runtime], single['ours']), 3),
                throughput_ratio=round(ratio(many['ours'], many[runtime]), 3),
            )
        rows.append(row)
        print(row, flush=True)
    versions = dict(
        jax=jax.__version__,
        onnxruntime=onnxruntime.__version__,
        torch=torch.__version__,
        torchvision=importlib.metadata.version('torchvision'),
    )
    return dict(
        command='python -m tests.peers.serving --record docs/records/serving.json',
        date=str(datetime.date.today()),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        batch=BATCH,
        rounds=ROUNDS,
        load_at_start=round(load, 1),
        versions=versions,
        rows=rows,
    )


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Returns the median over the rounds of the one over the other."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def published(name: str) -> float:
    """Returns top-1 of torchvision's first weights, in percent."""
    from cvresearch.report import released

    rows = Path(released.__file__).with_name('released.csv').read_text().splitlines()
    return float(next(row.split(',')[1] for row in rows if row.startswith(f'torchvision/{name}.IMAGENET1K_V1,')))


def table() -> str:
    """Returns the record as a table."""
    names = list(RUNTIMES.values())
    head = [
        'net',
        'top-1 (%)',
        'M multiply-adds',
        'M parameters',
        *(f'{name}: ms' for name in names),
        *(f'{name}: images/s' for name in names),
    ]
    lines = [f'| {" | ".join(head)} |', f'| --- |{" ---: |" * (len(head) - 1)}']
    for row in json.loads(RECORD.read_text())['rows']:
        cells = [
            row['net'],
            f'{row["top1"]:.1f}',
            f'{row["macs"] / 1e6:,.0f}',
            f'{row["params"] / 1e6:.1f}',
            *(f'{row[runtime]["latency_ms"]:.1f}' for runtime in RUNTIMES),
            *(f'{row[runtime]["images_per_second"]:.1f}' for runtime in RUNTIMES),
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def picture(path: str) -> None:
    """Draws top-1 against the latency of one image; the area of a ball is the number of parameters."""
    from cvresearch.report import plots

    rows = json.loads(RECORD.read_text())['rows']

    def draw(axes):
        for runtime, marker in zip(RUNTIMES, 'osD', strict=True):
            axes.scatter(
                [row[runtime]['latency_ms'] for row in rows],
                [row['top1'] for row in rows],
                marker=marker,
                s=[4 + 2e-6 * row['params'] for row in rows],
                alpha=0.6,
                label=RUNTIMES[runtime],
            )
        named: list[float] = []
        for row in rows:
            left = min(row[runtime]['latency_ms'] for runtime in RUNTIMES)
            # Below its balls where another net of the same accuracy has its name above.
            place = (-6, -9) if any(abs(row['top1'] - other) < 1 for other in named) else (-6, 5)
            axes.annotate(row['net'], (left, row['top1']), place, textcoords='offset points', fontsize=6, ha='right')
            named.append(row['top1'])
        axes.set_xscale('log')
        low, high = axes.get_xlim()
        axes.set_xlim(low / 4, high * 1.1)
        axes.set_ylim(axes.get_ylim()[0] - 1, axes.get_ylim()[1] + 1.5)
        axes.set_xlabel('latency of one image (ms)')
        axes.set_ylabel('published top-1 (%)')
        axes.legend(loc='lower right', fontsize=6)

    plots.saved(draw, path)


def main(argv: list[str] | None = None) -> int:
    """Measures, draws, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--record', help='file that the figures go to')
    parser.add_argument('--picture', help='file to draw into, of the record')
    parser.add_argument('--table', action='store_true', help='print the table of docs/export.md')
    options = parser.parse_args(argv)
    if options.table:
        print(table())
    elif options.picture:
        picture(options.picture)
    else:
        text = json.dumps(measure(), indent=1) + '\n'
        if options.record:
            Path(options.record).write_text(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
