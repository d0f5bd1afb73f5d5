"""What a detector takes for images, and what it refuses before it would be taken apart byte by byte or row by row."""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_detector import make_detector, picture, png

from apn.image import load_image

PIXELS = picture(60, 50)
FILE = png(PIXELS)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, io.BytesIO, load_image, lambda _: PIXELS])
def test_a_file_in_any_form_gets_the_same_row_and_one_of_it_is_not_several(form) -> None:
    detector = make_detector()
    assert detector.detect(form(FILE)).logit == detector.detect(PIXELS).logit
    with pytest.raises(TypeError, match="expected several images, found one"):
        next(detector.detect_many(form(FILE)))


@pytest.mark.parametrize("one", ["photo.jpg", Path("photo.jpg"), PIXELS[..., 0]])
def test_one_path_or_picture_is_not_several(one) -> None:
    with pytest.raises(TypeError, match="expected several images, found one"):
        next(make_detector().detect_many(one))


def test_arrays_of_paths_and_of_pictures_are_several() -> None:
    detector = make_detector()
    assert [row.error for row in detector.detect_many(np.array(["a.jpg", "b.jpg"]))] == ["no such file"] * 2
    assert [row.verdict for row in detector.detect_many(np.stack([PIXELS, PIXELS]))] == ["unsure"] * 2


def test_a_file_opened_as_text_is_no_damaged_image(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(FILE)
    with (tmp_path / "one.png").open(encoding="latin-1") as file:
        with pytest.raises(TypeError, match=r"a binary file, .* found TextIOWrapper"):
            make_detector().detect(file)
        with pytest.raises(TypeError, match="a binary file, found TextIOWrapper"):
            load_image(file)


def test_every_image_has_a_name() -> None:
    detector = make_detector()
    (row,) = detector.detect_many([PIXELS], names=[Path("folder") / "one.png"])
    assert row.path == str(Path("folder") / "one.png")
    with pytest.raises(ValueError, match="a name for each image, found more images"):
        list(detector.detect_many([PIXELS, PIXELS], names=["one"]))
    with pytest.raises(ValueError, match="a name for each image, found more names"):
        list(detector.detect_many(iter([PIXELS]), names=iter(["one", "two"])))
    with pytest.raises(TypeError, match="a name for each image, found one text: 'ab'"):
        list(detector.detect_many([PIXELS, PIXELS], names="ab"))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (16, 2), (64, 4)])
def test_what_comes_before_a_failure_of_the_source_is_judged_first(batch_size: int, workers: int) -> None:
    def images() -> Iterator[object]:
        yield from [PIXELS] * 5
        raise ConnectionError("the queue is gone")

    rows = make_detector().detect_many(images(), batch_size=batch_size, workers=workers)
    assert [next(rows).path for _ in range(5)] == [f"image {n}" for n in range(5)]
    with pytest.raises(ConnectionError, match="the queue is gone"):
        next(rows)
    mixed = make_detector().detect_many([PIXELS, PIXELS, 7, PIXELS], batch_size=batch_size, workers=workers)
    assert [next(mixed).path for _ in range(2)] == ["image 0", "image 1"]
    with pytest.raises(TypeError, match="found int"):
        next(mixed)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": -1}, {"workers": 0}, {"workers": -1}])
def test_sizes_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected batch_size and workers of at least 1, found"):
        list(make_detector().detect_many([PIXELS], **options))


def test_a_detector_that_is_sent_to_another_process_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"call apn.load in each process"):
        pickle.dumps(make_detector())
