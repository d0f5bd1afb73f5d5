"""Lists of labelled images, read from a folder or a manifest and written as a manifest.

Two layouts, those of other data sets are in `apn.data.layouts` (docs/data.md):
- a folder with `real/` and `generated/` (or `0_real/` and `1_fake/`, or `real/` and `fake/`); their first sub-folders
  name the source and the generator;
- a manifest, `.jsonl` or `.csv`, with a row per image: `path` (or `img_path`), `label`, and optionally the other fields
  of `Sample`; a folder that holds a `manifest.jsonl` stands for it.
Labels come from these names or this column only, never from the order of a directory listing.
"""

import csv
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apn.data.listing import describe_folder, list_images, shorten, subfolders

REAL, GENERATED = 0, 1
CLASS_FOLDERS = (("real", "generated"), ("0_real", "1_fake"), ("real", "fake"))  # in the order of REAL, GENERATED
SPLITS = ("train", "val", "test")
MANIFEST = "manifest.jsonl"
PATH_COLUMNS = ("path", "img_path")
FOLDER_EXPECTED = "a folder with real/ and generated/ (or 0_real/ and 1_fake/, or real/ and fake/)"
MANIFEST_EXPECTED = f"a folder with {MANIFEST}, or a .jsonl or .csv manifest"


class Sample(NamedTuple):
    """One labelled image file; opened by `apn.data.dataset`."""

    path: Path
    label: int  # 0 real, 1 generated
    generator: str  # what made the picture; "" for a real one, or where nobody said
    scene: str  # what it shows; "" where nobody said
    source: str  # where the file came from; "" where nobody said
    split_group: str  # never spans two splits (a prompt, a subject); the path as listed where nobody said
    split: str = ""  # one of SPLITS, as the data set divides itself; "" where nobody said
    subset: str = ""  # generated images are compared with real ones of the same subset; a real one of "" serves all
    original: str = ""  # path of the untouched photograph that a generated image was made from; "" where there is none


# Half of a UTF-16 pair, which no file can be named by; those of \udc80 to \udcff stand for bytes of a name.
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_TEXTS = tuple(name for name in Sample._fields if name not in ("path", "label"))


def read_samples(location: str | Path) -> list[Sample]:
    """Read either layout: manifest rows in their order, folders in order of name. Files are not opened.

    ValueError if the location is missing, fits no layout, lists no image or one twice, or has a bad row (its line
    number is named). A class without images is fine here; see `require_both_classes`.
    """
    location = Path(location)
    if not location.exists():
        raise ValueError(f"{location} does not exist: expected {FOLDER_EXPECTED}, {MANIFEST_EXPECTED}")
    if location.is_dir() and not (location / MANIFEST).is_file():
        return read_folder(location, f"{FOLDER_EXPECTED}, {MANIFEST_EXPECTED}, or LAYOUT:ROOT (docs/data.md)")
    return read_manifest(location)


def read_folder(folder: Path, expected: str = FOLDER_EXPECTED) -> list[Sample]:
    """Read a folder with a folder for each class, whatever files it holds. Errors as in `read_samples`.

    Another folder with images is an error: a misspelled one would leave them out unnoticed.
    """
    present = [names for names in CLASS_FOLDERS if all((folder / name).is_dir() for name in names)]
    if len(present) != 1:
        raise ValueError(f"no images in {folder}: expected {expected}; found {describe_folder(folder)}")
    others = {name: other for name, other in subfolders(folder).items() if name not in present[0]}
    if left_out := [f"{name}/" for name, other in others.items() if any(list_images(other))]:
        classes = " and ".join(f"{name}/" for name in present[0])
        raise ValueError(f"expected images in {classes} alone, found some in {shorten(left_out)} of {folder} too")
    return _require_some([s for label in (REAL, GENERATED) for s in _class_samples(folder, present[0], label)], folder)


def read_manifest(location: Path, path_columns: Sequence[str] = PATH_COLUMNS) -> list[Sample]:
    """Read a manifest, or the one of a folder, with the path in the first of these columns that a row has.

    Errors as in `read_samples`.
    """
    manifest = location / MANIFEST if location.is_dir() else location
    if not manifest.is_file():
        raise ValueError(f"no manifest at {location}: expected {MANIFEST_EXPECTED}")
    return _require_some(list(_manifest_samples(manifest, path_columns)), manifest)


def require_both_classes(samples: Sequence[Sample], where: str = "") -> None:
    """ValueError unless there are real and generated samples: neither training nor a ranking works without both.

    where: what the samples are, for the message.
    """
    generated = sum(sample.label for sample in samples)
    if not 0 < generated < len(samples):
        raise ValueError(
            f"expected real (label 0) and generated (label 1) images{where and f' in {where}'}, "
            f"found {len(samples) - generated} real and {generated} generated"
        )


def write_manifest(samples: Iterable[Sample], path: str | Path, notes: Iterable[str] | None = None) -> None:
    """Write samples as JSONL that `read_samples` gives back; paths relative to the manifest's folder.

    notes: a text a sample, for a further column `note`, which readers ignore.
    Atomic: a reader sees the old file or the new one, and a failed write leaves the old. A missing folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.resolve()
    rows: Iterable[dict[str, Any]] = (_row(sample, folder) for sample in samples)
    if notes is not None:
        rows = (row | {"note": note} for row, note in zip(rows, notes, strict=True))
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        # A file name may hold any bytes. Python has a stray one as \udcxx, and that is how JSON spells it too.
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as lines:
            for row in rows:
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        os.chmod(temporary, 0o644)  # mkstemp makes a file for its owner only
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _require_some(samples: list[Sample], location: Path) -> list[Sample]:
    if not samples:
        raise ValueError(f"no image is listed by {location}: expected at least one")
    return samples


def _class_samples(root: Path, class_folders: tuple[str, str], label: int) -> Iterator[Sample]:
    for path, below in list_images(root / class_folders[label]):
        folder, slash, _ = below.partition("/")
        origin = folder if slash else ""
        yield Sample(
            path=path,
            label=label,
            generator=origin if label == GENERATED else "",
            scene="",
            source=origin if label == REAL else "",
            split_group=f"{class_folders[label]}/{below}",
        )


def _row(sample: Sample, folder: Path) -> dict[str, Any]:
    """A sample as a manifest row; the fields that most data sets lack are left out where they say nothing."""
    row = sample._asdict() | {"path": relative_path(sample.path, folder)}
    if sample.original:
        row["original"] = relative_path(sample.original, folder)
    return {name: value for name, value in row.items() if value or name not in Sample._field_defaults}


def relative_path(path: str | Path, folder: Path) -> str:
    """The path as seen from the folder; from another drive of Windows, from where it cannot be seen, the whole one."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return Path(os.path.abspath(path)).as_posix()


def _manifest_samples(manifest: Path, path_columns: Sequence[str]) -> Iterator[Sample]:
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows}
    if manifest.suffix.lower() not in readers:
        found = f"found a {manifest.suffix or 'suffix-less'} file"
        raise ValueError(f"cannot read {manifest}: expected {FOLDER_EXPECTED}, {MANIFEST_EXPECTED}; {found}")
    # Resolve the folder before joining, so that a row's `..` means what the operating system would make of it.
    folder = manifest.parent.resolve()
    first_lines: dict[Path, int] = {}
    try:
        for line, row in readers[manifest.suffix.lower()](manifest):
            try:
                sample = _sample(row, folder, path_columns)
                earlier = first_lines.setdefault(sample.path, line)
                if earlier != line:
                    raise ValueError(f"expected each path once, found {sample.path} on line {earlier} already")
            except ValueError as error:
                raise ValueError(f"{manifest}, line {line}: {error}") from error
            yield sample
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{manifest}: expected UTF-8 text, one row per image; {error}") from error


def _jsonl_rows(manifest: Path) -> Iterator[tuple[int, Any]]:
    with open(manifest, encoding="utf-8-sig") as lines:
        for line, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{manifest}, line {line}: expected a JSON object, found {text[:80]!r}") from error
            yield line, row


def _csv_rows(manifest: Path) -> Iterator[tuple[int, Any]]:
    with open(manifest, encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        for row in rows:
            more = row.pop(None, [])
            if any(more):  # a comma in a path, for instance: what is left of it may be another file
                found = f"expected {len(row)} cells, found {len(row) + len(more)}: {', '.join(more)} has no column"
                raise ValueError(f"{manifest}, line {rows.line_num}: {found}")
            if label := row.get("label"):
                row["label"] = {"0": 0, "1": 1}.get(label.strip(), label)
            yield rows.line_num, row


def _sample(row: Any, folder: Path, path_columns: Sequence[str]) -> Sample:
    """A manifest row as a sample; ValueError says what is wrong with it."""
    if not isinstance(row, Mapping):
        raise ValueError(f"expected an object with {path_columns[0]} and label, found {row!r}")
    path = next((row[name] for name in path_columns if row.get(name)), None)
    label = row.get("label")
    if not isinstance(path, str):
        columns = " or ".join(path_columns)
        raise ValueError(f"expected a path in column {columns}, found columns {', '.join(map(str, row))}")
    if "label" not in row:
        raise ValueError(f"expected a column label, found columns {', '.join(map(repr, row))}")
    if type(label) is not int or label not in (REAL, GENERATED):
        raise ValueError(f"expected label 0 (real) or 1 (generated), found {label!r}")
    texts = {name: row.get(name) or "" for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"expected a text as {name}, found {text!r}")
    for name, text in {"path": path, **texts}.items():
        if lone := _LONE_SURROGATE.search(text):
            raise ValueError(f"expected text as {name}, found half a character ({ascii(lone[0])[1:-1]}) in {text!a}")
    if label == REAL and texts["generator"]:
        raise ValueError(f"expected no generator for a real image (label 0), found {texts['generator']!r}")
    if texts["split"] not in ("", *SPLITS):  # else what is called "testing" would be trained on
        raise ValueError(f"expected {', '.join(SPLITS)} or nothing as split, found {texts['split']!r}")
    # The path as listed, not as resolved: splits stay the same when a data set moves to another disk.
    texts["split_group"] = texts["split_group"] or path
    if texts["original"]:
        texts["original"] = os.path.normpath(folder / texts["original"])
    return Sample(Path(os.path.normpath(folder / path)), label, **texts)
