"""`apn data verify`, `summary` and `probe` as their users type them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from data.trees import make_folder, make_genimage
from PIL import Image

from apn.cli import main
from apn.data.layouts import read_data
from apn.data.summary import QUANTILES, summarise

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def apn_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `apn data ARGUMENTS` in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["apn", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def genimage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"genimage:{make_genimage(tmp_path_factory.mktemp('genimage'), 2, size=24)}"


def test_verify_exits_0_where_every_file_decodes(apn_data: Run, genimage: str, tmp_path: Path) -> None:
    quarantine = tmp_path / "bad.jsonl"
    code, out, err = apn_data("verify", genimage, "--quarantine", quarantine)
    assert (code, out, err) == (0, "64 of 64 files decode, 0 do not\n", "")
    assert quarantine.read_text() == ""


def test_verify_lists_corrupt_files_and_writes_both_manifests(apn_data: Run, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data", 3, size=24)
    samples = read_data(root)
    samples[1].path.write_bytes(samples[1].path.read_bytes()[:-200])
    samples[5].path.write_bytes(b"")
    bad, good = tmp_path / "bad.jsonl", tmp_path / "good.jsonl"
    code, out, _ = apn_data("verify", root, "--quarantine", bad, "--good", good, "--workers", 2)
    assert code == 1
    assert out.splitlines() == [
        f"{samples[1].path}: the file ends early: part of the image is missing",
        f"{samples[5].path}: the file is empty",
        "4 of 6 files decode, 2 do not",
    ]
    assert read_data(f"manifest:{bad}") == [samples[1], samples[5]]
    assert read_data(f"manifest:{good}") == [samples[i] for i in (0, 2, 3, 4)]
    assert [json.loads(line)["note"] for line in bad.read_text().splitlines()] == [
        "the file ends early: part of the image is missing",
        "the file is empty",
    ]


def test_verify_names_a_picture_of_the_test_set_among_those_to_train_on(apn_data: Run, tmp_path: Path) -> None:
    train, test = (make_folder(tmp_path / name, 2, size=24) for name in ("train", "test"))
    for i, sample in enumerate(read_data(test)[1:]):
        Image.new("RGB", (24, 24), (i, 0, 0)).save(sample.path)
    copied, seen = read_data(test)[0].path, read_data(train)[0].path
    code, out, _ = apn_data("verify", train, test)
    assert code == 0
    assert out.splitlines() == [
        f"{copied}: the same picture as {seen}, which is of other data",
        "8 of 8 files decode, 0 do not; 1 show the picture of an earlier one",
    ]


def test_filters_take_a_part_and_name_what_is_not_there(apn_data: Run, genimage: str) -> None:
    assert apn_data("verify", genimage, "--split", "val", "--generator", "ADM", "--generator", "glide")[1] == (
        "8 of 8 files decode, 0 do not\n"
    )
    assert apn_data("verify", f"{genimage},split=val", "--generator", "ADM")[1].startswith("4 of 4")
    code, _, err = apn_data("verify", genimage, "--scene", "cat")
    assert (code, err) == (1, "apn: no scene 'cat' in the data: no sample says its scene\n")
    code, _, err = apn_data("summary", "genimag:/x")
    assert code == 1
    assert "unknown layout 'genimag'" in err


def test_summary_counts_by_class_generator_and_split(apn_data: Run, genimage: str) -> None:
    code, out, _ = apn_data("summary", genimage, "--json")
    found = json.loads(out)
    assert (code, found["images"], found["measured"], found["unreadable"]) == (0, 64, 64, [])
    assert len(found["rows"]) == 8 * 2 * 2
    assert {row["images"] for row in found["rows"]} == {2}
    assert {"label": "real", "origin": "SD v1.4", "scene": "", "split": "val", "images": 2} in found["rows"]
    real, generated = found["facts"]["real"], found["facts"]["generated"]
    assert real["counts"]["format"] == {"JPEG": 32}
    assert real["counts"]["subsampling"] == {"4:2:0": 32}
    assert generated["counts"] == {"format": {"PNG": 32}, "mode": {"RGB": 32}, "subsampling": {}, "progressive": {}}
    assert real["quantiles"]["quality"] == [96] * len(QUANTILES)
    assert "quality" not in generated["quantiles"]
    assert generated["quantiles"]["width"] == [24] * len(QUANTILES)


def test_quantiles_are_those_of_the_files(tmp_path: Path) -> None:
    samples = read_data(make_folder(tmp_path, 5, size=24))
    sizes = sorted(sample.path.stat().st_size for sample in samples[:5])
    found = summarise(samples)
    low, *_, middle, _, _, high = found.facts["real"].quantiles["bytes"]
    assert (low, middle, high) == (sizes[0], sizes[2], sizes[4])
    assert summarise(samples, limit=4).measured == 4
    assert sum(row.images for row in summarise(samples, limit=4).rows) == 10


def test_summary_as_tables(apn_data: Run, tmp_path: Path) -> None:
    root = make_folder(tmp_path, 3, size=24)
    (root / "generated/toy").rename(root / "generated/a [red]model")
    (root / "real/phone/000.JPEG").write_bytes(b"")
    code, out, _ = apn_data("summary", root)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["6", "images"]
    assert ["class", "generator,", "or", "source", "images"] in lines  # no column where nothing is said
    assert ["generated", "a", "[red]model", "3"] in lines
    assert ["format", "JPEG", "2", "PNG", "3"] in lines
    assert ["JPEG", "quality", "real", *["96"] * len(QUANTILES)] in lines
    assert lines[-1][:3] == ["1", "files", "have"]


def test_probe_prints_which_fact_tells(apn_data: Run, genimage: str) -> None:
    code, out, _ = apn_data("probe", genimage)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("AUC 1.000 (95 % interval 1.000 to 1.000) from facts of the files alone, native")
    assert lines[1] == "32 real and 32 generated files, 5-fold cross-validation"
    assert ["format", "1.000"] in [line.split() for line in lines]
    assert ["width", "0.500"] in [line.split() for line in lines]
    assert lines[-1].startswith("A detector can reach this AUC without looking at a pixel")


def test_probe_of_aligned_files_without_their_length(apn_data: Run, genimage: str) -> None:
    options = ("--protocol", "aligned", "--without", "bytes", "--without", "bytes_per_pixel")
    found = json.loads(apn_data("probe", genimage, "--json", *options)[1])
    assert (found["auc"], found["interval"], found["folds"]) == (0.5, [0.5, 0.5], 5)
    assert found["protocol"].startswith("aligned (224 px")
    assert apn_data("probe", genimage, *options)[1].splitlines()[-1] == "These facts do not give the label away."
    assert apn_data("probe", genimage, "--protocol", "alinged")[0] == 2
