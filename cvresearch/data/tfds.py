"""Datasets that TensorFlow Datasets has prepared, read by random access without TensorFlow.

Preparing one needs TensorFlow, once, on any machine; it must be done in a format with random access:

    import tensorflow_datasets as tfds
    tfds.builder('imagenet2012', data_dir=DIR, file_format='array_record').download_and_prepare()

for which ILSVRC's two tars lie in DIR/downloads/manual/.
"""

from typing import Any, cast

from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.data.examples import IMAGENET_MEAN, IMAGENET_STD, Example, Facts, Source

DETAILS = (
    'To prepare it (with TensorFlow, once, on any machine):',
    '    import tensorflow_datasets as tfds',
    "    tfds.builder(DATASET, data_dir=DIR, file_format='array_record').download_and_prepare()",
    'and set --config.data.data_dir=DIR. What runs now, without it: the same command with :smoke after the name of',
    'the config file, and --config configs/lenet5_mnist5k.py (bundled data).',
)


def tfds(dataset: str = 'imagenet2012', data_dir: str = '', train: str = 'train', test: str = '') -> Source:
    """A dataset prepared by TensorFlow Datasets, as ArrayRecord.

    Args:
      dataset: its name there, with a configuration and a version if wanted: 'imagenet_v2/matched-frequency:3.0.0'.
      data_dir: where it was prepared; ~/tensorflow_datasets by default.
      train: the split to train on, 'train' or a part such as 'train[:90%]'; '' for none.
      test: the split to evaluate; 'test' or 'validation', whichever there is, by default.

    Raises:
      UserError: it is not prepared, its features are not an image and a label, or `data_dir` is no path of this
        machine.
    """
    folder = str(local(data_dir, 'config.data.data_dir')) if data_dir else None
    import tensorflow_datasets as library

    try:
        builder = cast(Any, library.builder(dataset, data_dir=folder, try_gcs=False))
    except Exception as error:  # the package has many errors for a name that it does not know
        raise UserError(f'tfds {dataset!r}: {type(error).__name__}: {str(error).splitlines()[0]}') from error
    features = builder.info.features or {}
    if not {'image', 'label'} <= set(features):
        raise UserError(f'tfds {dataset!r} has the features {sorted(features)}; expected image and label')
    # The test split of ImageNet has no labels.
    usual = ('validation', 'test') if builder.info.name == 'imagenet2012' else ('test', 'validation')
    test = test or next((name for name in usual if name in builder.info.splits), 'test')
    decoders = {'image': library.decode.SkipDecoding()}
    splits = {}
    for name, split in (('train', train), ('test', test)):
        if split:
            try:
                rows = builder.as_data_source(split, decoders=decoders)
                splits[name] = Records(rows, f'{builder.info.full_name}, {split}, {len(rows)} examples')
            except Exception as error:
                reason = f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'
                raise UserError(f'tfds {dataset!r}, split {split!r}: {reason}', DETAILS) from error
    names = tuple(features['label'].names or map(str, range(features['label'].num_classes)))
    return Source(Facts(builder.info.name, names, (224, 224, 3), IMAGENET_MEAN, IMAGENET_STD), splits, True)


class Records:
    """Examples of a `tfds.data_source`; the image is the bytes of its file.

    Attributes:
      stamp: what determines the examples: the dataset with its configuration and version, and the split.
    """

    def __init__(self, source, stamp: str):
        self._source, self.stamp = source, stamp

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        row = self._source[int(index)]
        name = row.get('file_name', b'')
        return Example(bytes(row['image']), int(row['label']), name.decode() if name else str(index))
