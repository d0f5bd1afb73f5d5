"""Facts of files against what they were saved as; nothing decoded, order kept, reasons given."""

import io
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from data.trees import make_folder, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from apn.data.facts import Facts, facts_of, read_facts
from apn.data.samples import read_samples
from apn.image import ImageError, load_image
from apn.threads import ahead


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@given(st.integers(5, 100), st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]), st.booleans())
def test_a_jpegs_facts_are_the_options_it_was_saved_with(quality: int, subsampling: str, progressive: bool) -> None:
    data = encoded(picture(1, False, 40), "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    assert read_facts(data) == Facts("JPEG", 40, 40, len(data), "RGB", quality, subsampling, progressive)


@pytest.mark.parametrize(
    ("file_format", "mode", "options", "found_mode"),
    [
        ("PNG", "RGB", {}, "RGB"),
        ("PNG", "RGBA", {}, "RGBA"),
        ("PNG", "P", {}, "P"),
        ("PNG", "I;16", {}, "I;16"),
        ("WEBP", "RGB", {"lossless": True}, "RGB"),
        ("AVIF", "RGB", {}, "RGB"),
        ("GIF", "P", {}, "P"),
        ("BMP", "RGB", {}, "RGB"),
        ("TIFF", "CMYK", {}, "CMYK"),
        ("ICO", "RGBA", {"sizes": [(48, 32)]}, "RGBA"),
    ],
)
def test_other_formats_have_a_mode_and_no_jpeg_facts(
    file_format: str, mode: str, options: dict[str, Any], found_mode: str, tmp_path: Path
) -> None:
    data = encoded(Image.new(mode, (48, 32)), file_format, **options)
    path = tmp_path / "named.jpg"  # the name says nothing
    path.write_bytes(data)
    facts = read_facts(path)
    assert facts == read_facts(data) == Facts(file_format, 48, 32, len(data), found_mode, None, None, None)
    assert facts.aspect == 1.5
    assert facts.bytes_per_pixel == len(data) / (48 * 32)


def test_grey_and_cmyk_jpegs_have_no_subsampling() -> None:
    for mode in ("L", "CMYK"):
        facts = read_facts(encoded(Image.new(mode, (16, 16)), "JPEG", quality=80))
        assert (facts.mode, facts.quality, facts.subsampling) == (mode, 80, None)


def test_the_size_is_the_stored_one_and_pixels_are_not_needed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    data = encoded(picture(2, True, 64).crop((0, 0, 64, 32)), "JPEG", exif=exif)
    facts = read_facts(data)
    assert (facts.width, facts.height) == (64, 32)
    cut = data[:-100]
    with pytest.raises(ImageError, match="ends early"):
        load_image(cut)
    assert read_facts(cut) == facts._replace(bytes=len(cut))


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "the file is empty"), (b"some text", "known kind")]
)
def test_a_file_without_facts_says_why(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        read_facts(tmp_path / "a.png")


@pytest.mark.parametrize("workers", [1, 3])
def test_facts_come_in_the_order_of_samples_with_reasons_in_place(tmp_path: Path, workers: int) -> None:
    samples = read_samples(make_folder(tmp_path, 5, size=24))
    samples[3].path.write_bytes(b"broken")
    calls: list[None] = []
    facts = list(facts_of(samples, workers=workers, advance=lambda: calls.append(None)))
    assert [f.format if isinstance(f, Facts) else "" for f in facts] == ["JPEG"] * 3 + ["", "JPEG"] + ["PNG"] * 5
    assert "known kind" in str(facts[3])
    assert [f.bytes for f in facts if isinstance(f, Facts)] == [
        s.path.stat().st_size for i, s in enumerate(samples) if i != 3
    ]
    assert len(calls) == 10


def test_what_is_delivered_is_what_is_measured(tmp_path: Path) -> None:
    samples = read_samples(make_folder(tmp_path, 1, size=24))
    data = encoded(picture(0, False, 10), "WEBP")
    assert list(facts_of(samples, deliver=lambda sample: data)) == [read_facts(data)] * 2


def test_threads_keep_order_stay_near_and_stop_early() -> None:
    taken = []

    def items() -> Any:
        for i in range(10_000):
            taken.append(i)
            yield i

    results = ahead(lambda i: i * i, items(), workers=2)
    assert [next(results) for _ in range(50)] == [i * i for i in range(50)]
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 50 + 8 * 2 + 1


def test_an_error_in_a_thread_reaches_the_caller_in_its_place() -> None:
    release = Event()

    def work(i: int) -> int:
        if i == 0:
            release.wait(5)
        if i == 1:
            release.set()
            raise KeyError(i)
        return i

    results = ahead(work, range(4), workers=2)
    assert next(results) == 0
    with pytest.raises(KeyError, match="1"):
        next(results)
