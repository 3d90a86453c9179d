"""ILSVRC's tars, in small, prepared by TensorFlow Datasets and read back without TensorFlow: equal to the tars.

Preparing needs a Python with tensorflow and tensorflow-datasets: this one, or that of the environment variable
CVRESEARCH_TENSORFLOW_PYTHON. Without any the test is skipped, with a line that says so.
"""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import imagenet, tfds
from tests.data.photographs import ilsvrc

PREPARE = """
import sys
import tensorflow_datasets as tfds
tfds.core.utils.gcs_utils._is_gcs_disabled = True
tfds.builder('imagenet2012', data_dir=sys.argv[1], file_format='array_record').download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[2]))
"""
READ = """
import sys
from cvresearch.data.tfds import tfds
for split, examples in tfds('imagenet2012', sys.argv[1]).splits.items():
    for number in range(len(examples)):
        image, label, name = examples[number]
        print(split, name, label, image.hex())
sys.exit('tensorflow' in sys.modules)
"""


def python_with_tensorflow(capsys):
    """Returns a Python that can prepare, or skips."""
    named = os.environ.get('CVRESEARCH_TENSORFLOW_PYTHON')
    if named or importlib.util.find_spec('tensorflow'):
        return named or sys.executable
    with capsys.disabled():
        print('\nNOT TESTED: TFDS against the tars, as there is no TensorFlow (set CVRESEARCH_TENSORFLOW_PYTHON)')
    pytest.skip('no TensorFlow')


def test_imagenet2012_of_tfds_equals_the_tars_item_by_item(tmp_path, capsys, monkeypatch):
    python = python_with_tensorflow(capsys)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '2')
    ilsvrc(tmp_path / 'tars')
    subprocess.run([python, '-c', PREPARE, str(tmp_path / 'tfds'), str(tmp_path / 'tars')], check=True)
    done = subprocess.run([sys.executable, '-c', READ, str(tmp_path / 'tfds')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # and TensorFlow was not imported
    theirs = sorted(line.split() for line in done.stdout.splitlines())
    splits = imagenet.imagenet(str(tmp_path / 'tars')).splits
    ours = sorted(
        [split, example.id, str(int(example.label)), example.image.hex()]
        for split, examples in splits.items()
        for example in (examples[number] for number in np.arange(len(examples)))
    )
    assert len(ours) == 18 and ours == theirs


def test_a_dataset_that_was_not_prepared_says_how(tmp_path):
    with pytest.raises(UserError) as error:
        tfds.tfds('imagenet2012', str(tmp_path))
    assert 'download_and_prepare' in '\n'.join(error.value.details)
    with pytest.raises(UserError, match="tfds 'imagenet2013'"):
        tfds.tfds('imagenet2013', str(tmp_path))
