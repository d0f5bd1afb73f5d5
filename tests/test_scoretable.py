"""Tables of scores: three formats, one meaning; what is refused; what is put under one header."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apn.scores import labelled_logits
from apn.scoretable import METADATA_KEY, SCHEMA, TableFacts, Thresholds, read_facts, read_scores

NATIVE = "native (files as they are)"


def rows(count: int = 6, **changes: Any) -> list[dict[str, Any]]:
    """Rows as a table has them; the last one failed."""
    made: list[dict[str, Any]] = [
        {
            "path": f"images/{i}.png",
            "label": i % 2,
            "generator": "adm" if i % 2 else "",
            "scene": ["church", "dog"][i // 2 % 2],
            "source": "made",
            "split": "test",
            "split_group": f"group {i // 2}",
            "subset": "",
            "protocol": NATIVE,
            "degradation": "",
            "level": "",
            "logit": i / 2 - 1,
            "probability": 0.1 + i / 10,
            "error": None,
        }
        | changes
        for i in range(count)
    ]
    made[-1] |= {"logit": None, "probability": None, "error": "truncated, file"}
    return made


def write(path: Path, made: list[dict[str, Any]], facts: TableFacts | None = None) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in made))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(made[0]))
            writer.writeheader()
            writer.writerows(made)
    else:
        table = pa.Table.from_pylist(made, SCHEMA)
        facts = facts or TableFacts(weights=path.stem)
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: facts.model_dump_json()}), path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_every_format_says_the_same(suffix: str, tmp_path: Path) -> None:
    (scores,) = read_scores([write(tmp_path / f"mine{suffix}", rows())])
    assert scores.facts.weights == "mine"
    assert scores.paths.to_pylist() == [f"images/{i}.png" for i in range(6)]
    np.testing.assert_array_equal(scores.labels, [0, 1, 0, 1, 0, 1])
    np.testing.assert_allclose(scores.logits, [-1, -0.5, 0, 0.5, 1, np.nan])
    np.testing.assert_allclose(scores.probabilities, [0.1, 0.2, 0.3, 0.4, 0.5, np.nan])
    np.testing.assert_array_equal(scores.failed, [False] * 5 + [True])
    assert scores.errors.to_pylist() == [None] * 5 + ["truncated, file"]
    np.testing.assert_array_equal(scores.groups, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(scores.scene.where("dog"), [False, False, True, True, False, False])
    assert scores.generator.present() == ["adm"]
    assert scores.generator.present(scores.labels == 0) == []
    assert (scores.protocol.present(), scores.split.present()) == ([NATIVE], ["test"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_label_and_logit_are_enough(suffix: str, tmp_path: Path) -> None:
    (scores,) = read_scores([write(tmp_path / f"a{suffix}", [{"label": k, "logit": 4.0 * k - 2} for k in (0, 1)])])
    np.testing.assert_allclose(scores.probabilities, 1 / (1 + np.exp([2, -2])))
    assert scores.paths.to_pylist() == [f"{tmp_path / 'a'}{suffix}, row {number}" for number in (1, 2)]
    np.testing.assert_array_equal(scores.groups, [0, 1])  # each an image of its own
    assert scores.generator.present() == []


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_protocol_that_nobody_states_has_a_title(suffix: str, tmp_path: Path) -> None:
    rows = [{"label": label, "logit": float(label), "degradation": kind} for label in (0, 1) for kind in ("", "jpeg")]
    (scores,) = read_scores([write(tmp_path / f"mine{suffix}", rows)])
    assert scores.protocol.present() == ["protocol not stated"]
    assert scores.protocol.where("protocol not stated").all()


def test_take_keeps_columns_together(tmp_path: Path) -> None:
    (scores,) = read_scores([write(tmp_path / "a.parquet", rows())])
    mask = scores.take(scores.scene.where("dog"))
    assert (mask.paths.to_pylist(), mask.scene.present()) == (["images/2.png", "images/3.png"], ["dog"])
    turned = scores.take(np.array([5, 0]))
    assert turned.errors.to_pylist() == ["truncated, file", None]
    np.testing.assert_allclose(turned.logits, [np.nan, -1])
    assert turned.facts == scores.facts


def test_tables_of_one_detector_are_joined_and_others_are_not(tmp_path: Path) -> None:
    mine = TableFacts(weights="mine", sha256="1" * 64, protocols=(NATIVE,), data=("a",), images=6)
    other = mine.model_copy(update={"sha256": "2" * 64})
    calibrated = mine.model_copy(update={"thresholds": Thresholds(generated_from=0.7)})
    paths = [
        write(tmp_path / "1.parquet", rows(), mine),
        write(tmp_path / "2.parquet", rows(), other),
        write(tmp_path / "3.parquet", rows(protocol="aligned"), mine.model_copy(update={"protocols": ("aligned",)})),
        write(tmp_path / "4.parquet", rows(), calibrated),
    ]
    found = read_scores(paths)
    assert [len(scores.labels) for scores in found] == [12, 6, 6]
    assert found[0].facts.protocols == (NATIVE, "aligned")
    assert found[0].protocol.present() == ["aligned", NATIVE]
    np.testing.assert_array_equal(found[0].groups, [0, 0, 1, 1, 2, 2] * 2)  # groups mean the same in both tables
    assert read_facts(paths[1]) == other


def test_a_row_that_two_tables_share_counts_once_and_must_agree(tmp_path: Path) -> None:
    facts = TableFacts(weights="mine", sha256="1" * 64)
    paths = [write(tmp_path / f"{name}.parquet", rows(), facts) for name in "ab"]
    (scores,) = read_scores(paths)
    assert scores.paths.to_pylist() == [f"images/{i}.png" for i in range(6)]
    changed = rows()
    changed[2]["logit"] += 3e-7  # what another batch size does on some devices
    write(paths[1], changed, facts)
    assert len(read_scores(paths)[0].labels) == 6
    changed[2]["logit"] = 9.0
    write(paths[1], changed, facts)
    with pytest.raises(ValueError, match=r"expected one score each, found two for 1 of mine, the first .*images/2.png"):
        read_scores(paths)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"a.txt is not a table of scores: expected .parquet, .csv, .jsonl"),
        ("a.parquet", "no", r"a.parquet is not a table of scores"),
        ("a.csv", "path,label\na,1\n", r"a.csv is not .*expected columns path, label.*found no logit in path, label"),
        ("a.csv", "label,logit\n1,2\n2,1\n", r"row 2: expected a label of 0 or 1, found .*'label': 2"),
        ("a.csv", "label,logit\n1,2\n1,\n", r"row 2: expected a finite logit, or an error, found"),
        ("a.csv", "label,logit\n1,inf\n", r"row 1: expected a finite logit"),
        ("a.csv", "label,logit,probability\n1,2,88\n", r"row 1: expected a probability in \[0, 1\], found .*88"),
        ("a.csv", "label,logit,probability\n1,2,0.9\n0,2,\n", r"row 2: expected a probability in \[0, 1\]"),
        ("a.csv", "label,logit\n1,high\n", r"a.csv is not a table of scores: .*high"),
        ("a.jsonl", '{"label": 1}\n', r"found no logit"),
        ("a.jsonl", "{", r"a.jsonl is not a table of scores"),
    ],
)
def test_what_is_no_table(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_scores([tmp_path / name])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        read_scores([tmp_path / "none.parquet"])
    assert raised.value.filename == str(tmp_path / "none.parquet")


def test_rows_without_a_path_are_images_of_their_own_table(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    paths = [write(tmp_path / name / "mine.csv", [{"label": 1, "logit": 2.0}]) for name in "ab"]
    (scores,) = read_scores(paths)
    assert len(scores.labels) == 2


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_row_without_a_path_costs_the_others_nothing(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"scores{suffix}"
    lines = {
        ".csv": "path,label,logit\na.png,0,-1\n,1,1\n",
        ".jsonl": '{"path": "a.png", "label": 0, "logit": -1.0}\n{"label": 1, "logit": 1.0}\n',
    }
    path.write_text(lines[suffix])
    (scores,) = read_scores([path])
    assert scores.paths.to_pylist() == ["a.png", f"{path}, row 2"]


def test_calibration_is_fitted_on_each_image_once(tmp_path: Path) -> None:
    scored = [row for row in rows() if row["error"] is None]
    degraded = [row | {"degradation": "jpeg", "level": "75", "logit": -9.0} for row in scored]
    table = write(tmp_path / "robustness.parquet", [*degraded, *scored])
    np.testing.assert_allclose(labelled_logits(str(table), never).logits, [-1, -0.5, 0, 0.5, 1])
    aligned = [row | {"protocol": "aligned (160 px centre)"} for row in scored]
    with pytest.raises(ValueError, match=r"under one protocol, found aligned .*, native"):
        labelled_logits(str(write(tmp_path / "both.parquet", [*scored, *aligned])), never)


def never() -> Any:
    raise AssertionError("no image needs a score")


def test_calibration_takes_the_table_too(tmp_path: Path) -> None:
    facts = TableFacts(weights="mine", sha256="1" * 64)
    scored = write(tmp_path / "scored.parquet", [row for row in rows() if row["error"] is None], facts)
    found = labelled_logits(str(scored), never)
    assert found.sha256 == facts.sha256, "a calibration is for the weights that scored"
    assert found.extremes is None, "the table has no re-deliveries"
    np.testing.assert_allclose(found.logits, [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_array_equal(found.labels, [0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match=r"1 of 6 images have no score:\n  images/5.png: truncated, file"):
        labelled_logits(str(write(tmp_path / "a.parquet", rows())), never)
