"""The images of a shard's entries, one at a time: what a worker reads."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from apn.image import ImageError, LoadedImage, load_image
from apn.provenance import clean
from apn.scan.entries import Empty, Entry, File, Link, Member, Rows, Tar, member_name, name_of, row_name
from apn.scan.fetching import MAX_BYTES, check_size, patiently, start_of
from apn.scan.files import is_local, open_address, open_table
from apn.scan.tars import Lost, walk_tar

ROWS_AT_ONCE = 16  # of a table: this many images are held beside those that are being scored


@dataclass
class Image:
    """One image to score. source: a path of this machine, the file's bytes, or what fetches them."""

    name: str
    source: str | bytes | Callable[[], bytes] = b""
    error: str | None = None  # why there is nothing to load
    sha256: str | None = None  # of the file, once it is loaded and where that is asked for

    def load(self, *, digest: bool = False, **options: Any) -> LoadedImage:
        """As `apn.image.load_image`, which `options` go to. Raises ImageError."""
        if self.error is not None:
            raise ImageError(self.error)
        # Of a path it reads only what it needs, and no pipe or device.
        source: Any = self.source if isinstance(self.source, str) else _Content(self.source)
        loaded = load_image(source, digest=digest, **options)
        self.sha256 = loaded.sha256
        return loaded


class _Content:
    """A file to `load_image`, which says in plain words what goes wrong when it is read."""

    def __init__(self, source: bytes | Callable[[], bytes]) -> None:
        self._source = source

    def read(self) -> bytes:
        return self._source if isinstance(self._source, bytes) else self._source()


def images_in(entries: Iterable[Entry], max_bytes: int = MAX_BYTES) -> Iterator[Image]:
    """Every image of the entries, in order; a table or tar that cannot be read, or read on, is one with `error`.

    max_bytes: of a file that has to be held in memory, which all are but those of this machine; one of more has `error`
    or raises it when it is loaded.
    """
    for entry in entries:
        if isinstance(entry, File):
            yield _file(entry, max_bytes)
        elif isinstance(entry, Member):
            yield _member(entry, max_bytes)
        elif isinstance(entry, Link):
            yield _lost(entry)
        elif isinstance(entry, Empty):
            yield Image(name_of(entry), error="expected a path, found an empty cell")
        else:
            yield from _guarded(entry, max_bytes)


def _file(entry: File, max_bytes: int) -> Image:
    if "://" not in entry.path:
        return Image(entry.path, entry.path)
    try:
        file_system, path = patiently(partial(open_address, entry.path))
    except ImageError as error:
        return Image(entry.path, error=str(error))
    if is_local(file_system):
        return Image(entry.path, path)
    return Image(entry.path, partial(patiently, partial(start_of, file_system, path, max_bytes)))


def _member(entry: Member, max_bytes: int) -> Image:
    name = name_of(entry)
    try:
        check_size(entry.size, max_bytes)
        file_system, path = patiently(partial(open_address, entry.tar))
    except ImageError as error:
        return Image(name, error=str(error))
    read = partial(file_system.cat_file, path, start=entry.offset, end=entry.offset + entry.size)
    return Image(name, partial(patiently, read))


def _held(name: str, size: int, read: Callable[[], bytes], max_bytes: int) -> Image:
    """An image that is read now, unless it is too large."""
    try:
        check_size(size, max_bytes)
    except ImageError as error:
        return Image(name, error=str(error))
    return Image(name, read())


def _guarded(entry: Rows | Tar, max_bytes: int) -> Iterator[Image]:
    """The images of a table or tar; what goes wrong on the way is a row too, and each row of a table has one."""
    where, given = (entry.table if isinstance(entry, Rows) else entry.tar), 0
    told = None
    try:
        for image in _rows(entry, max_bytes) if isinstance(entry, Rows) else _tar(entry, max_bytes):
            yield image
            given += 1
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes its reader raise, or a server aiohttp
        told = f"{where} cannot be read: {clean(str(error))[:200] or type(error).__name__}"
    if told or isinstance(entry, Rows):
        yield from unread(entry, given, told or f"{where} has no such row any more")
    elif not given:
        yield Image(where, error="expected image files in this tar, found none")


def unread(entry: Entry, given: int, reason: str) -> Iterator[Image]:
    """What stands for the images of an entry that come after the `given` first, where they cannot be read."""
    if isinstance(entry, Rows):
        for row in range(entry.first + given, entry.first + entry.rows):
            yield Image(row_name(entry.table, row), error=reason)
    elif isinstance(entry, Tar):
        yield Image(entry.tar, error=f"{reason} (after {given} images)")
    else:
        yield Image(name_of(entry), error=reason)


def _rows(entry: Rows, max_bytes: int) -> Iterator[Image]:
    """Rows first .. first + rows - 1, from the row groups that they are in."""
    file_system, path = open_address(entry.table)
    with file_system.open(path, "rb") as file:
        table = open_table(file)
        row = 0  # the first of the row group
        for group in range(table.num_row_groups):
            after = row + table.metadata.row_group(group).num_rows
            if after > entry.first and row < entry.first + entry.rows:
                yield from _rows_of_group(entry, table, group, row, max_bytes)
            row = after


def _rows_of_group(entry: Rows, table: pq.ParquetFile, group: int, row: int, max_bytes: int) -> Iterator[Image]:
    for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group], columns=[entry.column]):
        first = max(entry.first - row, 0)
        last = min(entry.first + entry.rows - row, len(batch))
        column = batch.column(0)
        if pa.types.is_struct(column.type):
            column = column.field(0)
        for place in range(first, last):
            name, cell = row_name(entry.table, row + place), column[place]
            if cell.is_valid:
                yield _held(name, cell.as_buffer().size, cell.as_py, max_bytes)
            else:
                yield Image(name, error="expected an image, found an empty cell")
        row += len(batch)
        if row >= entry.first + entry.rows:  # the rest of the row group is other shards'
            return


def _tar(entry: Tar, max_bytes: int) -> Iterator[Image]:
    """The images that `walk_tar` finds, each read as it is come to, once for all its names."""
    for found in walk_tar(entry.tar, "r|*"):
        if isinstance(found, Lost):
            yield _lost(Link(entry.tar, *found))
            continue
        file = found.tar.extractfile(found.member)
        assert file is not None
        first, *others = (member_name(entry.tar, name) for name in found.names)
        image = _held(first, found.member.size, file.read, max_bytes)
        yield image
        yield from (replace(image, name=name) for name in others)


def _lost(entry: Link) -> Image:
    return Image(name_of(entry), error=f"a link to no file of this tar: it leads to {clean(entry.target)[:200]}")
