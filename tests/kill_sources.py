"""A source of the kill matrix that the project has not: images in memory, with two labels each."""

import dataclasses

import numpy as np

from cvresearch.data.bundled import fake
from cvresearch.data.examples import Arrays, Source


def fake_several(train: int = 128, test: int = 32) -> Source:
    """Grey images of 8 x 8 pixels in ten classes; each also has the label of the next class."""
    plain = fake(image_size=8, channels=1, train=train, test=test)
    facts = dataclasses.replace(plain.facts, name='fake_several', multi_label=True)
    splits = {}
    for name, examples in plain.splits.items():
        images, labels = examples.take(np.arange(len(examples)))
        splits[name] = Arrays(images, np.stack([labels, (labels + 1) % 10], 1))
    return Source(facts, splits)


SOURCES = {'fake_several': fake_several}
