"""Reading lists of images: both layouts, their errors, and writing a manifest that reads back."""

import json
import os
from pathlib import Path

import pytest

from apn.data.samples import Sample, read_samples, require_both_classes, write_manifest

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_folder_names_labels_generators_and_sources(tmp_path: Path) -> None:
    touch(tmp_path, "real/b.png", "real/phone/2024/a.jpg", "generated/adm/x.webp", "generated/a.png", "real/notes.txt")
    assert read_samples(tmp_path) == [
        Sample(tmp_path / "real/b.png", 0, "", "", "", "real/b.png"),
        Sample(tmp_path / "real/phone/2024/a.jpg", 0, "", "", "phone", "real/phone/2024/a.jpg"),
        Sample(tmp_path / "generated/a.png", 1, "", "", "", "generated/a.png"),
        Sample(tmp_path / "generated/adm/x.webp", 1, "adm", "", "", "generated/adm/x.webp"),
    ]


def test_a_class_may_be_empty_at_read_time(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png")
    (tmp_path / "generated").mkdir()
    samples = read_samples(tmp_path)
    assert [sample.label for sample in samples] == [0]
    with pytest.raises(ValueError, match="found 1 real and 0 generated"):
        require_both_classes(samples)


def test_a_jsonl_manifest_is_relative_to_its_folder(tmp_path: Path) -> None:
    row = {"path": "../x/a.png", "label": 1, "generator": "sd", "scene": "cat", "source": "web", "split_group": "g"}
    manifest = jsonl(tmp_path / "m.jsonl", row, {"img_path": "/abs/b.png", "label": 0, "generator": None, "more": 3})
    assert read_samples(str(manifest)) == [
        Sample(tmp_path.parent / "x/a.png", 1, "sd", "cat", "web", "g"),
        Sample(Path("/abs/b.png"), 0, "", "", "", "/abs/b.png"),
    ]


def test_a_csv_manifest_with_a_byte_order_mark(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text('path,label,generator\na.png,0,\n"b,c.png",1,sd\n', encoding="utf-8-sig")
    assert read_samples(manifest) == [
        Sample(tmp_path / "a.png", 0, "", "", "", "a.png"),
        Sample(tmp_path / "b,c.png", 1, "sd", "", "", "b,c.png"),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "a.png", "label": 0}, {"path": "b.png", "label": 2}], r"m.jsonl, line 2: .*label 0 .* found 2"),
        ([{"path": "a.png", "label": True}], "line 1: .* found True"),
        ([{"path": "a.png", "label": "real"}], "found 'real'"),
        ([{"path": "a.png", "label": None}], "found None"),
        ([{"path": "a.png", " label": 0}], "expected a column label, found columns 'path', ' label'"),
        ([{"file": "a.png", "label": 0}], r"expected a path .* found columns file, label"),
        ([{"path": 3, "label": 0}], "expected a path"),
        ([{"path": "a.png", "label": 0, "generator": "sd"}], "no generator for a real image .* 'sd'"),
        ([{"path": "a.png", "label": 1, "scene": 5}], "text as scene, found 5"),
        ([{"path": "a.png", "label": 1, "split": "testing"}], "expected train, val, test or nothing .* 'testing'"),
        ([["a.png", 0]], r"expected an object with path and label, found \['a.png', 0\]"),
        ([{"path": "a.png", "label": 0}, {"path": "x/../a.png", "label": 1}], r"line 2: .*once.*a.png on line 1"),
        (
            [{"path": "a\ud83d.png", "label": 0}],
            r"m.jsonl, line 1: .*as path, .*half a character \(.ud83d\) in 'a.ud83d",
        ),
        ([{"path": "a.png", "label": 1, "generator": "\udfff"}], "line 1: .*as generator, found half a character"),
        ([], "no image is listed"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_samples(jsonl(tmp_path / "m.jsonl", *rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", b'{"path": "a.png", "label": 0}\n\n{broken\n', "line 3: expected a JSON object, found '{broken"),
        ("m.jsonl", b'{"path": "\xff.png", "label": 0}\n', "expected UTF-8"),
        ("m.csv", b"path,label\na.png,0\nb.png,fake\n", "m.csv, line 3: .* found 'fake'"),
        ("m.csv", b"path,label\na.png\n", "line 2: .* found None"),
        ("m.csv", b"label,path\n0,a.png,\n0,b,c.png\n", "line 3: expected 2 cells, found 3: c.png has no column"),
        ("m.csv", b"path,label\na.png,0\na.png,0\n", "line 3: .* on line 2"),
        ("m.txt", b"a.png 0\n", "found a .txt file"),
        ("manifest", b"", "suffix-less"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path / name)


def test_columns_that_a_csv_has_not_are_not_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("filename,target\na.png,1\n")
    with pytest.raises(ValueError, match=r"found columns filename, target$"):
        read_samples(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path,target\na.png,1\n")
    with pytest.raises(ValueError, match=r"expected a column label, found columns 'path', 'target'$"):
        read_samples(tmp_path / "m.csv")


def test_missing_and_foreign_folders_say_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist: expected a folder with real/ and generated/"):
        read_samples(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found an empty folder"):
        read_samples(tmp_path)
    touch(tmp_path, "real/a.png", "synthetic/b.png", "c.txt")
    with pytest.raises(ValueError, match=r"found c\.txt, real/, synthetic/$"):
        read_samples(tmp_path)


def test_a_written_manifest_reads_back_from_another_folder(tmp_path: Path) -> None:
    samples = [
        Sample(tmp_path / "in/a ü.png", 0, "", "cat", "phone", "g"),
        Sample(Path("/elsewhere/b.png"), 1, "sd", "", "", "b.png"),
    ]
    (tmp_path / "out").mkdir()
    manifest = tmp_path / "out" / "list.jsonl"
    write_manifest(samples, manifest)
    assert read_samples(manifest) == samples
    assert json.loads(manifest.read_text(encoding="utf-8").splitlines()[0])["path"] == "../in/a ü.png"


def test_a_manifest_on_another_drive_than_its_images_has_their_whole_paths(tmp_path: Path, monkeypatch) -> None:
    """As on Windows, where no relative path leads from C: to D:."""

    def refuse(path: str | Path, start: str | Path) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    samples = [Sample(tmp_path / "a.png", 1, "sd", "", "", "a", original=str(tmp_path / "b.png"))]
    monkeypatch.setattr(os.path, "relpath", refuse)
    write_manifest(samples, tmp_path / "list.jsonl")
    row = json.loads((tmp_path / "list.jsonl").read_text(encoding="utf-8"))
    assert (row["path"], row["original"]) == (f"{tmp_path.as_posix()}/a.png", f"{tmp_path.as_posix()}/b.png")
    assert read_samples(tmp_path / "list.jsonl") == samples


def test_any_file_name_survives_a_manifest(tmp_path: Path) -> None:
    names = [os.fsdecode(b"\xff\xfe ab.png"), 'a "b"\n\\c\u2028.png', "日.png"]
    samples = [Sample(tmp_path / name, 0, "", "", "", name) for name in names]
    write_manifest(samples, tmp_path / "new/folder/list.jsonl")
    assert read_samples(tmp_path / "new/folder/list.jsonl") == samples


def test_a_failed_write_leaves_the_old_manifest_and_no_litter(tmp_path: Path) -> None:
    manifest = tmp_path / "list.jsonl"
    write_manifest([Sample(tmp_path / "a.png", 0, "", "", "", "a")], manifest)
    before = manifest.read_bytes()
    unwritable = Sample(tmp_path / "b.png", 0, "", object(), "", "b")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        write_manifest([unwritable], manifest)
    assert manifest.read_bytes() == before
    assert os.listdir(tmp_path) == ["list.jsonl"]


@pytest.mark.skipif(not CORPUS.exists(), reason="the development corpus is not part of the repository")
def test_the_corpus_reads_as_is() -> None:
    samples = read_samples(CORPUS)
    assert samples == read_samples(CORPUS / "manifest.jsonl")
    assert (len(samples), sum(sample.label for sample in samples)) == (3071, 1340)
    assert all(sample.path.is_file() for sample in samples)
    require_both_classes(samples)
