"""From what the user names to the entries to scan, one at a time: memory does not grow with the number of images.

The order is the same whenever the same is listed. No image is opened; what cannot be read becomes an entry whose
loading gives the error, so that it is a row of the result.
"""

import csv
import io
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa
from fsspec.spec import AbstractFileSystem

from apn.image import IMAGE_EXTENSIONS
from apn.scan.entries import Empty, Entry, File, Rows, Tar
from apn.scan.files import full_address, is_local, open_address, open_table, reaching

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# Columns that hold images or their paths, by the names that data sets give them; the first that is there is taken.
COLUMNS = ("path", "file", "file_path", "image_path", "filename", "url", "image", "bytes", "image_bytes", "jpg")
EXPECTED = (
    "a folder, an image, a list of paths (.txt), a table (.parquet, .csv), a tar, a pattern (*, ?) of these, "
    "or an address of any of them"
)


class Source(NamedTuple):
    """One SOURCE of the command line, found. kind: folder, list, parquet, csv, tar or image."""

    kind: str
    file_system: AbstractFileSystem
    path: str

    @property
    def address(self) -> str:
        return full_address(self.file_system, self.path)


def find_sources(texts: Iterable[str]) -> list[Source]:
    """What the words of the command line name; patterns become what they match.

    Raises ValueError for a word that names nothing, and for a source that is named twice or lies in another one,
    because its images would be scanned twice.
    """
    found = [source for text in texts for source in _matching(text)]
    addresses = sorted(source.address.rstrip("/") + "/" for source in found)
    for first, second in pairwise(addresses):
        if second.startswith(first):
            raise ValueError(
                f"expected sources that do not overlap, found {second.rstrip('/')} twice or in {first.rstrip('/')}"
            )
    return found


def list_entries(sources: Iterable[Source], column: str | None = None) -> Iterator[Entry]:
    """Everything to scan. column: of the tables; by default the first of COLUMNS that a table has.

    Raises ValueError for a list or table that cannot be read, or has no such column.
    """
    listers: dict[str, Callable[[Source], Iterator[Entry]]] = {
        "folder": lambda source: _walk(source.file_system, source.path),
        "list": _list_file,
        "parquet": lambda source: _parquet(source, column),
        "csv": lambda source: _csv(source, column),
        "tar": lambda source: iter([Tar(source.address)]),
        "image": lambda source: iter([File(source.address)]),
    }
    for source in sources:
        try:
            yield from listers[source.kind](source)
        except _unnamed(source.file_system) as error:
            if type(error) is ValueError:  # ours, which says where
                raise
            raise ValueError(f"{source.address} cannot be read: {error}") from error


def _unnamed(file_system: AbstractFileSystem) -> tuple[type[Exception], ...]:
    """What goes wrong with a file and does not say with which; other file systems raise their own packages' errors."""
    return (pa.ArrowException, csv.Error, OSError) if is_local(file_system) else (Exception,)


def _matching(text: str) -> list[Source]:
    if not text:  # which fsspec takes for the folder we are in: a variable of a script that is not set
        raise ValueError(f"no source '': expected {EXPECTED}, found an empty name")
    if "://" in text and "::" in text:
        raise ValueError(
            f"no source {text!r}: expected {EXPECTED}, found a chain of addresses, which only lists may hold"
        )
    file_system, path = open_address(text)
    with reaching(file_system, path):
        return _found(text, file_system, path)


def _found(text: str, file_system: AbstractFileSystem, path: str) -> list[Source]:
    if not file_system.exists(path) and any(sign in path for sign in "*?["):
        if not (paths := sorted(map(str, file_system.glob(path)))):
            raise ValueError(f"no source matches {text!r}: expected {EXPECTED}")
        return [Source(_kind(file_system, one), file_system, one) for one in paths]
    if not file_system.exists(path):
        _ask_why(file_system, path)
        raise ValueError(f"no source {text!r}: expected {EXPECTED}, found nothing there")
    return [Source(_kind(file_system, path), file_system, path)]


def _ask_why(file_system: AbstractFileSystem, path: str) -> None:
    """Raises the error that `exists` keeps to itself: to s3fs a bucket is not there where the keys are wrong."""
    if not is_local(file_system):
        with suppress(FileNotFoundError):
            file_system.ls(path)


def _kind(file_system: AbstractFileSystem, path: str) -> str:
    if file_system.isdir(path):
        return "folder"
    if path.lower().endswith(TAR_SUFFIXES):
        return "tar"
    kinds = {".txt": "list", ".parquet": "parquet", ".csv": "csv"}
    return kinds.get(posixpath.splitext(path)[1].lower(), "image")


# Folders --------------------------------------------------------------------------------------------------------------


def _walk(file_system: AbstractFileSystem, root: str) -> Iterator[Entry]:
    """Image files (IMAGE_EXTENSIONS) below a folder, by name: those of a folder, then its folders.

    Hidden ones are skipped, links followed, no folder visited twice. Held in memory: the names in one folder, and a
    number for each folder.
    """
    visited: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            if is_local(file_system):
                status = os.stat(folder)
                if (identity := (status.st_dev, status.st_ino)) in visited:
                    continue
                visited.add(identity)
            files, folders = _names(file_system, folder)
        except OSError:
            yield File(full_address(file_system, folder))
            continue
        for name in files:
            yield File(full_address(file_system, f"{folder.rstrip('/')}/{name}"))
        waiting += [f"{folder.rstrip('/')}/{name}" for name in reversed(folders)]


def _names(file_system: AbstractFileSystem, folder: str) -> tuple[list[str], list[str]]:
    """Names of the image files and of the folders in a folder, both sorted; one listing, no file touched."""
    if is_local(file_system):
        with os.scandir(folder) as found:
            pairs = [(one.name, _is_folder(one)) for one in found if not one.name.startswith(".")]
    else:
        listed: Any = file_system.ls(folder, detail=True)
        pairs = [(posixpath.basename(one["name"].rstrip("/")), one["type"] == "directory") for one in listed]
    pairs = sorted(pair for pair in pairs if pair[0] and not pair[0].startswith("."))
    images = [name for name, is_folder in pairs if not is_folder and _is_image(name)]
    return images, [name for name, is_folder in pairs if is_folder]


def _is_folder(one: "os.DirEntry[str]") -> bool:
    try:
        return one.is_dir()
    except OSError:  # a link that leads round in a circle, or to where we may not look
        return False


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in IMAGE_EXTENSIONS


# Lists and tables -----------------------------------------------------------------------------------------------------


# Without the mark that programs of Windows put first; the names of files may hold any bytes.
_TEXT = ("utf-8-sig", "surrogateescape")


def _list_file(source: Source) -> Iterator[Entry]:
    """A path or address a line; paths are relative to the list's folder."""
    with source.file_system.open(source.path, "rb") as file:
        lines = io.TextIOWrapper(file, *_TEXT, newline="\n")
        for line in lines:
            if text := line.strip("\r\n"):
                yield _named(text, source)


def _csv(source: Source, column: str | None) -> Iterator[Entry]:
    with source.file_system.open(source.path, "rb") as file:
        rows = csv.DictReader(io.TextIOWrapper(file, *_TEXT, newline=""))
        name = _choose_column(source, list(rows.fieldnames or ()), column)
        for number, row in enumerate(rows):
            yield _cell(row[name], number, source)


def _parquet(source: Source, column: str | None) -> Iterator[Entry]:
    """Its rows where the column holds bytes (or a struct with `bytes`, as data sets of images do), else its paths."""
    with source.file_system.open(source.path, "rb") as file:
        table = open_table(file)
        schema = table.schema_arrow
        name = _choose_column(source, schema.names, column)
        kind = schema.field(name).type
        if not table.metadata.num_rows:  # its column may have any type, or none
            return
        if _is_binary(kind):
            yield Rows(source.address, name, 0, table.metadata.num_rows)
        elif pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            yield Rows(source.address, f"{name}.bytes", 0, table.metadata.num_rows)
        elif _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
            batches = table.iter_batches(batch_size=4096, columns=[name])
            paths = (path for batch in batches for path in batch.column(0).to_pylist())
            yield from (_cell(path, number, source) for number, path in enumerate(paths))
        else:
            raise ValueError(
                f"{source.address}, column {name!r}: expected paths (string) or images (binary, or a struct with "
                f"`bytes`), found {kind}"
            )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _choose_column(source: Source, names: list[str], column: str | None) -> str:
    for name in COLUMNS if column is None else (column,):
        if name in names:
            return name
    wanted = f"column {column!r}" if column else "a column of images or paths, named by --column"
    raise ValueError(f"{source.address}: expected {wanted}, found {', '.join(names) or 'no column'}")


def _cell(text: str | None, row: int, source: Source) -> Entry:
    """The entry of a table's cell; joined to the table's folder, an empty one would name that."""
    return _named(text, source) if text else Empty(source.address, row)


def _named(text: str, source: Source) -> Entry:
    """The entry of a path or address as a list has it."""
    if "://" not in text:
        text = full_address(source.file_system, posixpath.join(posixpath.dirname(source.path), text))
    return Tar(text) if text.lower().endswith(TAR_SUFFIXES) else File(text)
