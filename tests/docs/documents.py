"""Runs the code blocks of documents outside docs/tutorials: python -m tests.docs.documents DOCUMENT...

They run in a folder like a reader's, with some runs, images and weights in it. A training ends after two steps, and an
experiment whose images are not there takes its `:smoke`. A block that is not run here stands in `ELSEWHERE`.
"""

import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from cvresearch.base import cli
from cvresearch.base import config as configs
from tests.docs import pages
from tests.docs.pages import ROOT, Block

DOCUMENTS = [ROOT / f'{name}.md' for name in ('README', 'WORKSPACE', 'CONTRIBUTING')] + [
    page for page in sorted((ROOT / 'docs').rglob('*.md')) if not {'tutorials', 'records'} & set(page.parts)
]
# Blocks that are not run, by a part of their text or the name of their document: where the same is run, or what they
# need. Their commands are parsed by their programs all the same (tests/test_docs_commands.py).
ELSEWHERE = {
    '-m venv .venv && .venv/bin/pip install': 'the commands of the README, which CI runs',
    'basedpyright': 'what CI runs',
    "pip install -e '.[tests]'": 'what CI runs',
    'xla_cpu_max_isa': 'the whole suite, three times',
    'gs://BUCKET': 'a bucket; tests/data/test_mirror.py has a server of its own',
    'deep_compression --workdir': 'hours; launch/deep_compression.py in docs/records/deep_compression.json',
    'launch.transfer --workdir': 'an hour, and weights of others; tests/launch/test_transfer.py',
    'cvresearch.benchmark --probe': 'an idle machine; tests/test_benchmark.py',
    'compressed_SqueezeNet.net': 'a file of others; tests/interop/test_real_weights.py',
    '/data/imagenet': 'the images of ImageNet',
    'for kind in snapshots cosine constant': 'hours; a shorter one is docs/tutorials/ensemble.md',
    'configs/study_': 'hours; the records that each page names',
    'launch.one_card': 'hours; docs/records/fashion_*',
    'launch.few_labels': 'hours; docs/records/few_labels.json',
    'tests.bucket_faults': 'servers of others; tests/test_bucket_servers.py',
    'configs/fashion_mnist.py': 'hours; docs/records/fashion_*',
    'configs/ablation_mnist5k.py': 'hours; docs/records/ablation_mnist5k',
    'configs/efficientnet_details_mnist5k.py': 'hours; docs/records/efficientnet_details_mnist5k',
    'configs/resnet8_mnist5k.py --workdir': 'an hour; docs/records/resnet8_mnist5k_seed*',
    'readers_path.md': 'tests/peers/readers_path.py runs that page in a clone of its own',
    '--out photos.npz': 'a net of other weights; tests/evaluation/test_features.py',
    'resnet18.pth': 'weights of torchvision; tests.peers.strict_loads, docs/tutorials/ship_it.md',
    'timm.create_model': 'timm, Keras and TensorFlow; tests.peers.strict_loads, tests/interop/test_tensorflow.py',
    '--hosts 4': 'four machines; tests/test_hosts.py has four processes',
    'lite0.pth': 'weights of others; tests.peers.class_maps, docs/tutorials/look_inside.md',
    'serve --weights': 'a server, which does not end; tests/interop/test_server.py',
    'tensorboard --logdir': 'a server, which does not end',
    '--track wandb': 'packages of others; tests/base/test_trackers.py',
    '--record docs/records/loop_speed.json': 'an idle machine; tests/test_benchmark.py',
    'pip install efficientnet-lite0': 'a package; tests/test_predict.py runs it where that is installed',
    '>>> ': 'doctests; tests/docs/test_reference.py',
    'tests.engine.mesh_curves': 'half an hour; docs/records/mesh_curves.json',
    'cvresearch plan': 'compilers of other machines; tests/test_plan.py',
    'tests/peers/pytorch.py': 'PyTorch, and an idle machine',
    'tests.peers.first_step': 'an idle machine',
    'tests.kill_matrix': 'a quarter of an hour; tests/test_kill.py is a sample',
    '--on slurm': 'a cluster; tests/launch has a stand-in for each, docs/tutorials/a_sweep.md the rest',
    'python -m tests.ledger': 'tests/test_ledger.py',
    'cvresearch chain': 'hours; tests/launch/test_chain.py',
    'cvresearch sweep --config configs/lenet5_mnist5k.py': 'minutes; docs/tutorials/a_sweep.md',
    'config.init.weights=': 'weights of others, or hours; tests/engine/test_warm_start.py',
    'configs/folder.py:folds': 'minutes; tests/engine/test_own_data.py',
}
GIVEN = {  # what a reader fills in
    'NAME': 'run:runs/lenet5',
    'PHOTOGRAPH.jpg FOLDER': 'IMAGE.png PHOTOS',
    'DIR': 'runs/lenet5_mnist5k',
}
RUNS = ('lenet5', 'lenet5_mnist5k', 'resnet20', 'a', 'b', 'other')
SMALL = ['--config.max_steps=2', '--config.log_every_steps=1']


def excused(document: Path, block: Block) -> str:
    """Returns why a block is not run here, '' if it is."""
    return next((why for part, why in ELSEWHERE.items() if part in block.code or part == document.name), '')


def scene(folder: Path, runs: bool = True) -> None:
    """Makes a folder as a reader's: a clone with runs, a folder of photographs, a list of labels and a plugin."""
    pages.clone(folder)
    (folder / 'PHOTOS/cat').mkdir(parents=True)
    (folder / 'PHOTOS/dog').mkdir()
    rng = np.random.default_rng(0)
    for number in range(80):
        image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
        image.save(folder / f'PHOTOS/{("cat", "dog")[number % 2]}/{number}.png')
    shutil.copy(folder / 'PHOTOS/cat/0.png', folder / 'IMAGE.png')
    shutil.copy(folder / 'PHOTOS/cat/0.png', folder / 'photograph.png')
    rows = [f'{("cat", "dog")[n % 2]}/{n}.png,{("cat", "dog")[n % 2]},{("train", "test")[n > 59]}' for n in range(80)]
    (folder / 'labels.csv').write_text('\n'.join(['path,labels,split', *rows, '']))
    text = (ROOT / 'docs/own_images.md').read_text(encoding='utf-8')
    (folder / 'my_lab').mkdir()
    (folder / 'my_lab/nets.py').write_text(re.search(r'<!-- plugin example -->\n```python\n(.*?)```', text, re.S)[1])
    (folder / 'predictions.jsonl').write_text(json.dumps(dict(image='a.png', top=[dict(name='a', probability=0.5)])))
    if not runs:
        return
    with contextlib.chdir(folder):
        call('cvresearch', ['train', '--config', 'configs/lenet5_mnist5k.py', '--workdir', f'runs/{RUNS[0]}'])
    for name in RUNS[1:]:
        shutil.copytree(folder / 'runs' / RUNS[0], folder / 'runs' / name)


def config():
    """Returns a configuration as an experiment file fills it in."""
    c = configs.load('configs/resnet50.py')
    c.unlock()
    return c


def call(program: str, argv: list[str]) -> int:
    """Runs a command, a training for two steps, on images of its own where they are not there."""
    trains = (program == 'cvresearch' and argv[0] in ('train', 'doctor')) or argv[:2] == ['-m', 'cvresearch.main']
    if trains and not {'--extend', '--dry-run'} & set(argv):
        at = argv.index('--config') + 1
        file, _, given = argv[at].partition(':')
        if configs.load(argv[at]).data.name == 'imagenet':
            argv = [*argv[:at], f'{file}:{given},smoke' if given else f'{file}:smoke', *argv[at + 1 :]]
        argv = [*argv, *SMALL]
    return MAIN(program, argv)


MAIN = pages._main


def run(document: Path, folder: Path) -> int:
    """Runs the blocks of a document that are not excused; returns how many.

    Raises:
      RuntimeError: a shell block fails; the text is its output.
      Exception: as a Python block raises.
    """
    pages._main = call
    own = [
        block
        for block in pages.blocks(document)
        if block.language in ('bash', 'python') and not excused(document, block)
    ]
    if own:
        scene(folder, runs=document.name != 'README.md')  # which begins with nothing
    images = np.zeros((2, 28, 28, 1), np.uint8)
    names = {'__name__': '__main__', 'pixels': images, 'images': images, 'c': config()}
    with contextlib.chdir(folder):
        for language, code in own:
            for placeholder, value in GIVEN.items():
                code = re.sub(rf'(?<![\w/.]){placeholder}(?![\w/.])', value, code)
            if language == 'bash':
                pages._bash(code, folder)
            else:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(code, str(document), 'exec'), names)
    return len(own)


def main(argv: list[str]) -> int:
    """Runs documents; returns the exit code."""
    options = cli.parse(argv, __doc__, required=(), positional='documents')
    for document in [Path(name).resolve() for name in options.rest] or DOCUMENTS:
        with tempfile.TemporaryDirectory() as folder:
            print(f'{document.name}: {run(document, Path(folder))} blocks ran', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
