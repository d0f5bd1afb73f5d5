"""Transforms: sizes, closed forms, determinism, and that what is random does not look at the picture."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from apn.crops import center_crop, random_crop
from apn.data import transforms
from apn.data.transforms import (
    AlignedTransform,
    CentreTransform,
    DegradationConfig,
    DeliveredTransform,
    GridsTransform,
    NativeTransform,
    TrainTransform,
    blur,
    flip,
    jpeg,
    resize,
    webp,
)

PLAIN = DegradationConfig(flip=0, codec_last="none")
EVERYTHING = DegradationConfig(downscale=1, flip=1, blur=1, jpeg=1, webp=1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 80 * np.sin(rows / 9 + c) * np.cos(columns / (11 + c)) for c in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def grid_strength(pixels: np.ndarray) -> np.ndarray:
    """(8,) mean step between neighbouring columns, by the column's phase in an 8-pixel grid."""
    steps = np.abs(np.diff(pixels.astype(float), axis=1)).mean(axis=(0, 2))
    return np.array([steps[phase::8].mean() for phase in range(8)])


@pytest.mark.parametrize("codec", [jpeg, webp])
def test_codecs_lose_more_at_lower_quality(codec: Any) -> None:
    picture = smooth(64, 48)
    errors = [error(codec(picture, quality), picture) for quality in (100, 75, 10)]
    assert errors == sorted(errors)
    assert errors[0] < 2.5 < errors[2]
    assert codec(picture, 50).shape == picture.shape


def test_jpeg_is_pillows_with_the_subsampling_asked_for() -> None:
    picture = noise(32, 32)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=80, subsampling="4:4:4")
    np.testing.assert_array_equal(jpeg(picture, 80, "4:4:4"), np.array(Image.open(file)))
    assert error(jpeg(picture, 80, "4:4:4"), picture) < error(jpeg(picture, 80, "4:2:0"), picture)


def test_blur_has_the_standard_deviation_asked_for() -> None:
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    for sigma in (1.0, 2.0):
        # A white line, so that eight bits are enough to measure the spread across it.
        line = np.zeros((41, 41, 3), np.uint8)
        line[:, 20] = 255
        profile = blur(line, sigma)[20, :, 0].astype(float)
        spread = np.sqrt((profile * (np.arange(41) - 20) ** 2).sum() / profile.sum())
        assert spread == pytest.approx(sigma, rel=0.06)
    np.testing.assert_array_equal(blur(np.full((9, 9, 3), 77, np.uint8), 3.0), 77)


def test_flip_is_its_own_inverse() -> None:
    picture = noise(5, 7)
    np.testing.assert_array_equal(flip(flip(picture)), picture)
    np.testing.assert_array_equal(flip(picture)[:, 0], picture[:, -1])


def test_resize_keeps_the_mean_of_a_smooth_picture() -> None:
    assert resize(smooth(64, 64), 32).shape == (32, 32, 3)
    assert resize(smooth(64, 64), 32).mean() == pytest.approx(smooth(64, 64).mean(), abs=1)


def test_without_degradations_training_sees_a_native_crop() -> None:
    picture = noise(50, 70)
    crop = TrainTransform(PLAIN, 32)(picture, rng(3))
    windows = np.lib.stride_tricks.sliding_window_view(picture, (32, 32), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    assert (windows == crop).all(axis=(2, 3, 4)).sum() == 1


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**63 - 1), st.booleans(), st.booleans())
def test_a_training_crop_is_a_pure_function_of_pixels_and_seed(
    height: int, width: int, seed: int, back: bool, one_of: bool
) -> None:
    picture = noise(height, width)
    before = picture.copy()
    transform = TrainTransform(EVERYTHING.model_copy(update={"downscale_back": back, "one_of": one_of}), 32)
    crop = transform(picture, rng(seed))
    assert (crop.shape, crop.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(crop, transform(picture, rng(seed)))
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("codec_last", ["jpeg", "mixed"])
def test_every_crop_ends_in_one_lottery_of_codecs(monkeypatch: pytest.MonkeyPatch, codec_last: Any) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(transforms, "jpeg", lambda p, *options: calls.append(("jpeg", *options)) or p)
    monkeypatch.setattr(transforms, "webp", lambda p, *options: calls.append(("webp", *options)) or p)
    transform = TrainTransform(DegradationConfig(codec_last=codec_last, codec_last_quality=(70, 90)), 16)
    runs = []
    for picture in (noise(64, 64), smooth(20, 90)):
        calls.clear()
        for seed in range(600):
            transform(picture, rng(seed))
        assert len(calls) == 600  # exactly one codec each
        runs.append(calls.copy())
    for run in runs:
        qualities = [quality for _, quality, *_ in run]
        assert (min(qualities), max(qualities)) == (70, 90)
        assert np.mean(qualities) == pytest.approx(80, abs=1)
        share = np.mean([codec == "jpeg" for codec, *_ in run])
        assert share == (1 if codec_last == "jpeg" else pytest.approx(0.5, abs=0.08))
        fine = np.mean([options[1] == "4:4:4" for codec, *options in run if codec == "jpeg"])
        assert fine == pytest.approx(0.5, abs=0.1)


def test_the_last_codec_puts_the_grid_at_the_crops_corner() -> None:
    """A photograph's own JPEG grid lies at a random phase after the crop; the last codec's is the same for all."""
    photograph = jpeg(smooth(96, 96) // 2 + noise(96, 96) // 4, 10)
    shifted = [random_crop(photograph, 64, rng(seed)) for seed in range(12)]
    assert len({int(grid_strength(crop).argmax()) for crop in shifted}) > 3
    config = DegradationConfig(codec_last="jpeg", codec_last_quality=(5, 5), flip=0)
    crops = [TrainTransform(config, 64)(photograph, rng(seed)) for seed in range(12)]
    assert {int(grid_strength(crop).argmax()) for crop in crops} == {7}


def test_downscaling_takes_a_larger_part_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    monkeypatch.setattr(transforms, "random_crop", lambda p, side, rng: sides.append(side) or random_crop(p, side, rng))
    config = DegradationConfig(downscale=1, downscale_factor=(0.5, 0.5), flip=0, codec_last="none")
    transform = TrainTransform(config, 32)
    for height, width, expected in ((100, 100, 64), (64, 64, 64), (40, 90, 40), (32, 90, 32), (20, 90, 32)):
        assert transform(noise(height, width), rng()).shape == (32, 32, 3)
        assert sides.pop() == expected  # never more than the picture has: no new seams


def test_scaling_back_up_loses_detail_at_any_size() -> None:
    config = DegradationConfig(downscale=1, downscale_factor=(0.5, 0.5), downscale_back=True, flip=0, codec_last="none")
    for side in (32, 90):
        picture = noise(side, side)
        assert TrainTransform(config, 32)(picture, rng()).std() < 0.8 * picture.std()


def test_upscaling_takes_a_smaller_part_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    monkeypatch.setattr(
        transforms, "random_crop", lambda pixels, side, rng: sides.append(side) or random_crop(pixels, side, rng)
    )
    config = PLAIN.model_copy(update={"upscale": 1.0, "upscale_factor": (2.0, 2.0)})
    assert TrainTransform(config, 64)(smooth(64, 64), rng()).shape == (64, 64, 3)
    assert sides == [32]


def test_an_earlier_save_leaves_its_grid_in_an_unscaled_crop() -> None:
    config = PLAIN.model_copy(update={"history": 1.0, "history_quality": (20, 20)})
    strength = grid_strength(TrainTransform(config, 96)(noise(96, 96) // 4 + smooth(96, 96) // 2, rng()))
    assert strength.argmax() == 7  # the step from column 7 to 8: the edge of a JPEG block
    plain = TrainTransform(PLAIN, 96)(smooth(96, 96), rng())
    assert error(plain, smooth(96, 96)) == 0


def test_a_sensors_noise_comes_first() -> None:
    flat = np.full((96, 96, 3), 128, np.uint8)
    config = PLAIN.model_copy(update={"noise": 1.0, "noise_sigma": (4.0, 4.0)})
    crop = TrainTransform(config, 64)(flat, rng()).astype(float)
    assert crop.std() == pytest.approx(4, rel=0.05)
    assert np.corrcoef(crop[..., 0].ravel(), crop[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.05)
    saved = TrainTransform(config.model_copy(update={"history": 1.0, "history_quality": (10, 10)}), 64)(flat, rng())
    assert saved.std() < 1  # what is saved afterwards loses it
    often = config.model_copy(update={"noise": 0.3})
    noisy = [TrainTransform(often, 64)(flat, rng(seed)).std() > 0 for seed in range(200)]
    assert 0.2 < np.mean(noisy) < 0.4


def test_two_pictures_of_one_size_are_cut_and_degraded_alike_from_one_seed() -> None:
    rescaled = {"downscale": 0.5, "upscale": 0.5, "history": 0.5, "history_quality": (100, 100)}
    config = PLAIN.model_copy(update={**rescaled, "flip": 0.5})
    picture = smooth(150, 140)
    for seed in range(6):
        one, other = (TrainTransform(config, 64)(p, rng(seed)) for p in (picture, 255 - picture))
        assert error(one, 255 - other) < 1.5


def test_one_of_applies_at_most_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("blur", "jpeg", "webp", "flip", "resize"):
        monkeypatch.setattr(transforms, name, lambda p, *_, name=name: calls.append(name) or p[:16, :16])
    config = EVERYTHING.model_copy(update={"one_of": True, "codec_last": "none", "webp": 0.0})
    seen = set()
    for seed in range(100):
        calls.clear()
        TrainTransform(config, 16)(noise(64, 64), rng(seed))
        assert len(calls) == 1
        seen.add(calls[0])
    assert seen == {"blur", "jpeg", "flip", "resize"}
    calls.clear()
    TrainTransform(PLAIN.model_copy(update={"one_of": True}), 16)(noise(64, 64), rng())
    assert calls == []


def test_evaluation_transforms_use_no_chance() -> None:
    picture = noise(250, 300)
    crop = center_crop(picture)
    np.testing.assert_array_equal(NativeTransform()(picture, rng(1)), crop)
    for seed in (1, 2):
        np.testing.assert_array_equal(AlignedTransform()(picture, rng(seed)), jpeg(crop, 96))


def test_centre_crops_are_half_native_and_half_aligned() -> None:
    picture = noise(250, 300)
    native, aligned = center_crop(picture, 64), jpeg(center_crop(picture, 64), 96)
    found = [CentreTransform(64)(picture, rng(seed)) for seed in range(40)]
    saved = [bool((one == aligned).all()) for one in found]
    assert all((one == (aligned if was else native)).all() for one, was in zip(found, saved, strict=True))
    assert 10 < sum(saved) < 30


def test_some_aligned_crops_have_their_grid_anywhere_and_cover_all_of_it() -> None:
    picture = noise(250, 300)
    native, aligned = center_crop(picture, 64), jpeg(center_crop(picture, 64), 96)
    wide = jpeg(center_crop(picture, 64 + 16), 96)
    places = {wide[top : top + 64, left : left + 64].tobytes(): (top, left) for top in range(17) for left in range(17)}
    found = [GridsTransform(64)(picture, rng(seed)) for seed in range(1500)]
    others = [one for one in found if not ((one == native).all() or (one == aligned).all())]
    assert 110 < len(others) < 190
    seen = [places[one.tobytes()] for one in others]  # KeyError: from elsewhere
    assert {top for top, _ in seen} == {left for _, left in seen} == set(range(17))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32))
def test_pictures_of_any_size_have_grids(height: int, width: int, seed: int) -> None:
    assert GridsTransform(32)(noise(height, width), rng(seed)).shape == (32, 32, 3)


def test_most_delivered_crops_are_centre_crops_and_no_two_others_are_alike() -> None:
    picture = noise(250, 300)
    native, aligned = center_crop(picture, 64), jpeg(center_crop(picture, 64), 96)
    found = [DeliveredTransform(64)(picture, rng(seed)) for seed in range(80)]
    others = [one for one in found if not ((one == native).all() or (one == aligned).all())]
    assert 12 < len(others) < 36
    assert len({one.tobytes() for one in others}) == len(others)
    assert all(one.shape == (64, 64, 3) and one.dtype == np.uint8 for one in found)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32))
def test_pictures_of_any_size_are_delivered(height: int, width: int, seed: int) -> None:
    assert DeliveredTransform(32)(noise(height, width), rng(seed)).shape == (32, 32, 3)


def test_delivery_does_not_enlarge() -> None:
    """A picture of one crop's size has nowhere to be scaled down to: what it shows stays where it was."""
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    for seed in range(60):
        assert np.abs(DeliveredTransform(64)(ramp, rng(seed)).astype(int) - ramp).max() < 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jpeg": 1.5}, "less than or equal to 1"),
        ({"jpeg_quality": (0, 50)}, "greater than or equal to 1"),
        ({"blur_sigma": (2, 1)}, r"expected blur_sigma as \(low, high\), found \(2.0, 1.0\)"),
        ({"downscale_factor": (0.5, 2)}, "less than or equal to 1"),
        ({"codec_last": "png"}, "'none', 'jpeg' or 'mixed'"),
        ({"jpg": 1}, "Extra inputs are not permitted"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DegradationConfig(**settings)
