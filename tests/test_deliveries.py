"""Re-deliveries of a tile: cut from its own surroundings, and changed as their names say."""

import numpy as np
import pytest

from apn.crops import crop, tile_corners
from apn.deliveries import DELIVERIES, deliver, window

SIZE = 48  # its window is 64


def picture(height: int, width: int) -> np.ndarray:
    """Smooth, so that codecs and resizing change it little; no two pixels alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows % 256, columns % 256, (rows + columns) // 2 % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [((50, 60), (42, 106), (52, 116)), ((0, 3), (0, 64), (0, 64)), ((152, 200), (136, 200), (186, 250))],
)
def test_a_window_surrounds_its_tile_and_stays_inside(corner, rows, columns) -> None:
    pixels = picture(200, 250)
    assert (window(pixels, corner, SIZE) == pixels[slice(*rows), slice(*columns)]).all()


@pytest.mark.parametrize("shape", [(200, 250), (48, 48), (20, 300), (1, 1)])
def test_every_delivery_has_every_tile(shape) -> None:
    corners = tile_corners(*shape, SIZE)
    delivered = deliver(picture(*shape), corners, SIZE)
    assert [(tiles.shape, tiles.dtype) for tiles in delivered] == [((len(corners), SIZE, SIZE, 3), np.uint8)] * 4


def test_deliveries_do_what_they_say() -> None:
    pixels, (top, left) = picture(200, 250), (50, 60)
    jpeg, webp, resized, shifted = (tiles[0].astype(int) for tiles in deliver(pixels, [(top, left)], SIZE))
    tile = crop(pixels, top, left, SIZE).astype(int)
    for codec in (jpeg, webp):
        assert 0 < np.abs(codec - tile).mean() < 3
    assert np.diff(resized[..., 0], axis=0).mean() == pytest.approx(1 / 0.75, abs=0.05)  # a ramp that rises faster
    steps = shifted - tile  # both ramps rise by 1 a pixel, so the difference is how far the tile moved
    assert (np.unique(steps[..., 0]).size, np.unique(steps[..., 1]).size) == (1, 1)
    assert (steps[0, 0, :2] > 0).all()


def test_tiles_do_not_see_what_is_outside_their_windows() -> None:
    pixels = picture(200, 250)
    other = pixels.copy()
    other[:42], other[106:], other[:, :52], other[:, 116:] = 0, 0, 0, 0
    for one, two in zip(deliver(pixels, [(50, 60)], SIZE), deliver(other, [(50, 60)], SIZE), strict=True):
        assert (one == two).all()
    assert list(DELIVERIES) == ["JPEG 75", "WebP 80", "resize x0.75", "shift 3, 5"]
