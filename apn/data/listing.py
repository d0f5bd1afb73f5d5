"""Image files below a folder, fast enough for data sets of millions: one listing a folder, no file touched."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from apn.image import IMAGE_EXTENSIONS


def list_images(root: Path) -> Iterator[tuple[Path, str]]:
    """Image files (IMAGE_EXTENSIONS) below a folder, each with its path below it, parts joined by slashes.

    By name: the files of a folder, then its folders. Hidden ones are skipped, links followed, no folder visited twice
    nor one that holds `root`: through it the images of another class would come in.
    ValueError for a folder that cannot be listed: a class with a part missing is another data set.
    """
    visited = {(status.st_dev, status.st_ino) for status in map(os.stat, root.resolve().parents)}
    for here, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        status = os.stat(here)
        if (identity := (status.st_dev, status.st_ino)) in visited:
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        folder = Path(here)
        below = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        for name in sorted(files):
            if _is_image(name):
                yield folder / name, below + name


def subfolders(folder: Path) -> dict[str, Path]:
    """The folders in a folder, in order of name; not hidden ones, nor those that archivers leave (`__MACOSX`)."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        _refuse(error)
    return {name: folder / name for name in names if not name.startswith((".", "__"))}


def describe_folder(folder: Path, limit: int = 8) -> str:
    """What is in a folder, for an error message: its first `limit` names, folders with a slash."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
    except OSError as error:
        _refuse(error)
    return shorten(names, limit) or "an empty folder"


def shorten(names: list[str], limit: int = 8) -> str:
    """The first `limit` names, and how many there are besides."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def _refuse(error: OSError) -> NoReturn:
    raise ValueError(f"cannot list the folder {error.filename}: {error.strerror}") from error
