"""The box of a photograph that a net sees, against a ramp that is prepared as a photograph is."""

import numpy as np
import pytest

from cvresearch.data import crops
from cvresearch.data.preparation import AsEvaluated
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.data.transforms import Transform

MEAN = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SIZE = (180, 250)


@pytest.mark.parametrize(
    'preparation',
    [
        Preprocessing(crop=96, resize=128, **MEAN),
        Preprocessing(crop=96, resize=128, squash=True, **MEAN),
        Preprocessing(crop=96, resize=96, channels='L', mean=(0.0,), std=(1.0,)),
        AsEvaluated(Transform(crop=crops.ResizeCenterCrop(96, 128)), **MEAN),
        AsEvaluated(Transform(crop=crops.CenterCropResize(96, 32)), **MEAN),
        AsEvaluated(Transform(crop=crops.Resize(96)), **MEAN),
    ],
)
@pytest.mark.parametrize('axis', [0, 1])
def test_the_ends_of_a_ramp(preparation, axis):
    ramp = np.arange(SIZE[axis], dtype=np.uint8)  # a level a pixel
    image = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, SIZE)
    seen = preparation.pixels(np.repeat(image[..., None], 3, -1))[..., 0]
    level = np.moveaxis(seen, axis, 0).mean(1)
    slope, offset = np.polyfit(np.arange(96)[4:-4] + 0.5, level[4:-4], 1)
    box = preparation.seen(SIZE)
    assert box[axis] == pytest.approx(offset + 0.5, abs=0.3) and box[axis + 2] == pytest.approx(96 * slope, abs=0.3)


def test_a_border_is_seen_beyond_the_photograph():
    """By hand: 180 x 250 becomes 69 x 96, so that a crop of 96 has 13 rows of border above and 14 below."""
    preparation = Preprocessing(crop=96, resize=96, border=True, mean=(0.2, 0.4, 0.6), std=(1.0,) * 3)
    seen = preparation.pixels(np.full((*SIZE, 3), 200, np.uint8))
    assert (seen[13:82] == 200).all() and (seen[:13] == (51, 102, 153)).all() and (seen[82:] == (51, 102, 153)).all()
    assert preparation.seen(SIZE) == pytest.approx((-13 * 180 / 69, 0, 96 * 180 / 69, 250))
