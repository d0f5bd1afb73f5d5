"""Every kind of file that people have, made here, through the one door that images enter by."""

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from apn.image import IMAGE_EXTENSIONS, ImageError, find_images, load_image

WHITE = [255, 255, 255]
# 2 x 3 pixels, all different, so that any turn or mirroring shows.
SIX = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [90, 120, 60], [200, 210, 220]]], np.uint8)


def encode(image: Image.Image | np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


def photo(width: int = 64, height: int = 48) -> Image.Image:
    """Smooth, so that lossy formats keep it within a few levels."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([40 + 2 * x % 200, 60 + y % 180, 200 - x % 150], axis=-1).astype(np.uint8))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of exactly these bits: Pillow cannot write every kind that it can read."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def pixels(data: bytes) -> list[Any]:
    return load_image(data).pixels.tolist()


# ------------------------------------------------------------------------------------------------ formats and contents


@pytest.mark.parametrize(
    ("format", "options", "error"),
    [
        ("JPEG", {"quality": 95}, 6),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 8),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("AVIF", {"quality": 95}, 8),
        ("JPEG2000", {}, 0),
        ("PPM", {}, 0),
        ("ICO", {}, 0),
    ],
)
def test_each_format_gives_the_same_picture_from_bytes_path_and_file(
    format: str, options: dict[str, Any], error: int, tmp_path: Path
) -> None:
    image = photo()
    data = encode(image, format, **options | ({"sizes": [(64, 48)]} if format == "ICO" else {}))
    path = tmp_path / "picture"
    path.write_bytes(data)
    loaded = load_image(data)
    assert (loaded.format, loaded.frames, loaded.truncated, loaded.width, loaded.height) == (format, 1, False, 64, 48)
    assert loaded.pixels.dtype == np.uint8
    assert loaded.pixels.flags.c_contiguous
    assert np.abs(loaded.pixels.astype(int) - np.asarray(image)).max() <= error
    for other in (load_image(path), load_image(str(path)), load_image(io.BytesIO(data)), load_image(bytearray(data))):
        assert np.array_equal(other.pixels, loaded.pixels)
        assert other[1:] == loaded[1:]


def test_heic_is_read_with_the_extra_and_named_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(photo()).save(buffer, quality=95)
    registered = "HEIF" in Image.OPEN  # by another library of this process, such as imageio
    loaded = load_image(buffer.getvalue())
    assert (loaded.format, loaded.width, loaded.height, loaded.frames) == ("HEIF", 64, 48, 1)
    assert np.abs(loaded.pixels.astype(int) - np.asarray(photo())).max() <= 12
    assert ("HEIF" in Image.OPEN) == registered, "the plugin must not be registered in Pillow for the whole process"
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install apn\[heif\]"):
        load_image(buffer.getvalue())


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (20000, 3)])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_extreme_shapes(size: tuple[int, int], format: str) -> None:
    loaded = load_image(encode(Image.new("RGB", size, (80, 80, 80)), format))
    assert loaded.pixels.shape == (size[1], size[0], 3)
    assert (loaded.pixels == 80).all()


def test_the_content_decides_and_not_the_extension(tmp_path: Path) -> None:
    (path := tmp_path / "picture.png").write_bytes(encode(photo(), "JPEG"))
    assert load_image(path).format == "JPEG"


def test_names_may_be_long_and_of_any_script(tmp_path: Path) -> None:
    for name in ("фото 写真 🖼.png", "x" * 251 + ".png"):
        (tmp_path / name).write_bytes(encode(SIX))
        assert pixels_of_path(tmp_path / name) == SIX.tolist()


def pixels_of_path(path: Path) -> list[Any]:
    return load_image(path).pixels.tolist()


def test_large_images_are_converted_strip_by_strip_without_a_seam() -> None:
    image = Image.effect_noise((1500, 1000), 90).convert("RGB")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    expected = Image.new("RGB", image.size, (255, 255, 255))
    expected.paste(image, mask=image.getchannel("A"))
    assert np.array_equal(load_image(encode(image, compress_level=1)).pixels, np.asarray(expected))


# --------------------------------------------------------------------------------------------------------------- modes


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


# -------------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_the_first_of_several_frames_is_loaded_and_all_are_counted(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    loaded = load_image(encode(frames[0], format, save_all=True, append_images=frames[1:]))
    assert (loaded.format, loaded.frames) == ("JPEG" if format == "MPO" else format, 3)
    assert np.abs(loaded.pixels.astype(int) - [255, 0, 0]).max() <= 4


def test_counting_frames_ends_on_hostile_chains() -> None:
    page = encode(SIX, "TIFF")
    (first,) = struct.unpack_from("<I", page, 4)
    (entries,) = struct.unpack_from("<H", page, first)
    link = first + 2 + 12 * entries
    circle = page[:link] + struct.pack("<I", first) + page[link + 4 :]
    outside = page[:link] + struct.pack("<I", 2**31) + page[link + 4 :]
    assert [load_image(data).frames for data in (circle, outside)] == [1, 1]
    gif = encode(SIX, "GIF")
    block = gif.index(b",\0\0\0\0")
    many = gif[:-1] + gif[block:-1] * 12_000 + gif[-1:]
    assert load_image(many).frames == 10_000
    assert load_image(many[:-1000]).frames == 10_000


# ------------------------------------------------------------------------------------------------------- what is wrong


def test_what_is_no_image_says_so(tmp_path: Path) -> None:
    for data, message in ((b"", "empty"), (b"Dear Sir, \n", "known kind.*Dear Sir"), (b"%PDF-1.7", "known kind")):
        (path := tmp_path / "picture.jpg").write_bytes(data)
        for source in (data, path):
            with pytest.raises(ImageError, match=message):
                load_image(source)
    with pytest.raises(ImageError, match="known kind"):
        load_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def test_paths_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.png")
    (loop := tmp_path / "loop.png").symlink_to(loop)
    for path, message in (
        (tmp_path / "none.png", "no such file"),
        (tmp_path, "folder"),
        (pipe, "pipe, socket or device"),
        (Path("/dev/zero"), "pipe, socket or device"),
        (loop, "cannot be read .*symbolic links"),
        (tmp_path / ("x" * 300), "cannot be read .*too long"),
        (Path("nul\0byte"), "null byte"),
    ):
        with pytest.raises(ImageError, match=message):
            load_image(path)
    with pytest.raises(TypeError, match="found int"):
        load_image(3)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (path := tmp_path / "secret.png").write_bytes(encode(SIX))
    path.chmod(0)
    with pytest.raises(ImageError, match="no permission"):
        load_image(path)


def test_an_error_of_permission_is_said_in_plain_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (path := tmp_path / "secret.png").write_bytes(encode(SIX))

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ImageError, match="no permission to read the file"):
        load_image(path)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF"])
def test_a_file_that_ends_early_is_an_error_unless_allowed(format: str) -> None:
    image = photo(320, 240)
    data = encode(image, format, **({"interlace": False} if format == "GIF" else {}))
    cut = data[: len(data) * 3 // 5]
    if format == "TIFF":  # Pillow writes the directory in front of the pixels
        assert load_image(data).frames == 1
    with pytest.raises(ImageError, match=r"ends early|damaged"):
        load_image(cut)
    loaded, whole = load_image(cut, allow_truncated=True), load_image(data, allow_truncated=True)
    assert (loaded.truncated, whole.truncated) == (True, False)
    top = slice(150, 230) if format == "BMP" else slice(0, 80)  # a bitmap starts at the bottom
    assert np.array_equal(loaded.pixels[top], whole.pixels[top])


def test_a_progressive_jpeg_that_ends_early_shows_its_first_scans() -> None:
    data = encode(photo(320, 240), "JPEG", progressive=True)
    loaded = load_image(data[: len(data) * 3 // 5], allow_truncated=True)
    assert loaded.truncated
    assert np.abs(loaded.pixels.astype(int) - np.asarray(photo(320, 240))).mean() < 25
    with pytest.raises(ImageError):
        load_image(data[:150], allow_truncated=True)


def test_bytes_after_the_end_do_no_harm() -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encode(photo(), format)
        loaded = load_image(data + b"garbage" * 999, allow_truncated=True)
        assert not loaded.truncated
        assert np.array_equal(loaded.pixels, load_image(data).pixels)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"])
def test_the_pixel_limit_holds_before_decoding(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(photo(), format, **({"sizes": [(64, 48)]} if format == "ICO" else {}))
    assert load_image(data, max_pixels=64 * 48).width == 64
    monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("memory was asked for"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="64 x 48 pixels are more than the limit of 3,071 pixels"):
        load_image(data, max_pixels=64 * 48 - 1)


def test_decompression_bombs_are_refused_by_their_header_and_large_photos_are_not() -> None:
    bomb = png(60_000, 60_000, 8, 2, b"")
    with pytest.raises(ImageError, match="60000 x 60000 pixels"):
        load_image(bomb)
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(bomb), 22) + bomb
    with pytest.raises(ImageError, match="60000 x 60000 pixels"):
        load_image(icon)
    assert Image.MAX_IMAGE_PIXELS is not None
    panorama = Image.new("1", (20_000, 9_100))  # 182 million, above the limit of `Image.open` and below ours
    assert 2 * Image.MAX_IMAGE_PIXELS < 182_000_000
    with pytest.raises(ImageError, match="ends early"):
        load_image(encode(panorama)[:60])


def test_costly_codings_are_refused() -> None:
    with pytest.raises(ImageError, match="rare kind of PPM"):
        load_image(b"P5\n3000 3000\n254\n" + bytes(9_000_000))
    scan = encode(photo(), "JPEG", progressive=True)
    start = scan.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match=r"progressive JPEG of 2\d\d scans"):
        load_image(scan[:start] + scan[start:-2] * 250 + scan[-2:])


def test_a_text_chunk_cannot_pose_as_image_data() -> None:
    for key in ("transparency", "icc_profile", "exif", "default_image", "xmp", "XML:com.adobe.xmp"):
        assert pixels(png(2, 1, 8, 2, b"\0" + SIX[0, :2].tobytes(), (b"tEXt", key.encode() + b"\0value"))) == [
            SIX[0, :2].tolist()
        ]


# -------------------------------------------------------------------------------------- quality, threads, global state


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_read_from_the_quantisation_table(quality: int) -> None:
    assert load_image(encode(photo(), "JPEG", quality=quality)).quality == quality
    assert load_image(encode(photo().convert("L"), "JPEG", quality=quality)).quality == quality
    assert load_image(encode(photo())).quality is None


NOISY_EXIF = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x0f\x01\x02\0\xff\0\0\0\xff\xff\0\0"  # makes Pillow warn


def test_pillow_warns_of_the_file_and_we_do_not() -> None:
    data = encode(photo(), "JPEG", exif=NOISY_EXIF)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).getexif()
        assert shown, "or this test shows nothing"
        shown.clear()
        load_image(data)
        warnings.warn("ours", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["ours"]


def test_threads_decode_at_once_without_warnings_and_without_touching_global_state() -> None:
    noisy = encode(photo(), "JPEG", exif=NOISY_EXIF)
    cut = encode(photo(), "JPEG")[:-40]
    expected = load_image(encode(photo(), "JPEG")).pixels
    before = list(warnings.filters)
    failures: list[Exception] = []

    def work(check: Callable[[], None]) -> None:
        try:
            for _ in range(20):
                check()
        except Exception as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    def strict() -> None:
        assert np.array_equal(load_image(noisy).pixels, expected)
        with pytest.raises(ImageError):
            load_image(cut)

    def lenient() -> None:
        assert load_image(cut, allow_truncated=True).truncated

    threads = [threading.Thread(target=work, args=(check,)) for check in (strict, lenient, strict, lenient)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(warnings.filters) == before
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


# ----------------------------------------------------------------------------------------------------------- properties


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    format=st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "ICO"]),
    orientation=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_pillow_can_write_is_rgb_of_the_right_size(
    mode: str,
    width: int,
    height: int,
    format: str,
    orientation: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    random = np.random.default_rng(seed)
    bits = {"I;16": 2, "I": 4, "F": 4}.get(mode, Image.getmodebands(mode) if mode != "P" else 1)
    if mode == "1":
        image = Image.fromarray(random.random((height, width)) < 0.5)
    else:
        image = Image.frombytes(mode, (width, height), random.bytes(width * height * bits))
    if mode == "P":
        image.putpalette(random.bytes(768))
    exif = Image.Exif()
    exif[0x0112] = orientation
    try:
        data = encode(image, format, exif=exif, **({"sizes": [(width, height)]} if format == "ICO" else {}))
    except (OSError, ValueError, KeyError, DeprecationWarning):
        return  # not every format holds every mode
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    loaded, again = load_image(data), load_image(path)
    assert loaded.pixels.dtype == np.uint8
    assert np.array_equal(loaded.pixels, again.pixels)
    assert loaded[1:] == again[1:]
    turned = 5 <= orientation <= 8 and format in {"PNG", "TIFF", "JPEG", "WEBP"}
    assert loaded.pixels.shape == ((width, height, 3) if turned else (height, width, 3))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_rgb_or_an_image_error(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "ICO", "AVIF"]))
    damaged = bytearray(encode(photo(24, 18), format))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    try:
        loaded = load_image(bytes(damaged), max_pixels=1_000_000, allow_truncated=data.draw(st.booleans()))
    except ImageError as error:
        message = str(error)
    else:
        message = "loaded"
        assert loaded.pixels.shape == (loaded.height, loaded.width, 3)
        assert loaded.pixels.dtype == np.uint8
    assert 0 < len(message) < 400
    assert message.isprintable()


# ------------------------------------------------------------------------------------------------------- finding images


def test_folders_give_their_images_in_order_and_named_paths_are_always_kept(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a.webp", "notes.txt", ".hidden.png", ".cache/x.png", "c.jpg/inner.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/loop").symlink_to(tmp_path)
    (tmp_path / "d.png").symlink_to(tmp_path / "b/1.jpg")
    (tmp_path / "e.png").symlink_to(tmp_path / "e.png")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["a.webp", "b/1.jpg", "b/2.PNG", "c.jpg/inner.gif", "d.png", "e.png"]
    named = [tmp_path / "notes.txt", tmp_path / "missing", tmp_path / ".hidden.png", tmp_path / "b/1.jpg"]
    assert list(find_images(map(str, named))) == named
    assert {".jpg", ".png", ".webp", ".heic", ".avif"} <= IMAGE_EXTENSIONS


def test_a_folder_that_cannot_be_listed_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    listdir = os.listdir

    def refuse(path: Path) -> list[str]:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert list(find_images([tmp_path])) == [tmp_path / "closed"]
