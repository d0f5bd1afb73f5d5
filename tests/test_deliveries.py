"""Re-deliveries of a tile: cut from its own surroundings, and changed as their names say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apn.crops import crop, tile_corners
from apn.deliveries import DELIVERIES, GRID, deliver, window

SIZE = 48  # its window is 64


def picture(height: int, width: int) -> np.ndarray:
    """Smooth, so that codecs and resizing change it little; no two pixels alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows % 256, columns % 256, (rows + columns) // 2 % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("corner", "rows", "columns"),
    [((50, 60), (32, 112), (48, 128)), ((0, 3), (0, 80), (0, 80)), ((152, 200), (128, 200), (176, 250))],
)
def test_a_window_surrounds_its_tile_begins_on_the_grid_and_stays_inside(corner, rows, columns) -> None:
    assert window(200, 250, corner, SIZE) == (slice(*rows), slice(*columns))


@given(st.integers(1, 300), st.integers(1, 300))
def test_every_tile_lies_in_its_window(height: int, width: int) -> None:
    for corner in tile_corners(height, width, SIZE):
        for at, n, span in zip(corner, (height, width), window(height, width, corner, SIZE), strict=True):
            assert span.start % GRID == 0
            assert 0 <= span.start < span.stop <= n
            if min(height, width) >= SIZE:  # else the picture is repeated in its tiles
                assert span.start <= at
                assert at + SIZE <= span.stop


def test_what_was_saved_in_one_way_stays_what_it_is() -> None:
    """A JPEG of quality 75 that is delivered as one: saved again in the same blocks, wherever the tile lies."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 250, 3), dtype=np.uint8)
    once = DELIVERIES["JPEG 75"](picture(200, 250) // 2 + 40 + noise // 8)
    corners = tile_corners(200, 250, SIZE)
    again = deliver(once, corners, SIZE)[list(DELIVERIES).index("JPEG 75")].astype(int)
    tiles = np.stack([crop(once, *corner, SIZE) for corner in corners]).astype(int)
    assert np.abs(again - tiles).mean() < 0.5
    elsewhere = deliver(once[3:, 5:], [(0, 0)], SIZE)[0][0].astype(int)
    assert np.abs(elsewhere - crop(once[3:, 5:], 0, 0, SIZE)).mean() > 2


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
    assert (np.unique(steps[..., 0]), np.unique(steps[..., 1])) == (3, 5)


def test_tiles_do_not_see_what_is_outside_their_windows() -> None:
    pixels = picture(200, 250)
    other = pixels.copy()
    other[:32], other[112:], other[:, :48], other[:, 128:] = 0, 0, 0, 0
    for one, two in zip(deliver(pixels, [(50, 60)], SIZE), deliver(other, [(50, 60)], SIZE), strict=True):
        assert (one == two).all()
    assert list(DELIVERIES) == ["JPEG 75", "WebP 80", "resize x0.75", "shift 3, 5"]
