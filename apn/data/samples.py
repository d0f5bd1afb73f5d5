"""Lists of labelled images, read from a folder or a manifest and written as a manifest.

Two layouts (docs/data.md):
- a folder with `real/` and `generated/`; their first sub-folders name the source and the generator;
- a manifest, `.jsonl` or `.csv`, with a row per image: `path` (or `img_path`), `label`, and optionally `generator`,
  `scene`, `source`, `split_group`; a folder that holds a `manifest.jsonl` stands for it.
Labels come from these names or this column only, never from the order of a directory listing.
"""

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apn.image import find_images

REAL, GENERATED = 0, 1
CLASS_FOLDERS = {"real": REAL, "generated": GENERATED}
MANIFEST = "manifest.jsonl"
LAYOUTS = f"expected a folder with real/ and generated/, a folder with {MANIFEST}, or a .jsonl or .csv manifest"


class Sample(NamedTuple):
    """One labelled image file; opened by `apn.data.dataset`."""

    path: Path
    label: int  # 0 real, 1 generated
    generator: str  # what made the picture; "" for a real one, or where nobody said
    scene: str  # what it shows; "" where nobody said
    source: str  # where the file came from; "" where nobody said
    split_group: str  # never spans two splits (a prompt, a subject); the path as listed where nobody said


def read_samples(location: str | Path) -> list[Sample]:
    """Read either layout: manifest rows in their order, folders in path order. Files are not opened.

    ValueError if the location is missing, fits no layout, lists no image or one twice, or has a bad row (its line
    number is named). A class without images is fine here; see `require_both_classes`.
    """
    location = Path(location)
    if not location.exists():
        raise ValueError(f"{location} does not exist: {LAYOUTS}")
    if location.is_dir() and (location / MANIFEST).is_file():
        location /= MANIFEST
    samples = list(_folder_samples(location) if location.is_dir() else _manifest_samples(location))
    if not samples:
        raise ValueError(f"no image is listed by {location}: expected at least one")
    return samples


def require_both_classes(samples: Sequence[Sample]) -> None:
    """ValueError unless there are real and generated samples: neither training nor a ranking works without both."""
    generated = sum(sample.label for sample in samples)
    if not 0 < generated < len(samples):
        raise ValueError(
            f"expected real (label 0) and generated (label 1) images, found {len(samples) - generated} real and "
            f"{generated} generated"
        )


def write_manifest(samples: Iterable[Sample], path: str | Path) -> None:
    """Write samples as JSONL that `read_samples` gives back; paths relative to the manifest's folder.

    Atomic: a reader sees the old file or the new one, and a failed write leaves the old.
    """
    path = Path(path)
    folder = path.parent.resolve()
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as lines:
            for sample in samples:
                relative = Path(os.path.relpath(sample.path, folder)).as_posix()
                lines.write(json.dumps(sample._asdict() | {"path": relative}, ensure_ascii=False) + "\n")
        os.chmod(temporary, 0o644)  # mkstemp makes a file for its owner only
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _folder_samples(folder: Path) -> Iterator[Sample]:
    if not all((folder / name).is_dir() for name in CLASS_FOLDERS):
        found = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        raise ValueError(f"no images in {folder}: {LAYOUTS}; found {shown or 'an empty folder'}")
    for name, label in CLASS_FOLDERS.items():
        for path in find_images([folder / name]):
            inside = path.relative_to(folder / name).parts
            origin = inside[0] if len(inside) > 1 else ""
            yield Sample(
                path=path,
                label=label,
                generator=origin if label == GENERATED else "",
                scene="",
                source=origin if label == REAL else "",
                split_group=path.relative_to(folder).as_posix(),
            )


def _manifest_samples(manifest: Path) -> Iterator[Sample]:
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows}
    if manifest.suffix.lower() not in readers:
        raise ValueError(f"cannot read {manifest}: {LAYOUTS}; found a {manifest.suffix or 'suffix-less'} file")
    # Resolve the folder before joining, so that a row's `..` means what the operating system would make of it.
    folder = manifest.parent.resolve()
    first_lines: dict[Path, int] = {}
    try:
        for line, row in readers[manifest.suffix.lower()](manifest):
            try:
                sample = _sample(row, folder)
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
            label = row.get("label")
            yield rows.line_num, row | {"label": {"0": 0, "1": 1}.get((label or "").strip(), label)}


def _sample(row: Any, folder: Path) -> Sample:
    """A manifest row as a sample; ValueError says what is wrong with it."""
    if not isinstance(row, Mapping):
        raise ValueError(f"expected an object with path and label, found {row!r}")
    path, label = row.get("path") or row.get("img_path"), row.get("label")
    if not isinstance(path, str):
        raise ValueError(f"expected a path (or img_path), found columns {', '.join(map(str, row))}")
    if type(label) is not int or label not in (REAL, GENERATED):
        raise ValueError(f"expected label 0 (real) or 1 (generated), found {label!r}")
    texts = {name: row.get(name) or "" for name in ("generator", "scene", "source", "split_group")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"expected a text as {name}, found {text!r}")
    if label == REAL and texts["generator"]:
        raise ValueError(f"expected no generator for a real image (label 0), found {texts['generator']!r}")
    # The path as listed, not as resolved: splits stay the same when a data set moves to another disk.
    texts["split_group"] = texts["split_group"] or path
    return Sample(Path(os.path.normpath(folder / path)), label, **texts)
