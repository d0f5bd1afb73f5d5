"""Every kind of file that people have, made here, through the one door that images enter by."""

import hashlib
import io
import os
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_pictures import SIX, encode, photo
from PIL import Image, ImageFile

import apn.image
from apn.image import IMAGE_EXTENSIONS, ImageError, find_images, load_image

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


@pytest.mark.parametrize("happens", ["nothing", "removed", "replaced", "written"])
def test_the_hash_is_of_the_bytes_whose_pixels_these_are(
    happens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other, decode = tmp_path / "a.png", tmp_path / "b.png", apn.image._load
    path.write_bytes(encode(photo(), "PNG"))
    other.write_bytes(encode(photo(), "PNG") + b"more")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    changes: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "removed": path.unlink,
        "replaced": lambda: os.replace(other, path),
        "written": lambda: path.write_bytes(other.read_bytes()),
    }

    def decoded(*arguments: Any) -> Any:
        loaded = decode(*arguments)
        changes[happens]()
        return loaded

    monkeypatch.setattr(apn.image, "_load", decoded)
    if happens == "written":
        with pytest.raises(ImageError, match=r"^the file was changed while it was read$"):
            load_image(path, digest=True)
    else:
        assert load_image(path, digest=True).sha256 == sha256


def test_files_in_any_form_have_the_same_hash_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    data = encode(photo(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    forms = (tmp_path / "a.png", data, io.BytesIO(data))
    assert {load_image(form, digest=True).sha256 for form in forms} == {hashlib.sha256(data).hexdigest()}
    assert load_image(data).sha256 is None


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
    with pytest.raises(ImageError, match=r'pip install "apn\[heif\]"'):
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
