"""Every file is decoded, to its end; those that cannot be are named with the reason."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from data.trees import make_folder
from PIL import Image

from apn.data.samples import Sample, read_samples
from apn.data.verify import Copy, quarantine, verify
from apn.image import load_image


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return read_samples(make_folder(tmp_path, 5, size=48))


@pytest.mark.parametrize("workers", [1, 3])
def test_what_cannot_be_read_is_listed_with_the_reason(samples: list[Sample], workers: int) -> None:
    samples[1].path.write_bytes(b"not an image")
    samples[4].path.write_bytes(samples[4].path.read_bytes()[:-300])
    samples[6].path.write_bytes(samples[6].path.read_bytes()[:2000])
    samples[8].path.unlink()
    calls: list[None] = []
    good, bad, _ = verify([samples], workers, lambda: calls.append(None))
    assert good == [sample for i, sample in enumerate(samples) if i not in (1, 4, 6, 8)]
    assert [sample for sample, _ in bad] == [samples[i] for i in (1, 4, 6, 8)]
    reasons = [reason for _, reason in bad]
    for reason, expected in zip(reasons, ("known kind", "ends early", "ends early", "no such file"), strict=True):
        assert expected in reason
    assert len(calls) == 10


def test_whole_files_are_all_good(samples: list[Sample]) -> None:
    assert quarantine(samples) == (samples, [])


def test_pixels_are_compared_without_a_copy_of_them(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    image = load_image(samples[0].path)._replace(pixels=np.ones((2000, 2000, 3), np.uint8))  # 12 MB
    monkeypatch.setattr("apn.data.verify.load_image", lambda path: image)
    tracemalloc.start()
    try:
        assert verify([samples[:1]]).readable == samples[:1]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_same_pixels_are_found_where_nothing_keeps_them_together(samples: list[Sample], tmp_path: Path) -> None:
    def copied(name: str, of: Sample, **changes: str | int) -> Sample:
        path = tmp_path / name
        path.write_bytes(of.path.read_bytes())
        return of._replace(path=path, split_group=name)._replace(**changes)

    photo, fake = samples[0], samples[-1]
    as_png = photo._replace(path=tmp_path / "lossless.png", split_group="lossless")
    Image.open(photo.path).save(as_png.path)
    other_class = copied("fake.png", fake, label=0, generator="")
    kept_together = copied("kept.jpg", photo, split_group=photo.split_group)
    tested = copied("tested.jpg", photo, split_group=photo.split_group, split="test")
    again_with_loss = photo._replace(path=tmp_path / "again.jpg")
    Image.open(photo.path).save(again_with_loss.path, quality=30)
    more = [as_png, other_class, kept_together, tested, again_with_loss]
    assert verify([samples + more]).copies == [
        Copy(as_png, photo, "another split_group"),
        Copy(other_class, fake, "the other class"),
        Copy(tested, photo, "split none"),
    ]
    # Two folders name their images alike, which says nothing of what they show.
    assert verify([samples, [kept_together]]).copies == [Copy(kept_together, photo, "other data")]


def test_a_picture_of_another_shape_is_another_picture(tmp_path: Path) -> None:
    for name, size in {"wide.png": (60, 40), "high.png": (40, 60)}.items():
        (tmp_path / "real").mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / "real" / name)
    (tmp_path / "generated").mkdir()
    assert verify([read_samples(tmp_path)]).copies == []


def test_neither_torch_nor_scikit_learn_is_needed_to_verify_and_to_summarise() -> None:
    modules = "apn.commands.data, apn.data.layouts, apn.data.verify, apn.data.summary, apn.data.probe"
    code = f"import {modules}, sys; print(sorted({{'torch', 'sklearn', 'scipy', 'pyarrow'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
