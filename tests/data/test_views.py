"""Crops checked pixel by pixel: on a coordinate image every pixel says where it comes from."""

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import views


def coordinates(height, width):
    """Returns an image whose pixel at (row, column) is (row mod 256, column mod 256, high bits of both)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], -1).astype(np.uint8)


def place(view):
    """Returns the (row, column) of a view's four corners, and whether all between is in order, from its pixels."""
    row = view[..., 0].astype(int) + 256 * (view[..., 2].astype(int) // 16)
    column = view[..., 1].astype(int) + 256 * (view[..., 2].astype(int) % 16)
    step = 1 if column[0, 1] > column[0, 0] else -1
    assert (np.diff(row, axis=0) == 1).all() and (np.diff(row, axis=1) == 0).all()
    assert (np.diff(column, axis=1) == step).all() and (np.diff(column, axis=0) == 0).all()
    left, right = sorted((column[0, 0], column[0, -1]))
    return row[0, 0], left, row[-1, 0] - row[0, 0] + 1, right - left + 1, step < 0


def places(image, wanted):
    return [place(view) for view in views.cut(image, wanted)]


def both(boxes):
    return [(*box, 224, 224, flip) for flip in (False, True) for box in boxes]


def test_centre_crop():
    assert places(coordinates(256, 341), views.centre((256, 341), 224, 256)) == [(16, 58, 224, 224, False)]


def test_ten_crops_of_the_central_square():
    # Of 256 x 300 the square begins at column 22.
    expected = both([(0, 22), (0, 54), (32, 22), (32, 54), (16, 38)])
    assert places(coordinates(256, 300), views.ten((256, 300), 224, 256)) == expected


def test_ten_crops_of_the_whole_image():
    expected = both([(0, 0), (0, 76), (32, 0), (32, 76), (16, 38)])
    assert places(coordinates(256, 300), views.ten((256, 300), 224, 256, square=False)) == expected


@pytest.mark.parametrize('upright', [False, True])
@pytest.mark.parametrize(('scale', 'sevenths'), [(0, 8), (1, 9), (2, 10), (3, 11)])
def test_googlenets_144_crops(scale, sevenths, upright):
    # An image already of the scale's size, so that nothing is resized but the whole squares.
    short, long = 32 * sevenths, 32 * sevenths + 100
    size = (long, short) if upright else (short, long)
    found = views.hundred_and_forty_four(size, 224)
    assert len(found) == len(set(found)) == 144
    ours = [view for view in found if view.resized == size]
    assert len(ours) == 36
    small = [view for view in ours if view.box[2:] == (224, 224)]
    spare = short - 224
    square = [(0, 0), (0, spare), (spare, 0), (spare, spare), (spare // 2, spare // 2)]
    offsets = [(o, 0) if upright else (0, o) for o in (0, 50, 100)]
    assert places(coordinates(*size), small) == both([(t + o[0], s + o[1]) for o in offsets for t, s in square])
    squares = [view for view in ours if view.box[2:] != (224, 224)]
    assert [view.box for view in squares] == 2 * [(*o, short, short) for o in offsets]
    assert all(view.out == (224, 224) for view in squares)
    assert {view.shape for view in views.cut(coordinates(*size), found)} == {(224, 224, 3)}


def test_vggs_150_crops():
    found = views.grid((256, 384), 224, (256, 384, 512))
    assert len(found) == len(set(found)) == 150
    ours = [view for view in found if view.resized == (256, 384)]
    expected = both([(top, left) for top in (0, 8, 16, 24, 32) for left in (0, 40, 80, 120, 160)])
    assert places(coordinates(256, 384), ours) == expected
    assert {view.resized for view in found} == {(256, 384), (384, 576), (512, 768)}


def test_whole_images_keep_their_ratio():
    found = views.whole((375, 500), (224, 256))
    assert [(view.out, view.flip) for view in found] == [
        ((224, 298), False),
        ((256, 341), False),
        ((224, 298), True),
        ((256, 341), True),
    ]
    image = coordinates(224, 298)
    assert place(views.cut(image, views.whole((224, 298), (224,)))[1]) == (0, 0, 224, 298, True)


def test_inceptions_crop_is_the_middle_seven_eighths_squashed():
    (view,) = views.squashed((400, 640), 299)
    assert view == views.View((400, 640), (25, 40, 350, 560), (299, 299))
    assert place(views.cut(coordinates(400, 640), [views.View((400, 640), view.box, (350, 560))])[0]) == (
        25, 40, 350, 560, False,
    )  # fmt: skip


def test_resizing_is_pillows_and_keeps_one_channel():
    image = coordinates(60, 90)[..., :1]
    assert views.resize(image, (40, 60), 'bicubic').shape == (40, 60, 1)
    assert views.scaled(224, 8) == 256 and views.scaled(28, 8) == 32 and views.scaled(299, 8) == 342


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match='does not fit'):
        views.cut(coordinates(100, 100), views.centre((100, 100), 224, 200))
