"""The detector's promises: one image one row, scores that depend on nothing but the image, verdicts that hold."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import apn
from apn.backends import find_weights
from apn.calibration import Calibration, Thresholds
from apn.crops import crop, tile_corners
from apn.deliveries import DELIVERIES, deliver
from apn.detector import DELIVERED_TILES, Detector
from apn.doubts import colourfulness, flatness
from apn.image import load_image

DEMO = sorted((Path(__file__).parent.parent / "demo" / "images").iterdir())
SIZE = 32
CHOSEN = {6: (0, 2, 3, 5), 9: (0, 3, 5, 8)}  # which of so many tiles are delivered once more


def brightness_backend(crops: np.ndarray) -> np.ndarray:
    """Generated minus real logit: the crop's mean, from -8 (black) to 8 (white)."""
    mean = crops.reshape(len(crops), -1).mean(axis=1) / 255
    return np.stack([np.zeros(len(crops)), 16 * mean - 8], axis=1).astype(np.float32)


def ripple_backend(crops: np.ndarray) -> np.ndarray:
    """A detector of pixel-fine stripes, which every re-delivery wipes out."""
    ripple = np.abs(np.diff(crops[..., 0].astype(float), axis=2)).mean(axis=(1, 2))
    return np.stack([np.zeros(len(crops)), ripple - 100], axis=1).astype(np.float32)


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[..., None], 3, axis=2)


def make_detector(backend=brightness_backend, calibration: Calibration | None = None) -> Detector:
    return Detector(
        backend,
        name="fake",
        sha256="0" * 64,
        crop_size=SIZE,
        calibration=calibration or Calibration(),
        backend_name="onnx",
    )


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_colourfulness_by_hand():
    assert colourfulness(np.array([[[10, 30, 20], [7, 7, 7]]], np.uint8)) == 10
    assert colourfulness(np.full((4, 4, 3), 255, np.uint8)) == 0


@pytest.mark.parametrize("brief", [False, True])
def test_a_picture_with_less_colour_than_the_calibration_knows_is_unsure(brief):
    detector = make_detector(calibration=Calibration(least_colour=2.0))
    dark = picture(100, 70) // 4
    almost = grey(dark)
    almost[:, ::2, 0] += 3  # 1.5 on average
    rows = list(detector.detect_many([dark, grey(dark), almost, grey(255 - dark)], brief=brief))
    assert [row.verdict for row in rows] == ["real", "unsure", "unsure", "unsure"]
    assert [len(row.stability) for row in rows] == [4, 0, 0, 0]
    assert rows[2].warnings == (
        "no colour: what was scored is black and white or nearly so (1.5 of 255 grey values, a verdict needs 2); of "
        "that the score says nothing",
    )
    assert rows[1].probability == make_detector().detect(grey(dark)).probability < 0.5
    assert make_detector().detect(grey(dark)).verdict == "real"  # a calibration that knows no such bound


def test_the_shipped_detector_says_nothing_of_black_and_white_pictures():
    """Nearly all that it reads is colour, and the black-and-white pictures of its training were photographs."""
    for path in DEMO:
        row = apn.load("apn-mini").detect(grey(load_image(path).pixels), stability=False)
        assert row.verdict == "unsure"
        assert row.warnings[-1].startswith("no colour: what was scored is black and white or nearly so (0.0 of 255")


def test_flatness_by_hand():
    row = np.array([[[1, 2, 3], [1, 2, 3], [1, 2, 4], [1, 2, 4], [1, 2, 3]]], np.uint8)
    assert flatness(row) == 0.5
    assert flatness(np.stack([row, np.full_like(row, 7)])) == 0.75
    assert flatness(row.swapaxes(0, 1).repeat(2, axis=1)) == 1  # beside each other, not below


@pytest.mark.parametrize("brief", [False, True])
def test_a_picture_flatter_than_the_calibration_knows_is_unsure(brief):
    detector = make_detector(calibration=Calibration(most_flat=0.5))
    dark = picture(64, 64) // 4
    dark[:, ::2, 0] |= 1
    dark[:, 1::2, 0] &= 254  # no pixel equals its neighbour
    half, more = dark.copy(), dark.copy()
    half[:, :32], more[:, :34] = (20, 9, 9), (20, 9, 9)  # two of four tiles, and of 31 neighbours one in each other row
    rows = list(detector.detect_many([dark, half, more], brief=brief))
    assert [row.verdict for row in rows] == ["real", "real", "unsure"]
    assert [len(row.stability) for row in rows] == [4, 4, 0]
    assert rows[2].warnings == (
        "flat: 52% of what was scored is plain colour, as in screenshots and drawings (at most 50% for a verdict); of "
        "that the score says nothing",
    )
    assert make_detector().detect(more).verdict == "real"  # a calibration that knows no such bound


def test_the_shipped_detector_says_nothing_of_a_screenshot_or_an_empty_page():
    """Where there is no detail it says `real`, whatever the picture among it is."""
    screen = np.full((900, 600, 3), 255, np.uint8)
    screen[300:500, 100:500] = load_image(DEMO[0]).pixels[:200, :400]
    for pixels in (screen, np.full((400, 400, 3), (200, 30, 30), np.uint8)):
        row = apn.load("apn-mini").detect(pixels)
        assert (row.verdict, row.stability) == ("unsure", ())
        assert row.warnings[-1].startswith("flat: ")


@pytest.mark.parametrize("shape", [(100, 70), (32, 32), (31, 400), (1, 1)])
def test_logit_is_the_mean_over_the_tile_grid(shape):
    pixels = picture(*shape)
    row = make_detector().detect(pixels)
    tiles = np.stack([crop(pixels, top, left, SIZE) for top, left in tile_corners(*shape, SIZE)])
    assert row.logit == pytest.approx(np.diff(brightness_backend(tiles)).mean(), abs=1e-6)
    assert [(tile.top, tile.left) for tile in row.tiles] == tile_corners(*shape, SIZE)
    assert row.probability == pytest.approx(1 / (1 + np.exp(-row.logit)))
    assert (row.width, row.height) == shape[::-1]


def test_path_bytes_and_pixels_of_an_image_get_the_same_row(tmp_path):
    pixels = picture(50, 60)
    path = tmp_path / "a.png"
    path.write_bytes(png(pixels))
    detector = make_detector()
    rows = [detector.detect(source) for source in (path, str(path), path.read_bytes(), pixels)]
    assert len({(row.logit, row.verdict, row.tiles) for row in rows}) == 1


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_rows_keep_the_order_of_the_images_at_any_batch_size(batch_size):
    images = [np.full((40, 40 + 30 * i, 3), 20 * i, np.uint8) for i in range(12)]
    rows = list(make_detector().detect_many(images, batch_size=batch_size))
    assert [row.width for row in rows] == [image.shape[1] for image in images]
    expected = [16 * 20 * i / 255 - 8 for i in range(12)]
    assert [row.logit for row in rows] == pytest.approx(expected, abs=1e-5)


def test_a_broken_file_is_a_row_of_its_own_and_the_others_are_scored(tmp_path):
    good, bad, gone = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "gone.png"
    good.write_bytes(png(picture(40, 40)))
    bad.write_bytes(b"not an image")
    rows = list(make_detector().detect_many([good, bad, gone, good]))
    assert [row.path for row in rows] == [str(path) for path in (good, bad, gone, good)]
    assert [row.error is None for row in rows] == [True, False, False, True]
    assert all(row.verdict is None and row.probability is None and row.logit is None for row in rows[1:3])
    assert rows[0].logit == rows[3].logit


def test_detect_raises_what_detect_many_reports():
    with pytest.raises(apn.ImageError, match=r"\w+ \w+"):
        make_detector().detect(b"not an image")
    with pytest.raises(apn.ImageError, match=r"expected RGB pixels"):
        make_detector().detect(np.zeros((4, 4), np.uint8))


def test_what_is_no_image_is_told_with_what_is_one():
    with pytest.raises(TypeError, match=r"RGB pixels .*numpy.asarray\(image.convert\('RGB'\)\).*, found Image$"):
        make_detector().detect(Image.new("RGB", (SIZE, SIZE)))
    for one in ("photo.jpg", b"photo.jpg", Path("photo.jpg")):  # not a row for each of its letters
        with pytest.raises(TypeError, match="expected several images, found one"):
            list(make_detector().detect_many(one))


def test_thresholds_make_three_verdicts():
    detector = make_detector(calibration=Calibration(real_below=0.3, generated_from=0.7))
    greys = (0, 128, 255)
    verdicts = [detector.detect(np.full((40, 40, 3), grey, np.uint8)).verdict for grey in greys]
    assert verdicts == ["real", "unsure", "generated"]


def test_the_check_has_thresholds_of_its_own() -> None:
    """Between both thresholds: `unsure` alone, and a verdict where all re-deliveries say the same."""
    calibration = Calibration(real_below=0.1, generated_from=0.9, checked=Thresholds(0.2, 0.6))
    detector, image = make_detector(calibration=calibration), np.full((100, 100, 3), 140, np.uint8)
    assert detector.detect(image, stability=False).verdict == "unsure"
    row = detector.detect(image)
    assert row.verdict == "generated"
    assert [one.verdict for one in row.stability] == ["generated"] * len(DELIVERIES)
    assert all(one.probability == pytest.approx(1 / (1 + np.exp(-one.logit))) for one in row.stability)
    described = detector.describe()
    assert described["thresholds"]["generated_from"] == 0.9
    assert described["checked_thresholds"]["generated_from"] == 0.6
    assert "checked" not in described["calibration"]


def test_a_verdict_that_another_delivery_overturns_is_unsure_and_says_which():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    image = np.repeat(stripes[..., None], 3, axis=2)
    detector = make_detector(ripple_backend)
    assert detector.detect(image, stability=False).verdict == "generated"
    row = detector.detect(image)
    assert row.verdict == "unsure"
    assert [delivery.name for delivery in row.stability] == list(DELIVERIES)
    overturned = {delivery.name for delivery in row.stability if delivery.verdict != "generated"}
    assert "resize x0.75" in overturned
    assert all(name in row.warnings[-1] for name in overturned)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_brief_check_ends_with_the_first_delivery_that_overturns_and_says_the_same(batch_size: int) -> None:
    stripes = np.repeat(np.tile(np.array([0, 255], np.uint8), (40, 20))[..., None], 3, axis=2)
    images = [stripes, *(picture(40, 40, seed) // part for seed, part in enumerate((1, 2, 4, 8))), stripes // 2]
    seen: list[int] = []

    def counted(crops: np.ndarray) -> np.ndarray:
        seen.append(len(crops))
        return ripple_backend(crops)

    detector = make_detector(counted)
    whole, work = list(detector.detect_many(images, batch_size=batch_size)), sum(seen)
    brief = list(detector.detect_many(images, batch_size=batch_size, brief=True))
    assert sum(seen) - work < work
    for image, long, short in zip(images, whole, brief, strict=True):
        alone = make_detector(ripple_backend).detect(image, stability=False).verdict
        overturned = [n for n, one in enumerate(long.stability, 1) if one.verdict != alone]
        assert (short.verdict, short.logit, short.tiles) == (long.verdict, long.logit, long.tiles)
        assert short.stability == long.stability[: overturned[0] if overturned else None]
    assert {"unsure", "real"} == {row.verdict for row in brief}


def test_a_verdict_that_every_delivery_keeps_stands():
    row = make_detector().detect(np.full((100, 100, 3), 250, np.uint8))
    assert row.verdict == "generated"
    assert {delivery.verdict for delivery in row.stability} == {"generated"}


@pytest.mark.parametrize(("shape", "verdict"), [((100, SIZE - 1), "unsure"), ((SIZE, SIZE), "generated")])
def test_a_picture_smaller_than_a_crop_gets_no_verdict(shape: tuple[int, int], verdict: str) -> None:
    row = make_detector().detect(np.full((*shape, 3), 250, np.uint8))
    assert row.probability > 0.9
    assert row.verdict == verdict
    assert bool(row.warnings) == (verdict == "unsure")


def test_small_and_strongly_compressed_images_are_warned_of():
    file = io.BytesIO()
    Image.fromarray(picture(20, 300)).save(file, "JPEG", quality=20)
    warnings = " ".join(make_detector().detect(file.getvalue(), stability=False).warnings)
    assert "small: 300 x 20" in warnings
    assert "JPEG quality about 20" in warnings


def test_what_is_kept_of_a_decoded_image_does_not_grow_with_it():
    prepared = make_detector()._prepare(picture(2000, 1500), "big", stability=True, options={})
    assert prepared.facts is not None
    assert prepared.facts.pixels.base is None
    assert prepared.facts.pixels.size == 0
    assert len(prepared.delivered) == len(DELIVERIES)
    for tiles, count in ((prepared.tiles, 9), *((tiles, DELIVERED_TILES) for tiles in prepared.delivered)):
        assert tiles.base is None
        assert tiles.nbytes == count * 3 * SIZE**2


@pytest.mark.parametrize("shape", [(40, 40), (70, 70), (200, 70), (200, 200)])
def test_a_delivery_moves_the_logit_by_what_it_does_to_the_delivered_tiles(shape):
    pixels = picture(*shape) // 2 + 110  # bright enough not to be unsure at 0.5
    row = make_detector().detect(pixels)
    corners = tile_corners(*shape, SIZE)
    chosen = [corners[i] for i in CHOSEN.get(len(corners), range(len(corners)))]
    before = brightness_backend(np.stack([crop(pixels, top, left, SIZE) for top, left in chosen]))
    for delivery, tiles in zip(row.stability, deliver(pixels, chosen, SIZE), strict=True):
        moved = np.diff(brightness_backend(tiles)).mean() - np.diff(before).mean()
        assert delivery.probability == pytest.approx(1 / (1 + np.exp(-(row.logit + moved))), abs=1e-6)


def test_stopping_early_leaves_no_work_behind():
    opened = []

    def images():
        for number in range(1000):
            opened.append(number)
            yield picture(40, 40)

    rows = make_detector().detect_many(images(), batch_size=1, workers=2)
    next(rows)
    rows.close()
    assert len(opened) < 20


def test_rows_of_broken_files_do_not_wait_for_the_end():
    taken = []

    def broken():
        for number in range(1000):
            taken.append(number)
            yield b"not an image"

    rows = make_detector().detect_many(broken(), batch_size=4, workers=2)
    assert next(rows).error is not None
    assert len(taken) < 20
    rows.close()


# The shipped weights --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Detector:
    return apn.load("apn-mini")


def test_shipped_scores_do_not_depend_on_batch_size_or_company(shipped):
    together = list(shipped.detect_many(DEMO, stability=False, batch_size=16))
    backwards = list(shipped.detect_many(DEMO[::-1], stability=False, batch_size=5))[::-1]
    alone = [shipped.detect(path, stability=False) for path in DEMO]
    for rows in (backwards, alone):
        assert [row.logit for row in rows] == pytest.approx([row.logit for row in together], abs=1e-5)


def test_the_shipped_weights_say_what_they_said_when_they_were_shipped(shipped):
    """Recorded by bench/ship.py: the demo's images, photographs of clear licences and pictures of our own making."""
    recorded = json.loads((Path(__file__).parent / "shipped_logits.json").read_text())
    assert recorded["sha256"] == shipped.sha256
    rows = {Path(row.path).name: row.logit for row in shipped.detect_many(DEMO, stability=False)}
    assert rows == pytest.approx(recorded["logits"], abs=1e-3)


def test_the_recorded_hash_is_that_of_the_shipped_weights(shipped):
    weights = find_weights("apn-mini") / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == shipped.sha256


def test_torch_gives_the_probabilities_of_the_shipped_graph(shipped):
    torch_rows = apn.load("apn-mini", backend="torch").detect_many(DEMO, stability=False)
    onnx_rows = shipped.detect_many(DEMO, stability=False)
    assert [row.probability for row in torch_rows] == pytest.approx([row.probability for row in onnx_rows], abs=1e-4)


def test_the_detector_describes_itself(shipped):
    facts = shipped.describe()
    assert facts["name"] == "apn-mini"
    assert len(facts["sha256"]) == 64
    assert 0 <= facts["thresholds"]["real_below"] <= facts["thresholds"]["generated_from"] <= 1
    assert facts["calibration"]["method"] in {"temperature", "isotonic"}


def test_unknown_weights_name_the_known_ones():
    with pytest.raises(ValueError, match="expected a checkpoint folder or one of apn-mini"):
        apn.load("apn-maxi")


def test_a_folder_named_for_its_calibration_must_have_one(tmp_path):
    with pytest.raises(ValueError, match=r"no calibration in .*: expected calibration\.json"):
        apn.load(calibration=tmp_path)
    weights = find_weights("apn-mini")
    assert apn.load(calibration=weights).calibration == apn.load().calibration
