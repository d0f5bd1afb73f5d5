"""`apn matrix`: every network is trained and every cell scored once, however often the command is stopped."""

import csv
import io
import shutil
import signal
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.trees import GENIMAGE_FOLDERS, make_diffusionforensics, make_genimage
from rich.console import Console

import apn.matrix
import apn.runs
import apn.train
from apn.checkpoint import read_checkpoint_config, read_training
from apn.config import Config, validate
from apn.data.layouts import read_data
from apn.data.names import GENIMAGE
from apn.data.samples import Sample
from apn.matrix import _file_names, fill, markdown, read_parts, write_matrices
from apn.metrics import auc
from apn.protocols import Protocol
from apn.runs import kept_shortcuts, train_to_end
from apn.scoretable import Shortcut, read_scores

CONSOLE = Console(file=io.StringIO())


def tiny(**changes: Any) -> Config:
    """NPR sees the checkerboard of `trees` after a few steps."""
    train = {"steps": 8, "batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 0, "precision": "32-true"}
    values = {
        "name": "tiny",
        "model": {"architecture": "npr", "backbone": "test_resnet", "image_size": 64},
        "data": {"validation": 0, "workers": 0, "degradations": {"codec_last": "none"}},
        "train": {**train, **changes},
    }
    return validate(Config, values, "tiny")


def quick_shortcuts(data: str, samples: Sequence[Sample], protocols: Sequence[Protocol], seed: int) -> list[Shortcut]:
    return [Shortcut(data=data, protocol=one.title, auc=0.5, low=0.25, high=0.75) for one in protocols]


@pytest.fixture(scope="module")
def genimage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_genimage(tmp_path_factory.mktemp("genimage"), 4)


class Filled:
    """The eight by eight matrix, filled by a command that was stopped twice."""

    def __init__(self, genimage: Path, out: Path, patch: pytest.MonkeyPatch) -> None:
        self.out, self.spec, self.trained, self.scored = out, f"genimage:{genimage}", [], []
        self.stop_in_step, self.stop_in_table = 19, 0  # steps and tables, counted from here on
        step, score = apn.train.training_step, apn.runs.score_samples

        def training_step(*arguments: Any, **options: Any) -> Any:
            self.trained.append(arguments[-1])
            if len(self.trained) == self.stop_in_step:
                signal.raise_signal(signal.SIGINT)
            return step(*arguments, **options)

        def score_samples(*arguments: Any) -> Any:
            self.scored.append(arguments[3].relative_to(out / "scores"))
            if len(self.scored) == self.stop_in_table:
                raise KeyboardInterrupt
            return score(*arguments)

        patch.setattr(apn.train, "training_step", training_step)
        patch.setattr(apn.runs, "score_samples", score_samples)
        patch.setattr(apn.runs, "measure_shortcuts", quick_shortcuts)

    @cached_property
    def matrices(self) -> list[apn.matrix.Matrix]:
        return self()

    def __call__(self, **options: Any) -> list[apn.matrix.Matrix]:
        return fill(tiny(), self.spec, self.spec, self.out, accelerator="cpu", console=CONSOLE, resamples=20, **options)


@pytest.fixture(scope="module")
def filled(genimage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with pytest.MonkeyPatch.context() as patch:
        filled = Filled(genimage, tmp_path_factory.mktemp("matrix"), patch)
        with pytest.raises(KeyboardInterrupt):  # in the third row's training
            filled()
        assert read_training(filled.out / "runs/SD-v1.5/last")["step"] == 3
        assert len(filled.scored) == 16
        filled.stop_in_table = 16 + 20
        with pytest.raises(KeyboardInterrupt):  # in the fifth row's scores
            filled()
        yield filled


def test_eight_by_eight_after_two_interruptions(filled: Filled) -> None:
    native, aligned = filled.matrices
    assert native.rows == native.columns == tuple(GENIMAGE)
    assert filled.trained == [step for _ in range(8) for step in range(8)]  # each network's each step once
    again = Path("GLIDE/ADM.parquet")  # the table that was stopped before it began
    assert sorted(filled.scored) == sorted([again, *(Path(f"{r}/{c}.parquet") for r in FILES for c in FILES)])
    assert native.protocol == "native (files as they are)"
    assert aligned.protocol == "aligned (64 px centre, JPEG q96)"
    for matrix in (native, aligned):
        assert matrix.probe == ((0.5, 0.25, 0.75),) * 8
        for cell in (cell for row in matrix.cells for cell in row):
            assert (cell.real, cell.generated, cell.failed) == (4, 4, 0)
    values = np.array([[cell.metrics.auc.value for cell in row] for row in native.cells])
    assert values.mean() > 0.9  # one checkerboard marks them all


FILES = ("Midjourney", "SD-v1.4", "SD-v1.5", "ADM", "GLIDE", "Wukong", "VQDM", "BigGAN")


def test_cells_and_means_are_those_of_the_scores(filled: Filled) -> None:
    native, _ = filled.matrices
    row = GENIMAGE_ROWS.index("ADM")
    values = []
    for column, file in enumerate(FILES):
        (scores,) = read_scores([filled.out / f"scores/ADM/{file}.parquet"])
        part = scores.take(scores.protocol.where(native.protocol))
        assert part.generator.present(part.labels == 1) == [GENIMAGE_ROWS[column]]
        values.append(auc(part.labels, part.logits))
        estimate = native.cells[row][column].metrics.auc
        assert estimate.value == pytest.approx(values[-1])
        assert estimate.low <= estimate.value <= estimate.high
    assert native.mean[row].auc.value == pytest.approx(np.mean(values))
    assert native.others[row].auc.value == pytest.approx(np.mean(np.delete(values, row)))


GENIMAGE_ROWS = list(GENIMAGE)


def test_written_tables_and_figures(filled: Filled) -> None:
    matrices = filled.matrices
    written = write_matrices(matrices, "tiny", filled.out)
    assert {path.name for path in written} == {
        "matrix.md", "matrix.csv", "auc-native.png", "accuracy-native.png", "auc-aligned.png", "accuracy-aligned.png",
    }  # fmt: skip
    assert all(path.stat().st_size > 500 for path in written)
    text = markdown(matrices, "tiny")
    assert (filled.out / "matrix.md").read_text(encoding="utf-8") == text
    assert text.count("| trained on | Midjourney | SD v1.4 |") == 4
    assert text.count("| shortcut probe | ") == 2
    assert text.count("| real + generated | " + "4 + 4 | " * 8 + " |  |\n") == 2
    assert "0 scores are missing in all cells together" in text
    with (filled.out / "matrix.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 8 * 8
    first = matrices[0].cells[0][1]
    assert (lines[1]["trained_on"], lines[1]["tested_on"]) == ("Midjourney", "SD v1.4")
    assert float(lines[1]["auc"]) == first.metrics.auc.value


def test_a_full_matrix_is_only_measured(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    before = filled.matrices
    for name in ("train", "load"):
        monkeypatch.setattr(apn.runs, name, lambda *_, **__: pytest.fail("nothing was left to do"))
    assert filled() == before


def test_rows_that_commands_of_their_own_filled_are_the_matrix(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    native, _ = filled.matrices
    monkeypatch.setattr(apn.runs, "train", lambda *_, **__: pytest.fail("nothing was left to do"))
    train = f"{filled.spec},generator=GLIDE"
    alone, _ = fill(tiny(), train, filled.spec, filled.out, accelerator="cpu", console=CONSOLE, resamples=20)
    assert (alone.rows, alone.columns) == (("GLIDE",), native.columns)
    assert alone.cells == (native.cells[native.rows.index("GLIDE")],)


def test_torchrun_is_refused(genimage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(ValueError, match="a matrix runs in one process: expected no torchrun, found 2"):
        fill(tiny(), f"genimage:{genimage}", f"genimage:{genimage}", tmp_path)


def test_another_configuration_is_refused(filled: Filled, tmp_path: Path) -> None:
    shutil.copytree(filled.out / "runs/ADM", tmp_path / "run")
    config = read_checkpoint_config(filled.out / "runs/ADM/last")
    other = config.model_copy(update={"train": config.train.model_copy(update={"learning_rate": 1e-3})})
    with pytest.raises(ValueError, match=r"\(train.learning_rate was 0.003 and is 0.001\): choose another --out"):
        train_to_end(other, tmp_path / "run", accelerator="cpu", console=CONSOLE)


def test_the_same_folder_by_another_spelling_of_its_path_goes_on(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled.matrices
    monkeypatch.setattr(apn.runs, "train", lambda *_, **__: pytest.fail("nothing was left to do"))
    monkeypatch.chdir(filled.out.parent)
    monkeypatch.setattr(filled, "out", Path(filled.out.name))
    assert filled() == before


def test_runs_of_other_images_are_refused(filled: Filled, genimage: Path, tmp_path: Path) -> None:
    _ = filled.matrices
    more = tmp_path / "more"
    shutil.copytree(genimage, more)
    photo = next((more / "ADM").rglob("train/nature/*.JPEG"))
    shutil.copy(photo, photo.with_name("another.JPEG"))
    spec = f"genimage:{more},generator=ADM"
    with pytest.raises(ValueError, match=r"runs/ADM is trained on other images, 8 listed by .*ADM.jsonl, than the 9"):
        fill(tiny(), spec, spec, filled.out, accelerator="cpu", console=CONSOLE, resamples=20)


def test_shortcuts_are_measured_once_for_the_same_images(
    genimage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = read_data(f"genimage:{genimage},split=val,generator=ADM")
    found = kept_shortcuts(tmp_path / "probe/ADM.json", "ADM", samples, [Protocol("native")])
    assert [one.protocol for one in found] == ["native (files as they are)"]
    monkeypatch.setattr(apn.runs, "measure_shortcuts", quick_shortcuts)
    assert kept_shortcuts(tmp_path / "probe/ADM.json", "ADM", samples, [Protocol("native")]) == found
    fewer = kept_shortcuts(tmp_path / "probe/ADM.json", "ADM", samples[1:], [Protocol("native")])
    assert fewer[0].auc == 0.5


# Rows and columns ----------------------------------------------------------------------------------------------------


def test_scenes_of_diffusionforensics(tmp_path: Path) -> None:
    spec = f"diffusionforensics:{make_diffusionforensics(tmp_path)}"
    rows, columns = read_parts(spec, spec, "scene")
    assert {name: len(part) for name, part in rows.items()} == {"lsun_bedroom": 6, "imagenet": 4}
    assert set(columns) == {"lsun_bedroom", "celebahq"}
    assert all(sample.split == "train" for part in rows.values() for sample in part)
    assert all(sample.split == "test" and sample.scene == name for name, part in columns.items() for sample in part)


def test_no_image_is_trained_and_tested_on(genimage: Path) -> None:
    with pytest.raises(ValueError, match=r"64 images are both trained and tested on, .*name the splits"):
        read_parts(f"genimage:{genimage},split=val", f"genimage:{genimage}", "generator")
    rows, columns = read_parts(
        f"genimage:{genimage}", f"genimage:{genimage},generator=ADM,generator=GLIDE", "generator"
    )
    assert list(rows) == list(GENIMAGE)
    assert list(columns) == ["ADM", "GLIDE"]


def test_neither_a_spelling_nor_a_link_hides_that_an_image_is_tested_on(
    genimage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(genimage.parent)
    with pytest.raises(ValueError, match="64 images are both trained and tested on"):
        read_parts(f"genimage:{genimage},split=val", f"genimage:{genimage.name},split=val", "generator")
    for part in ("train", "val"):
        shutil.copytree(genimage / "ADM" / GENIMAGE_FOLDERS["ADM"] / part, tmp_path / "ADM" / part)
    photo = next((tmp_path / "ADM/train/nature").iterdir())
    (tmp_path / "ADM/val/nature/link.JPEG").symlink_to(photo)
    with pytest.raises(ValueError, match=r"1 images are both trained and tested on, the first .*link.JPEG"):
        read_parts(f"genimage:{tmp_path}", f"genimage:{tmp_path}", "generator")


def test_data_that_name_no_scene_have_no_matrix_of_scenes(genimage: Path) -> None:
    with pytest.raises(ValueError, match="no scene is named in genimage:"):
        read_parts(f"genimage:{genimage}", f"genimage:{genimage}", "scene")


def test_file_names_tell_names_apart() -> None:
    assert _file_names(["SD v1.4", "a/b", "a b", "SD v1.4", "A-B", "..", "日"]) == [
        "SD-v1.4", "a-b", "a-b-2", "SD-v1.4", "A-B-3", "unnamed", "unnamed-2",
    ]  # fmt: skip
