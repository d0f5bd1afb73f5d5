"""What is no image, or half of one, or too much of one: an error that says so, and never a crash."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pictures import SIX, encode, photo, pixels, png
from PIL import Image, ImageFile, TiffImagePlugin

from apn.image import ImageError, load_image


def test_what_is_no_image_says_so(tmp_path: Path) -> None:
    for data, message in (
        (b"", "empty"),
        (b"Dear Sir, \n", "known kind.*: the file holds text, whatever"),
        (b"%PDF-1.7", "known kind.*a PDF document"),
        (b"PK\x03\x04\x14\0\0\0", "known kind.*a zip archive or an office document"),
    ):
        (path := tmp_path / "picture.jpg").write_bytes(data)
        for source in (data, path):
            with pytest.raises(ImageError, match=message):
                load_image(source)
    with pytest.raises(ImageError, match="known kind"):
        load_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}], ids=["thumbnail first", "DNG"])
def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_photograph(tags: dict[int, int | bytes]) -> None:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    with pytest.raises(ImageError, match="camera's raw file"):
        load_image(encode(SIX, "TIFF", tiffinfo=directory))
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory[254] = 2  # a page of several
    assert load_image(encode(SIX, "TIFF", tiffinfo=directory)).width == SIX.shape[1]


@pytest.mark.parametrize(
    "head", [b"II*\0\x10\0\0\0CR\2\0", b"IIRO\x08", b"\0\0\0\x18ftypcrx ", b"FUJIFILMCCD-RAW 0201"]
)
def test_raw_files_of_their_own_kind_say_so(head: bytes) -> None:
    with pytest.raises(ImageError, match="camera's raw file"):
        load_image(head + bytes(100))


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
    with pytest.raises(ImageError, match=r"a JPEG of 2\d\d scans"):
        load_image(scan[:start] + scan[start:-2] * 250 + scan[-2:])
    grey = encode(photo().convert("L"), "JPEG")  # not progressive: libjpeg decodes a colour as often as it comes
    start = grey.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match=r"a JPEG of 2\d\d scans"):
        load_image(grey[:start] + grey[start:-2] * 250 + grey[-2:])


def test_scans_are_counted_to_the_end_of_the_image() -> None:
    """Of what comes after it, and of what a segment holds, nothing is a scan."""
    data = encode(photo(), "JPEG", progressive=True)
    after = data + b"\xff\xda" * 200 + bytes(1 << 20) + data * 20
    assert np.array_equal(load_image(after).pixels, load_image(data).pixels)
    comment = b"\xff\xfe" + struct.pack(">H", 402) + b"\xff\xda" * 200
    assert np.array_equal(load_image(data[:2] + comment + data[2:]).pixels, load_image(data).pixels)


@pytest.mark.parametrize(
    "between",
    [
        b"\xff\xfe\x00\x06\xff\xd9\xff\xd9",  # a comment that holds ends of an image
        b"\xff\xd0\xff\xd7",  # restarts, which a decoder passes over
        b"\x00\xd9\xff\x00\xd9",  # bytes that belong to nothing
        b"\xff\xff\xff\xfe\x00\x02",  # filling before a marker
        b"\xff\xfe\x00\x00",  # a length that does not count itself
    ],
)
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_an_end_that_the_decoder_passes_over_hides_no_scan(between: bytes, shift: int) -> None:
    data = encode(photo(), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2] + between
    # Long enough that many blocks of reading end within a scan, wherever they begin.
    filling = b"\xff\xfe" + struct.pack(">H", 2 + 60_000 + shift) + bytes(60_000 + shift)
    bomb = data[:start] + (scan * 20 + filling) * 12 + data[-2:]
    with pytest.raises(ImageError, match=r"a JPEG of \d+ scans"):
        load_image(bomb)
    few = data[:start] + scan * 20 + data[-2:]
    assert load_image(few).width == 64


def test_a_jpeg_of_countless_segments_is_not_walked_to_its_end() -> None:
    data = encode(photo(), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    many = data[:start] + b"\xff\xfe\x00\x02" * 50_000 + data[start:] + b"\xff\xda" * 200
    with pytest.raises(ImageError, match="a JPEG of"):
        load_image(many)


def test_a_text_chunk_cannot_pose_as_image_data() -> None:
    for key in ("transparency", "icc_profile", "exif", "default_image", "xmp", "XML:com.adobe.xmp"):
        assert pixels(png(2, 1, 8, 2, b"\0" + SIX[0, :2].tobytes(), (b"tEXt", key.encode() + b"\0value"))) == [
            SIX[0, :2].tolist()
        ]


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
