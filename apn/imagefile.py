"""Files that may be images: found in folders, opened whatever they are, and what is wrong with them in plain words."""

import io
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any, BinaryIO

from apn.provenance import clean

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ico"}
    | {".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
)

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

# Without any handler Python prints Pillow's log of a damaged file to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class ImageError(ValueError):
    """The image cannot be loaded; the message says why in one sentence for a reader without a traceback."""


def find_images(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Files named, and image files (IMAGE_EXTENSIONS) of the folders named with all folders in them, in order of name.

    A path that is not a folder is always yielded, whatever its extension and whether or not it exists, and so is a
    folder that cannot be listed: loading it gives the error to report. In folders hidden files and folders are skipped,
    links are followed, and no folder is visited twice.
    """
    for path in map(Path, paths):
        visited: set[tuple[int, int]] = set()
        waiting = [path]
        while waiting:
            current = waiting.pop()
            if not os.path.isdir(current):  # not Path.is_dir, which raises without permission
                yield current
                continue
            try:
                status = os.stat(current)
                names = sorted(os.listdir(current), reverse=True)
            except OSError:
                yield current
                continue
            if (identity := (status.st_dev, status.st_ino)) not in visited:
                visited.add(identity)
                waiting += [current / name for name in names if _is_wanted(current, name)]


def _is_wanted(folder: Path, name: str) -> bool:
    if name.startswith("."):
        return False
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS or os.path.isdir(folder / name)


# Opening --------------------------------------------------------------------------------------------------------------


def is_source(value: object) -> bool:
    """Whether it is of a kind that holds a file; one that was opened as text does not."""
    if isinstance(value, str | os.PathLike | bytes | bytearray | memoryview):
        return True
    return hasattr(value, "read") and not isinstance(value, io.TextIOBase)


@contextmanager
def readable(source: Any) -> Iterator[BinaryIO]:
    """The opened source; whatever goes wrong with it is an ImageError in plain words."""
    if not is_source(source):
        raise TypeError(f"source must be a path, bytes or a binary file, found {type(source).__name__}")
    try:
        with _opened(source) as file, _pillow_warnings_ignored:
            yield file
    except ImageError:
        raise
    except Exception as error:  # so broad because decoders raise anything for hostile bytes, even MemoryError
        raise ImageError(_in_plain_words(error)) from error


@contextmanager
def _opened(source: Any) -> Iterator[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif hasattr(source, "read"):
        yield io.BytesIO(source.read())
    else:
        if stat.S_ISDIR(mode := os.stat(source).st_mode):
            listable = os.access(source, os.R_OK | os.X_OK)
            raise ImageError("a folder, not an image file" if listable else "no permission to list this folder")
        if not stat.S_ISREG(mode):
            raise ImageError("a pipe, socket or device, not an image file")
        # Should a pipe have taken the file's place meanwhile, opening must not wait for a writer.
        no_wait = getattr(os, "O_NONBLOCK", 0)
        with open(source, "rb", opener=lambda path, flags: os.open(path, flags | no_wait)) as file:
            yield file


def state_of(file: BinaryIO) -> tuple[int, int] | None:
    """What changes when somebody writes to an open file: its size in bytes, its time in ns. None for one in memory."""
    if isinstance(file, io.BytesIO):
        return None
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def sha256_of(file: BinaryIO, before: tuple[int, int] | None) -> str:
    """Of the whole file that is open, whatever has its name by now, in hexadecimal.

    before: its state when reading began. Raises ImageError where it has another one: who can say which bytes were read?
    """
    file.seek(0)
    found = file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if state_of(file) != before:
        raise ImageError("the file was changed while it was read")
    return found


class _IgnorePillowWarnings:
    """Ignores warnings raised inside Pillow for as long as any thread decodes.

    `warnings.catch_warnings` saves and restores the whole list of filters, which two threads would do in the wrong
    order. Here the first thread in adds one rule and the last one out removes it. The list is changed directly because
    `warnings.filterwarnings` also forgets which warnings of other modules have been shown already, on every image.
    """

    rule = ("ignore", None, Warning, re.compile(r"(PIL|pillow_heif)\b"), 0)

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0

    def __enter__(self) -> None:
        filters: Any = warnings.filters
        with self.lock:
            self.users += 1
            if self.rule not in filters:
                filters.insert(0, self.rule)

    def __exit__(self, *error: object) -> None:
        filters: Any = warnings.filters
        with self.lock:
            self.users -= 1
            if not self.users and self.rule in filters:
                filters.remove(self.rule)


_pillow_warnings_ignored = _IgnorePillowWarnings()


def _in_plain_words(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "no permission to read the file"
        case MemoryError():
            return "not enough memory to decode the image"
        case OSError(strerror=str(reason)):
            return f"the file cannot be read ({reason})"
    detail = clean(str(error))[:200] or type(error).__name__
    return f"the image data is damaged or of a kind that is not supported ({detail})"
