"""Files that are never half there, whenever their writer is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

UNFINISHED = ".unfinished"  # the end of the name of what is still being written; a dot begins it


def write_whole(path: Path, content: bytes) -> None:
    """As `open_whole`, of a file that is there in memory."""
    with open_whole(path) as file:
        file.write(content)


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its place at the end of the block: readers see the old one or the new one, on disk
    too. Missing folders are made; errors leave nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: a worker that is thought dead may still be writing the same file.
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:  # a full disk, Ctrl-C
        with suppress(OSError):  # of the two errors the first says what is wrong
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:  # a full disk: of what?
            error.filename = str(path)
        raise
