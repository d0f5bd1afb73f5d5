"""Whatever a file keeps its colours in, RGB comes out: turned upright, on white, in sRGB."""

import io

import numpy as np
import pytest
from made_pictures import SIX, WHITE, encode, pixels, png
from PIL import Image, ImageCms, ImageOps

from apn.image import load_image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(SIX.repeat(16, axis=0).repeat(16, axis=1))
    data = encode(image, format, exif=exif, **{"WEBP": {"lossless": True}}.get(format, {}))
    found = load_image(data).pixels
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(found, np.asarray(turned))
    row, column = {1: (0, 0), 2: (0, 2), 3: (1, 2), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (2, 1), 8: (2, 0)}[orientation]
    assert found.shape == ((48, 32, 3) if orientation >= 5 else (32, 48, 3))
    assert np.abs(found[row * 16 + 8, column * 16 + 8].astype(int) - [255, 0, 0]).max() <= 6, "where red, the first, is"


@pytest.mark.parametrize(("alpha", "expected"), [(0, WHITE), (255, [100, 0, 50]), (51, [224, 204, 214])])
def test_alpha_is_laid_on_white(alpha: int, expected: list[int]) -> None:
    image = Image.new("RGBA", (2, 1), (100, 0, 50, alpha))
    assert pixels(encode(image)) == [[expected] * 2]
    if alpha != 0:  # invisible colours are not kept
        assert pixels(encode(image, "WEBP", lossless=True)) == [[expected] * 2]


def test_grey_with_alpha() -> None:
    image = Image.merge("LA", [Image.new("L", (3, 1), 10), Image.fromarray(np.array([[0, 51, 255]], np.uint8))])
    assert pixels(encode(image)) == [[WHITE, [206] * 3, [10] * 3]]


def test_palette_with_and_without_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert pixels(encode(image)) == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert pixels(encode(image, transparency=1)) == [[[255, 0, 0], WHITE, [0, 0, 255]]]
    assert pixels(encode(image, transparency=bytes([255, 51, 0]))) == [[[255, 0, 0], [204, 255, 204], WHITE]]
    assert pixels(encode(image, "GIF", transparency=1)) == [[[255, 0, 0], WHITE, [0, 0, 255]]]


def test_one_bit_and_grey() -> None:
    bits = Image.fromarray(np.array([[False, True]]))
    for format in ("PNG", "TIFF", "BMP", "PPM"):
        assert pixels(encode(bits, format)) == [[[0] * 3, WHITE]]
    assert pixels(encode(np.array([[0, 77, 255]], np.uint8))) == [[[0] * 3, [77] * 3, WHITE]]


def test_the_transparent_colour_of_grey_and_of_colour_is_white() -> None:
    assert pixels(png(2, 1, 8, 0, b"\0\x07\x08", (b"tRNS", b"\0\x07"))) == [[WHITE, [8] * 3]]
    assert pixels(png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", (b"tRNS", b"\0\1\0\2\0\3"))) == [[WHITE, [4, 5, 6]]]
    assert pixels(png(2, 1, 16, 0, b"\0\x01\x02\x01\x03", (b"tRNS", b"\x01\x02"))) == [[WHITE, [1] * 3]]
    deep = png(2, 1, 16, 2, b"\0\1\2\3\4\5\6\x10\0\x20\0\x30\0", (b"tRNS", b"\1\2\3\4\5\6"))
    assert pixels(deep) == [[WHITE, [16, 32, 48]]]


def test_16_bits_keep_their_high_byte_in_grey_and_in_colour() -> None:
    values = np.array([[0, 255, 256, 0x1234, 0x8000, 65535]], np.uint16)
    expected = [0, 0, 1, 0x12, 0x80, 255]
    assert load_image(encode(values)).pixels[0, :, 1].tolist() == expected
    assert load_image(encode(values, "TIFF")).pixels[0, :, 1].tolist() == expected
    raw = values[0].astype(">u2")
    assert load_image(png(6, 1, 16, 0, b"\0" + raw.tobytes())).pixels[0, :, 0].tolist() == expected
    assert load_image(png(6, 1, 16, 2, b"\0" + raw.repeat(3).tobytes())).pixels[0, :, 2].tolist() == expected
    opaque = np.stack([values[0], np.full(6, 65535)], axis=-1).astype(">u2")
    assert load_image(png(6, 1, 16, 4, b"\0" + opaque.tobytes())).pixels[0, :, 0].tolist() == expected
    pgm = b"P5\n6 1\n65535\n" + raw.tobytes()
    assert load_image(pgm).pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # in [0, 1]: as they are
        ([-1.0, 0.0, 3.0], [0, 64, 255]),  # otherwise from least to greatest
        ([0.0, np.nan, 1.0], [0, 0, 255]),
        ([np.nan, np.nan, np.nan], [0, 0, 0]),
        ([-np.inf, 2.0, np.inf], [0, 255, 255]),
        ([0.0, 100.0, np.inf], [0, 255, 255]),
        ([7.0, 7.0, 7.0], [255, 255, 255]),
        ([0.0, 3e38, -3e38], [128, 255, 0]),
    ],
)
def test_float_tiff(values: list[float], expected: list[int]) -> None:
    assert load_image(encode(np.array([values], np.float32), "TIFF")).pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 77, 255], [0, 77, 255]),
        ([0, 256, 65535], [0, 1, 255]),
        ([-1000, 0, 1000], [0, 128, 255]),
        ([0, 2**30, 2**31 - 1], [0, 128, 255]),
    ],
)
def test_32_bit_integer_tiff(values: list[int], expected: list[int]) -> None:
    assert load_image(encode(np.array([values], np.int32), "TIFF")).pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize("adobe_transform", [0, 2])
def test_cmyk_and_ycck_jpeg_are_not_inverted(adobe_transform: int) -> None:
    image = Image.new("RGB", (32, 32), (200, 30, 60)).convert("CMYK")
    data = encode(image, "JPEG", quality=95)
    assert load_image(data).format == "JPEG"
    if adobe_transform == 2:  # YCCK: luminance and colour differences of the inks, with K inverted
        ycc = Image.new("RGB", (32, 32), (55, 225, 195)).convert("YCbCr")
        key = Image.new("L", (32, 32), 255)  # no black ink, inverted
        planes = [255 - np.asarray(plane) for plane in (*ycc.split(), key)]  # the encoder inverts once more
        data = encode(Image.merge("CMYK", [Image.fromarray(plane) for plane in planes]), "JPEG", quality=95)
        marker = data.index(b"Adobe")
        data = data[: marker + 11] + b"\2" + data[marker + 12 :]
    assert np.abs(load_image(data).pixels.astype(int) - [200, 30, 60]).max() <= 6


def test_colour_profiles_are_converted_to_srgb_and_broken_ones_ignored() -> None:
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    swapped = swapped_profile()
    reference = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(swapped)), ImageCms.createProfile("sRGB")
    )
    assert np.abs(np.asarray(reference).astype(int) - np.asarray(image)).max() > 50, "the profile makes a difference"
    for options in ({"format": "PNG"}, {"format": "TIFF"}, {"format": "WEBP", "lossless": True}):
        assert np.array_equal(load_image(encode(image, **options, icc_profile=swapped)).pixels, np.asarray(reference))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for harmless in (srgb, b"not a profile", swapped[:200], swapped[:128] + bytes(300)):
        assert pixels(encode(image, icc_profile=harmless)) == np.asarray(image).tolist()
    grey = Image.new("L", (4, 4), 99)  # a profile of another kind than the pixels says nothing about them
    assert pixels(encode(grey, icc_profile=swapped)) == np.full((4, 4, 3), 99).tolist()
    half = image.copy()
    half.putalpha(51)
    laid = (np.asarray(reference, int) * 51 + 255 * 204 + 127) // 255
    assert np.array_equal(load_image(encode(half, icc_profile=swapped)).pixels, laid)


def swapped_profile() -> bytes:
    """sRGB with the primaries of red and green exchanged and without the word sRGB: wide of any ordinary profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be")).replace(b"sRGB", b"test")
