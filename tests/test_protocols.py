"""Protocols: what the detector is shown of both classes, and what a table is called."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apn.crops import center_crop
from apn.data.transforms import AlignedTransform, jpeg, webp
from apn.image import ImageError, load_image
from apn.protocols import PROTOCOLS, Protocol


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_titles_are_canonical_and_hold_every_setting_that_matters() -> None:
    titles = [Protocol(name).title for name in PROTOCOLS]
    assert titles == [
        "native (files as they are)",
        "aligned (224 px centre, JPEG q96)",
        "fakes-jpeg (generated saved as JPEG q96, real as they are)",
    ]
    assert Protocol("aligned", 64, "webp", 80).title == "aligned (64 px centre, WebP q80)"
    assert Protocol("aligned", 64, "png", 80).title == Protocol("aligned", 64, "png", 20).title
    assert Protocol("native", 64, "webp", 80).title == Protocol("native").title


@pytest.mark.parametrize("label", [0, 1])
def test_aligned_treats_both_classes_alike_whatever_the_file(label: int, tmp_path: Path) -> None:
    """The pixels of one picture, saved without loss in three formats, reach the detector as the same crop."""
    pixels = picture()
    shown = []
    for name, options in {"a.png": {}, "b.webp": {"lossless": True}, "c.bmp": {}}.items():
        Image.fromarray(pixels).save(tmp_path / name, **options)
        shown.append(Protocol("aligned", 64).open(tmp_path / name, label))
    for image in shown:
        np.testing.assert_array_equal(image.pixels, jpeg(center_crop(pixels, 64), 96))
        assert image[1:] == shown[0][1:]  # nor does anything else tell the file it came from


def test_the_transform_of_training_is_the_same() -> None:
    for protocol in (Protocol("aligned", 64), Protocol("aligned", 32, "webp", 70), Protocol("aligned", 64, "png")):
        transform = AlignedTransform(protocol.size, protocol.codec, protocol.quality)
        expected = protocol.apply(picture(), 0)
        np.testing.assert_array_equal(transform(picture(), np.random.default_rng(1)), expected)
    np.testing.assert_array_equal(Protocol("aligned", 64, "png").apply(picture(), 1), center_crop(picture(), 64))
    np.testing.assert_array_equal(
        Protocol("aligned", 64, "webp", 70).apply(picture(), 1), webp(center_crop(picture(), 64), 70)
    )


def test_fakes_jpeg_changes_generated_images_only(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    protocol = Protocol("fakes-jpeg", quality=50)
    np.testing.assert_array_equal(protocol.open(tmp_path / "a.png", 0).pixels, picture())
    np.testing.assert_array_equal(protocol.open(tmp_path / "a.png", 1).pixels, jpeg(picture(), 50))


def test_native_is_the_file_itself(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg", quality=40)
    image, expected = Protocol("native").open(tmp_path / "a.jpg", 1), load_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(image.pixels, expected.pixels)
    assert image[1:] == expected[1:]


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="expected a protocol of native, aligned, fakes-jpeg, found 'alinged'"):
        Protocol("alinged")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a codec of jpeg, webp, png, found 'jpg'"):
        Protocol("aligned", codec="jpg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"quality of 1 .. 100, found 224, 101"):
        Protocol("aligned", quality=101)
    with pytest.raises(ImageError):
        Protocol("aligned").open(Path("nowhere.png"), 0)
