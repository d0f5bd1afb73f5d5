"""The grid scored: conditions, order of protocol and degradation, one decode an image, resuming, the command."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from apn.cli import main
from apn.data import transforms
from apn.data.samples import read_samples
from apn.degradations import GRID, cells
from apn.image import load_image
from apn.protocols import Protocol
from apn.robustness import show_degraded
from apn.scoretable import read_scores

ALIGNED = Protocol("aligned", size=32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two photographs and two generated pictures, of different sizes."""
    rng = np.random.default_rng(0)
    for folder, side in (("real/camera", 60), ("generated/gan", 48)):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (side, side + 8 * number, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    return tmp_path


def test_the_first_condition_is_the_protocol_alone_and_the_rest_is_the_grid(data: Path) -> None:
    shown = show_degraded(ALIGNED)
    assert [(one.condition.degradation, one.condition.level) for one in shown[:3]] == [
        ("", ""),
        ("jpeg", "95"),
        ("jpeg", "85"),
    ]
    assert len(shown) == len(cells())
    assert {one.condition.protocol for one in shown} == {ALIGNED.title}
    sample = read_samples(data)[0]
    expected = ALIGNED.open(sample.path, sample.label).pixels
    np.testing.assert_array_equal(shown[0].open(sample).pixels, expected)


def test_an_image_is_aligned_first_and_degraded_then(data: Path) -> None:
    """So that sizes and JPEG grids of both classes are alike at every level."""
    for sample in read_samples(data):
        aligned = transforms.align(load_image(sample.path).pixels, 32)
        for one in show_degraded(ALIGNED, ["jpeg", "resize_down"])[1:]:
            level = float(one.condition.level)
            expected = (
                transforms.jpeg(aligned, int(level))
                if one.condition.degradation == "jpeg"
                else transforms.resize(aligned, round(32 * level))
            )
            shown = one.open(sample)
            np.testing.assert_array_equal(shown.pixels, expected)
            assert (shown.quality, shown.metadata) == (None, {})


def test_noise_is_the_same_wherever_the_data_set_lies(data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    noisy = show_degraded(Protocol("native"), ["noise"])[1].open
    here = [noisy(sample).pixels for sample in read_samples(data)]
    moved = tmp_path_factory.mktemp("elsewhere") / "data"
    data.rename(moved)
    there = [show_degraded(Protocol("native"), ["noise"])[1].open(sample).pixels for sample in read_samples(moved)]
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)


def test_all_conditions_of_an_image_share_one_decode(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("apn.protocols.load_image", lambda path: opened.append(path) or load_image(path))
    samples = read_samples(data)
    shown = show_degraded(ALIGNED)
    for sample in samples:
        for one in shown:
            one.open(sample)
    assert opened == [sample.path for sample in samples]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["apn", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_the_command_scores_the_grid_and_goes_on_where_it_was(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (data / "real" / "camera" / "9.jpg").write_bytes(b"not an image")
    out = tmp_path / "table.parquet"
    arguments = "robustness", "--data", data, "--only", "jpeg, grey", "--out", out
    assert run(monkeypatch, *arguments) == 1  # one file cannot be read
    conditions = 1 + len(GRID["jpeg"].levels) + len(GRID["grey"].levels)
    said = capsys.readouterr()
    assert f"5 images under {conditions} conditions, {4 * conditions} scored, {conditions} failed" in said.out
    assert said.err.count(f"apn: {data / 'real' / 'camera' / '9.jpg'}: not an image") == 1
    (scores,) = read_scores([out])
    assert len(scores.labels) == 5 * conditions
    assert set(scores.degradation.names) == {"", "jpeg", "grey"}
    assert int(scores.failed.sum()) == conditions
    clean = scores.take(scores.degradation.where("") & ~scores.failed)
    full = scores.take(scores.degradation.where("grey") & scores.level.where("1") & ~scores.failed)
    assert clean.paths.to_pylist() == full.paths.to_pylist()
    assert (clean.logits != full.logits).all()
    monkeypatch.setattr("apn.evaluate.probe", lambda *_, **__: pytest.fail("the probe was measured already"))
    assert run(monkeypatch, *arguments) == 1
    assert f"{5 * conditions} of {5 * conditions} rows were there" in capsys.readouterr().out


def test_an_unknown_degradation_is_told_with_the_known_ones(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert run(monkeypatch, "robustness", "--data", data, "--only", "jpg", "--out", tmp_path / "t.parquet") == 1
    assert "no degradation jpg: expected some of jpeg, webp, avif" in capsys.readouterr().err
