"""Image pipelines beside each other on the same files.

    python tests/peers/data.py [--cores 1 2] [--rounds 3] [--record FOLDER]

Each is a random resized crop to 224 and a flip, in batches of 256 uint8 images handed to JAX's device, as its own
documentation has it: tf.data with the fused decode_and_crop_jpeg; PyTorch's DataLoader with Pillow (torchvision's
transforms), and with our decoding; grain's MapDataset with read threads; ours; and the bare decoder of libjpeg-turbo,
which makes no batch. Every measurement is a process of its own, bound to its cores, in turns; medians over rounds, of
shares too.
Also what decoding fast costs in pixel values. Needs tests/peers/requirements.txt and an idle machine.
"""

import argparse
import dataclasses
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'goldens')]

BATCH, SIZE, FILES = 256, 224, 1000
SECONDS, WARM_UP = 12.0, 2  # measured, after so many batches


def write_files(folder: Path) -> None:
    """Writes JPEGs of 500 x 375 and 375 x 500 pixels, about 100 KB: parts of the photographs of scikit-learn."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for label in range(10):
        (folder / 'train' / f'{label:03d}').mkdir(parents=True)
        (folder / 'val' / f'{label:03d}').mkdir(parents=True)
    for number in range(FILES):
        size = (500, 375) if number % 4 else (375, 500)
        part = random.uniform(0.7, 1.05)
        width, height = (round(side * part * 0.8) for side in size)
        left, top = random.integers(0, 640 - width + 1), random.integers(0, 427 - height + 1)
        image = photographs[number % len(photographs)].crop((left, top, left + width, top + height))
        image = image.resize(size, Image.BICUBIC)
        split = 'train' if number >= 10 else 'val'
        image.save(folder / split / f'{number % 10:03d}' / f'{number}.jpg', quality=96)


def ours(folder: Path, cores: int) -> Iterator:
    """This project's stream, as training takes from it, in a process that keeps freed pages as all commands do."""
    from cvresearch.base.memory import keep_freed_pages
    from cvresearch.data import sources
    from cvresearch.data.stream import Stream, prefetch

    keep_freed_pages()
    crop = dict(name='random_resized_crop', size=SIZE)
    transform = dict(train=dict(crop=crop, flip=0.5), eval=dict(crop=crop))
    source = sources.load(dict(name='image_folder', root=str(folder)), 0, transform)
    stream = Stream(source.splits['train'], 0, BATCH)
    return (batch['image'] for batch in prefetch(stream.batch, 0, 10**6, workers=2))


def bare_decoder(folder: Path, cores: int) -> Iterator:
    """libjpeg-turbo alone, whole images, fast: what all others are measured by. Threads in chunks; no batch is made."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import simplejpeg

    data = [path.read_bytes() for path in sorted(folder.glob('train/*/*.jpg'))]

    def work(start: int) -> None:
        for number in range(start, start + 16):
            simplejpeg.decode_jpeg(data[number % len(data)], 'RGB', fastdct=True, fastupsample=True)

    with ThreadPoolExecutor(cores) as pool:
        for step in itertools.count():
            list(pool.map(work, range(step * BATCH, (step + 1) * BATCH, 16)))
            yield np.empty((BATCH, 0))


def tf_data(folder: Path, cores: int) -> Iterator:
    """tf.data as the official ResNet has it: sample_distorted_bounding_box, decode_and_crop_jpeg, bilinear."""
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')

    def load(path):
        data = tf.io.read_file(path)
        shape = tf.image.extract_jpeg_shape(data)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            shape, tf.zeros((1, 0, 4)), min_object_covered=0.0, aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0), max_attempts=10, use_image_if_no_bounding_boxes=True,
        )  # fmt: skip
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3, dct_method='INTEGER_FAST')
        image = tf.image.random_flip_left_right(tf.image.resize(image, (SIZE, SIZE)))
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    files = tf.data.Dataset.from_tensor_slices([str(path) for path in sorted(folder.glob('train/*/*.jpg'))])
    data = files.repeat().shuffle(FILES).map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    return data.batch(BATCH).prefetch(2).with_options(options).as_numpy_iterator()


def torch_loader(folder: Path, cores: int, make) -> Iterator:
    """PyTorch's DataLoader with a worker process for each core."""
    import torch
    from torch_reference import define_missing_operators

    define_missing_operators()
    from torchvision.datasets import ImageFolder

    data = ImageFolder(str(folder / 'train'), **make())
    loader = torch.utils.data.DataLoader(
        data,
        BATCH,
        shuffle=True,
        num_workers=cores,
        drop_last=True,
        persistent_workers=True,
        prefetch_factor=2,
        collate_fn=stacked,
    )
    return (images for _ in itertools.count() for images in loader)


def stacked(rows):
    """Makes one uint8 batch of a list of (image, label)."""
    import numpy as np

    return np.stack([image for image, _ in rows])


def with_pillow() -> dict:
    """torchvision's transforms on Pillow images."""
    import numpy as np
    from torchvision import transforms

    return dict(
        transform=transforms.Compose(
            [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), np.asarray]
        )
    )


def with_our_decoding() -> dict:
    """Our transform of one file."""
    return dict(loader=lambda path: one_of_ours(Path(path).read_bytes()))


def one_of_ours(data: bytes):
    """Decodes and crops one file with random numbers of this process."""
    import random

    from cvresearch.data import crops, transforms

    transform = transforms.Transform(crop=crops.RandomResizedCrop(SIZE), flip=0.5)
    return transform(data, {'crop': [random.random() for _ in range(40)], 'flip': [random.random()]})


def grain_threads(folder: Path, cores: int) -> Iterator:
    """grain's MapDataset with read threads over our decoding (its documentation's choice where decoding is in C)."""
    import grain
    import numpy as np

    files = sorted(folder.glob('train/*/*.jpg'))
    data = grain.MapDataset.source([str(path) for path in files]).seed(0).shuffle().repeat()
    data = data.map(lambda path: one_of_ours(Path(path).read_bytes()))
    options = grain.ReadOptions(num_threads=cores, prefetch_buffer_size=2 * BATCH)
    return iter(data.to_iter_dataset(options).batch(BATCH, batch_fn=np.stack))


def grain_processes(folder: Path, cores: int) -> Iterator:
    """The same with worker processes."""
    import grain
    import numpy as np
    from absl import flags

    flags.FLAGS([sys.argv[0]])  # its workers want parsed flags
    files = sorted(folder.glob('train/*/*.jpg'))
    data = grain.MapDataset.source([str(path) for path in files]).seed(0).shuffle().repeat()
    data = data.map(lambda path: one_of_ours(Path(path).read_bytes())).batch(BATCH, batch_fn=np.stack)
    return iter(data.to_iter_dataset().mp_prefetch(grain.MultiprocessingOptions(num_workers=cores)))


PIPELINES: dict[str, Callable[[Path, int], Iterator]] = {
    'bare decoder': bare_decoder,
    'ours': ours,
    'tf.data, fused decode and crop': tf_data,
    'torch DataLoader, Pillow': lambda folder, cores: torch_loader(folder, cores, with_pillow),
    'torch DataLoader, our decoding': lambda folder, cores: torch_loader(folder, cores, with_our_decoding),
    'grain, read threads, our decoding': grain_threads,
    'grain, processes, our decoding': grain_processes,
}


def measure(name: str, folder: Path, cores: int, seconds: float) -> tuple[float, float]:
    """Returns images/s of one pipeline in this process, which is bound to its cores already, and its CPU ms an image.

    The time on the processor is that of this process, and means little for pipelines of several.
    """
    import jax

    batches = PIPELINES[name](folder, cores)
    for _ in range(WARM_UP):
        next(batches)
    start, busy, number = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        jax.block_until_ready(jax.device_put(batch))
        number += len(batch)
    return number / (time.perf_counter() - start), 1e3 * (time.process_time() - busy) / number


def measured_apart(name: str, folder: Path, cores: int, seconds: float) -> tuple[float, float]:
    """Returns `measure`'s result from a process of its own, on the first `cores` cores."""
    arguments = ['--one', name, '--folder', str(folder), '--cores', str(cores), '--seconds', str(seconds)]
    environment = os.environ | {'TF_CPP_MIN_LOG_LEVEL': '2', 'JAX_PLATFORMS': 'cpu'}
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    if done.returncode:
        print(f'{name}: {done.stderr.strip().splitlines()[-1]}', file=sys.stderr)
        return float('nan'), float('nan')
    return json.loads(done.stdout.splitlines()[-1])


def quality(folder: Path) -> list[dict]:
    """Returns how far faster ways of decoding and resizing are from Pillow's, in grey levels of 255."""
    import numpy as np
    from PIL import Image

    from cvresearch.data import crops, transforms

    exact = transforms.Transform(crop=crops.RandomResizedCrop(SIZE), fast=False, antialias=True)
    random = np.random.default_rng(0)
    rows = []
    for name, knobs in {
        'exact decode, OpenCV bilinear': dict(fast=False),
        'exact decode, OpenCV area': dict(fast=False, interpolation='area'),
        'fast decode, OpenCV bilinear (default)': dict(),
        'fast decode, OpenCV area': dict(interpolation='area'),
        'fast decode, Pillow bilinear': dict(antialias=True),
    }.items():
        other = dataclasses.replace(exact, **{'fast': True, 'antialias': False, **knobs})
        differences = []
        for path in sorted(folder.glob('train/*/*.jpg'))[:200]:
            u = {'crop': random.random(40).tolist()}
            data = path.read_bytes()
            differences.append(np.abs(exact(data, u).astype(int) - other(data, u)))
        found = np.stack(differences)
        rows.append(
            dict(
                decoding=name,
                mean=round(float(found.mean()), 2),
                p99=round(float(np.percentile(found, 99))),
                largest=int(found.max()),
            )
        )
    file = sorted(folder.glob('train/*/*.jpg'))[0].read_bytes()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), exact_pixels(file))
    return rows


def exact_pixels(data: bytes):
    """Returns the whole image as our exact decoding has it."""
    from cvresearch.data import decode

    return decode.decode(data, decode.header(data))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cores', type=int, nargs='+', default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=SECONDS)
    parser.add_argument('--only', nargs='+', choices=PIPELINES, default=list(PIPELINES))
    parser.add_argument('--one', choices=PIPELINES, help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--format', default='text')
    parser.add_argument('--record', type=Path, help='folder for the records data_speed.json and data_quality.json')
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.folder, options.cores[0], options.seconds)))
        return
    from cvresearch.base import records, tables

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_files(folder)
        sizes = [path.stat().st_size for path in folder.glob('train/*/*.jpg')]
        print(f'{len(sizes)} JPEGs of {statistics.mean(sizes) / 1e3:.0f} KB; load {os.getloadavg()[0]:.1f} before')
        found = {(name, cores): [] for cores in options.cores for name in options.only}
        for _ in range(options.rounds):
            for name, cores in found:
                found[name, cores].append(measured_apart(name, folder, cores, options.seconds))
        rows = []
        for name in options.only:
            row = dict(pipeline=name)
            for cores in options.cores:
                rate, busy = (statistics.median(part) for part in zip(*found[name, cores], strict=True))
                # Of the same round: neighbours of the machine slow down both.
                bare = found.get(('bare decoder', cores), [(float('nan'), 0)] * options.rounds)
                shares = [one[0] / other[0] for one, other in zip(found[name, cores], bare, strict=True)]
                several = 'DataLoader' in name or 'processes' in name
                row |= {
                    f'images/s, cores: {cores}': round(rate),
                    f'of bare, {cores}': round(statistics.median(shares), 2),
                    f'CPU ms, {cores}': None if several else round(busy, 2),
                }
            rows.append(row)
        print(tables.render(rows, tuple(rows[0]), options.format))
        far = quality(folder)
        print(tables.render(far, tuple(far[0]), options.format))
        if options.record:
            size = round(statistics.mean(sizes) / 1e3)
            records.write_measurement(options.record / 'data_speed.json', rows, kilobytes_a_file=size)
            records.write_measurement(options.record / 'data_quality.json', far)


if __name__ == '__main__':
    main()
