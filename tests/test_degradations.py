"""Degradations: contracts of every cell, closed forms, damage that grows with the level, the same pixels every time."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from apn import degradations
from apn.data import transforms
from apn.degradations import GRID, Cell, cells, degrade
from apn.image import load_image

ALL_CELLS = cells()
SAME_SIZE = {"jpeg", "webp", "avif", "blur", "noise", "grey", "gamma_bright", "gamma_dark"}
SAME_SIZE |= {"paper_low_resolution", "paper_jpeg", "paper_blur"}


def picture(height: int = 120, width: int = 150, seed: int = 0) -> np.ndarray:
    """Waves with grain: something to lose at every level."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([128 + 90 * np.sin(rows / 7 + c) * np.cos(columns / (5 + c)) for c in range(3)], -1)
    grain = np.random.default_rng(seed).normal(0, 12, waves.shape)
    return np.clip(waves + grain, 0, 255).astype(np.uint8)


def psnr(reference: np.ndarray, changed: np.ndarray) -> float:
    """In dB, after bringing `changed` back to the reference's size."""
    if changed.shape != reference.shape:
        changed = transforms.resize(changed, reference.shape[:2])
    return float(peak_signal_noise_ratio(reference, changed))


def test_the_first_cell_is_the_clean_image_itself() -> None:
    pixels = picture()
    assert ALL_CELLS[0] == Cell("", None)
    assert degrade(pixels, ALL_CELLS[0], "any") is pixels


def test_the_grid_has_what_issue_and_papers_ask_for() -> None:
    assert GRID["jpeg"].levels == (95, 85, 75, 60, 45, 30)
    assert {name: GRID[name].levels for name in GRID if name.startswith("paper_")} == {
        "paper_low_resolution": (112, 64),
        "paper_jpeg": (65, 30),
        "paper_blur": (3, 5),
    }
    assert len(ALL_CELLS) == 1 + sum(len(row.levels) for row in GRID.values())
    assert len(set(ALL_CELLS)) == len(ALL_CELLS)


@pytest.mark.parametrize("cell", ALL_CELLS[1:], ids=lambda cell: f"{cell.degradation}-{cell.level}")
def test_every_cell_gives_new_rgb_bytes_and_leaves_its_input_alone(cell: Cell) -> None:
    pixels = picture(72, 90)
    before = pixels.copy()
    changed = degrade(pixels, cell, "a.png")
    assert (changed.dtype, changed.ndim, changed.shape[2]) == (np.uint8, 3, 3)
    assert not np.shares_memory(changed, pixels)
    np.testing.assert_array_equal(pixels, before)
    if cell.degradation in SAME_SIZE:
        assert changed.shape == pixels.shape
    if cell.degradation != "paper_low_resolution" or cell.level < 72:
        assert changed.shape != pixels.shape or (changed != pixels).any()
    np.testing.assert_array_equal(degrade(pixels, cell, "a.png"), changed)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(ALL_CELLS))
def test_pictures_of_any_size_come_through(height: int, width: int, cell: Cell) -> None:
    changed = degrade(picture(height, width), cell, "tiny")
    assert changed.dtype == np.uint8
    assert min(changed.shape) >= 1


@pytest.mark.parametrize("name", sorted(GRID.keys() - {"crop", "shift", "screenshot"}))
def test_damage_grows_with_the_level(name: str) -> None:
    """PSNR falls; of the clean image it is infinite. Cut and framed pictures have no pixel to compare."""
    pixels = picture()
    values = [psnr(pixels, degrade(pixels, Cell(name, level), "a.png")) for level in GRID[name].levels]
    if name == "resize_up":  # scaling back is almost lossless, whatever the factor
        assert min(values) > 30
        return
    assert all(milder > harder for milder, harder in pairwise(values)), values
    assert values[0] < 60


@pytest.mark.parametrize(("name", "codec"), [("jpeg", "JPEG"), ("paper_jpeg", "JPEG")])
def test_jpeg_quality_is_the_one_in_the_quantisation_tables(
    monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    saved: list[bytes] = []
    save = Image.Image.save

    def spy(image: Image.Image, file: io.BytesIO, *rest: object, **options: object) -> None:
        save(image, file, *rest, **options)
        saved.append(file.getvalue())

    monkeypatch.setattr(Image.Image, "save", spy)
    for level in GRID[name].levels:
        degrade(picture(32, 32), Cell(name, level), "a.png")
    loaded = [load_image(data) for data in saved]
    assert [image.format for image in loaded] == [codec] * len(GRID[name].levels)
    assert [image.quality for image in loaded] == list(GRID[name].levels)


def test_noise_has_the_standard_deviation_asked_for_and_the_same_pattern_at_all_levels() -> None:
    middle = np.full((200, 200, 3), 128, np.uint8)
    residuals = {}
    for sigma in GRID["noise"].levels:
        residuals[sigma] = degrade(middle, Cell("noise", sigma), "a.png").astype(float) - 128
        expected = np.sqrt(sigma**2 + 1 / 12)  # rounding to whole grey values
        assert residuals[sigma].std() == pytest.approx(expected, rel=0.01)
        assert residuals[sigma].mean() == pytest.approx(0, abs=0.1)
    correlation = np.corrcoef(residuals[5].ravel(), residuals[20].ravel())[0, 1]
    assert correlation > 0.99


def test_noise_depends_on_path_and_degradation_alone() -> None:
    pixels = np.full((16, 16, 3), 128, np.uint8)
    one, other = (degrade(pixels, Cell("noise", 10), path) for path in ("a.png", "b.png"))
    assert (one != other).any()
    np.testing.assert_array_equal(one, degrade(pixels, Cell("noise", 10), "a.png"))
    assert degrade(pixels, Cell("noise", 10), "\udcff.png").shape == pixels.shape  # a name that is not UTF-8


def test_resizes_and_crops_have_the_size_they_say() -> None:
    pixels = picture(100, 160)
    for name in ("resize_down", "resize_up", "crop"):
        for level in GRID[name].levels:
            changed = degrade(pixels, Cell(name, level), "")
            assert changed.shape == (round(100 * level), round(160 * level), 3)
    np.testing.assert_array_equal(degradations.crop_share(pixels, 0.5), pixels[25:75, 40:120])
    np.testing.assert_array_equal(degrade(pixels, Cell("shift", 4), ""), pixels[4:, 4:])


def test_grey_is_pillows_and_half_of_it_lies_half_way() -> None:
    pixels = picture(20, 30)
    luma = np.array(Image.fromarray(pixels).convert("L")).astype(int)
    full = degrade(pixels, Cell("grey", 1), "").astype(int)
    assert np.abs(full - luma[..., None]).max() <= 1  # Pillow rounds its weights
    assert (full.min(axis=2) == full.max(axis=2)).all()
    half = degrade(pixels, Cell("grey", 0.5), "").astype(float)
    assert np.abs(half - (pixels + full) / 2).max() <= 1


def test_gamma_keeps_black_and_white_and_moves_the_middle_as_the_power_law_says() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for exponent in (0.5, 2.0):
        out = degradations.gamma(ramp, exponent)[0, :, 0]
        np.testing.assert_array_equal(out, np.rint(255 * (np.arange(256) / 255) ** exponent))
        assert (out[0], out[255]) == (0, 255)
    assert degradations.gamma(ramp, 0.5)[0, 64, 0] > 64 > degradations.gamma(ramp, 2.0)[0, 64, 0]


def test_a_screenshot_frames_the_scaled_picture_with_flat_bars() -> None:
    pixels = picture(120, 150)
    shot = degradations.screenshot(pixels, 0.5)
    assert shot.shape == (5 + 60 + 4, 75, 3)  # 60 / 12 and ceil(60 / 16)
    assert len(np.unique(shot[:5].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(shot[-4:].reshape(-1, 3), axis=0)) == 1
    np.testing.assert_array_equal(shot[5:-4], degradations.rescale(pixels, 0.5))


def test_a_chain_shrinks_saves_shrinks_and_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int, tuple[int, ...]]] = []
    for name in ("jpeg", "webp"):
        monkeypatch.setattr(
            transforms, name, lambda p, quality, name=name: calls.append((name, quality, p.shape[:2])) or p
        )
    degrade(picture(100, 200), Cell("social", 3), "")
    assert calls == [("jpeg", 60, (50, 100)), ("webp", 60, (45, 90))]
    calls.clear()
    degrade(np.zeros((16, 4096, 3), np.uint8), Cell("social", 1), "")  # first to 2048 pixels, the longest side kept
    assert [shape[1] for _, _, shape in calls] == [round(2048 * 0.9), round(round(2048 * 0.9) * 0.95)]


def test_low_resolution_loses_what_is_finer_than_its_side() -> None:
    stripes = np.zeros((224, 224, 3), np.uint8)
    stripes[:, ::2] = 255  # 112 pairs of lines: 112 pixels cannot show them
    assert degradations.low_resolution(stripes, 112).std() < 0.1 * stripes.std()
    small = picture(50, 60)
    np.testing.assert_array_equal(degradations.low_resolution(small, 112), small)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no degradation jpg: expected some of jpeg, webp, avif"):
        cells(["jpg"])
    assert [cell.level for cell in cells(["blur"])] == [None, 0.5, 1, 2, 3]
