"""The wrap rule against the official numbers, and properties of crops and tiles for any picture size."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apn.crops import canvas_size, center_crop, crop, crops_at, random_crop, tile_corners

GOLDEN = np.load(Path(__file__).parent / "golden" / "official_center_crop.npz")
EXTREME_SIZES = [(1, 1), (1, 5000), (20000, 3), (223, 224), (224, 223), (1, 224), (1000, 1500)]


def counting_picture(height: int, width: int) -> np.ndarray:
    return (np.arange(height * width * 3) % 251).reshape(height, width, 3).astype(np.uint8)


def built_canvas(pixels: np.ndarray, size: int) -> np.ndarray:
    """The rule read literally: repeat the picture, cut the canvas."""
    height, width = canvas_size(*pixels.shape[:2], size)
    repeats = (-(-height // pixels.shape[0]), -(-width // pixels.shape[1]), 1)
    return np.tile(pixels, repeats)[:height, :width]


@pytest.mark.parametrize("key", GOLDEN.files)
def test_center_crop_equals_the_official_one(key: str) -> None:
    height, width = map(int, key.split("x"))
    np.testing.assert_array_equal(center_crop(counting_picture(height, width)), GOLDEN[key])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**32))
def test_every_crop_is_a_window_of_the_canvas(height: int, width: int, size: int, seed: int) -> None:
    picture = counting_picture(height, width)
    canvas = built_canvas(picture, size)
    rng = np.random.default_rng(seed)
    top, left = (int(rng.integers(side - size + 1)) for side in canvas.shape[:2])
    np.testing.assert_array_equal(crop(picture, top, left, size), canvas[top : top + size, left : left + size])
    assert random_crop(picture, size, rng).shape == (size, size, 3)


def test_random_crops_reach_every_corner() -> None:
    picture = np.arange(9, dtype=np.uint8).reshape(3, 3)
    rng = np.random.default_rng(0)
    assert {int(random_crop(picture, 2, rng)[0, 0]) for _ in range(100)} == {0, 1, 3, 4}


def test_a_crop_never_shares_memory_with_the_picture() -> None:
    picture = counting_picture(224, 224)
    assert not np.shares_memory(center_crop(picture), picture)


@pytest.mark.parametrize(("height", "width"), EXTREME_SIZES)
def test_extreme_sizes_give_a_full_crop(height: int, width: int) -> None:
    picture = counting_picture(height, width)
    crops = [center_crop(picture), *(crop(picture, top, left) for top, left in tile_corners(height, width))]
    assert {c.shape for c in crops} == {(224, 224, 3)}
    assert min(canvas_size(height, width)) >= 224
    np.testing.assert_array_equal(crops_at(picture, tile_corners(height, width)), crops[1:])


@given(st.integers(1, 30000), st.integers(1, 30000), st.integers(1, 5))
def test_tiles_stay_inside_and_span_the_canvas(height: int, width: int, most: int) -> None:
    canvas = canvas_size(height, width)
    corners = tile_corners(height, width, 224, most)
    assert len(set(corners)) == len(corners) <= most**2
    for side, starts in zip(canvas, map(sorted, map(set, zip(*corners, strict=True))), strict=True):
        assert len(starts) == min(max(round(side / 224), 1), most)
        if len(starts) == 1:
            assert starts == [(side - 224) // 2]
        else:
            assert (starts[0], starts[-1]) == (0, side - 224)
            gaps = np.diff(starts)
            assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (224, 224, [(0, 0)]),
        (300, 227, [(38, 1)]),
        (224, 448, [(0, 0), (0, 224)]),
        (672, 300, [(0, 38), (224, 38), (448, 38)]),
        (100, 180, [(0, 0), (0, 180)]),  # canvas 224 x 404
    ],
)
def test_tile_corners_by_hand(height: int, width: int, expected: list[tuple[int, int]]) -> None:
    assert tile_corners(height, width) == expected


def test_errors_quote_what_was_found() -> None:
    picture = counting_picture(10, 20)
    with pytest.raises(ValueError, match=r"8 x 8 crop inside the 10 x 20 canvas .* row 3, column 0"):
        crop(picture, 3, 0, 8)
    with pytest.raises(ValueError, match="row -1"):
        crop(picture, -1, 0, 8)
    with pytest.raises(ValueError, match="0 x 5"):
        canvas_size(0, 5)
    with pytest.raises(ValueError, match=r"\(7,\)"):
        center_crop(np.zeros(7, np.uint8))
    with pytest.raises(ValueError, match="found 0"):
        tile_corners(300, 300, 224, 0)
