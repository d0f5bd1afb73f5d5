"""What a shard's list holds: files, rows of a table (images, or none), tars, their members, their links. JSON lines."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class File(NamedTuple):
    """An image file: a path of this machine, or an address that fsspec knows."""

    path: str


class Rows(NamedTuple):
    """Rows of a Parquet table whose column holds the bytes of image files; counted from 0 over all row groups."""

    table: str
    column: str  # `image.bytes` for a field of a struct
    first: int
    rows: int


class Tar(NamedTuple):
    """All image files of a tar."""

    tar: str


class Member(NamedTuple):
    """One file of an uncompressed tar: `size` bytes from `offset` on."""

    tar: str
    name: str
    offset: int
    size: int


class Link(NamedTuple):
    """A link of a tar to no file of it."""

    tar: str
    name: str
    target: str


class Empty(NamedTuple):
    """A row of a table of paths that names none."""

    table: str
    row: int  # counted from 0


Entry = File | Rows | Tar | Member | Link | Empty
_KINDS = {frozenset(kind._fields): kind for kind in (Rows, Tar, Member, Link, Empty)}


def images_of(entry: Entry) -> int | None:
    """How many images an entry stands for; None for a tar, which would have to be read for that."""
    if isinstance(entry, Rows):
        return entry.rows
    return None if isinstance(entry, Tar) else 1


def row_name(table: str, row: int) -> str:
    """What the results call an image in a table."""
    return f"{table}#{row}"


def member_name(tar: str, member: str) -> str:
    """What the results call an image in a tar."""
    return f"{tar}#{member}"


def name_of(entry: File | Rows | Member | Link | Empty) -> str:
    """What the results call the (first) image of an entry."""
    if isinstance(entry, File):
        return entry.path
    if isinstance(entry, Empty):
        return row_name(entry.table, entry.row)
    return row_name(entry.table, entry.first) if isinstance(entry, Rows) else member_name(entry.tar, entry.name)


def encode(entries: Iterable[Entry]) -> bytes:
    """JSON lines, ASCII only: a file's name may hold any bytes (as surrogate escapes), a line feed too."""
    return "".join(f"{_line(entry)}\n" for entry in entries).encode("ascii")


def decode(lines: bytes) -> Iterator[Entry]:
    """The entries that `encode` made the lines of."""
    for line in lines.splitlines():
        yield _entry(json.loads(line))


def _line(entry: Entry) -> str:
    return json.dumps(entry.path if isinstance(entry, File) else entry._asdict())


def _entry(value: Any) -> Entry:
    if isinstance(value, str):
        return File(value)
    kind: Any = _KINDS[frozenset(value)]
    entry: Entry = kind(**value)
    return entry
