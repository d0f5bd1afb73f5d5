"""Files here and elsewhere: any address that fsspec knows, and a folder of results whose files are never half there."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from apn.lock import alone
from apn.provenance import clean
from apn.wholefile import UNFINISHED, write_whole


class UnreachableError(ValueError):
    """The file system of an address cannot be opened; the cause says why, and whether trying again may help."""


def open_address(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address (`s3://bucket/key`, or a path of this machine) and the path in it.

    Raises ValueError where the address names a protocol that is not known, or whose package is not installed, and
    UnreachableError where the file system connects when it is made (ftp, sftp) and cannot.
    """
    try:
        # A cache of listings would hold every name ever listed.
        file_system, path = url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{address!r} cannot be opened: expected a path, or an address whose package is installed "
            f"(s3fs for s3://, gcsfs for gs://): {error}"
        ) from error
    except Exception as error:  # so broad because each file system raises its own package's errors
        raise UnreachableError(f"{address!r} cannot be reached: {_told(error)}") from error
    return file_system, path


@contextmanager
def reaching(file_system: AbstractFileSystem, path: str) -> Iterator[None]:
    """Whatever goes wrong inside with a file of another machine (no credentials, a wrong key, no such bucket, nobody
    there) is a ValueError that says where. Errors of this machine pass as they are, and so do our own."""
    try:
        yield
    except Exception as error:  # so broad because each file system raises its own package's errors
        if is_local(file_system) or isinstance(error, ValueError):
            raise
        raise ValueError(f"{full_address(file_system, path)!r} cannot be reached: {_told(error)}") from error


def _told(error: Exception) -> str:
    return clean(str(error))[:200] or type(error).__name__


def is_local(file_system: AbstractFileSystem) -> bool:
    """Whether its paths are those of this machine."""
    return isinstance(file_system, LocalFileSystem)


def full_address(file_system: AbstractFileSystem, path: str) -> str:
    """What opens the same file from anywhere: a plain path where it is of this machine."""
    return path if is_local(file_system) else str(file_system.unstrip_protocol(path))


def open_table(file: Any) -> pq.ParquetFile:
    """A Parquet table of an open file, read page by page. pyarrow's default is to fetch and hold whole row groups,
    which in a table that was written in one go is all of it."""
    return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)


LOCK = ".lock"


class Store:
    """A folder of files that are there as a whole or not at all, whenever a writer is killed.

    On this machine (or what is mounted on it) a file is written beside its place and renamed; object stores (S3, GCS,
    Azure) show an object only once it has arrived, so there it is written directly.
    """

    def __init__(self, location: str) -> None:
        self._fs, self._root = open_address(location)
        self.location = full_address(self._fs, self._root)

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.location,)

    def alone(self) -> AbstractContextManager[None]:
        """While it is open, another run that comes to this folder gets a ValueError (`apn.lock`).

        Object stores have no locks: there nothing is held.
        """
        return alone(Path(self._root, LOCK), self.location) if is_local(self._fs) else nullcontext()

    def write(self, name: str, content: bytes) -> None:
        """The file `name` (parts joined by slashes) with this content, replacing an earlier one in one step.

        Raises ValueError where a file of this machine cannot be written.
        """
        path = f"{self._root}/{name}"
        if is_local(self._fs):
            _write_locally(Path(path), content)
        else:
            with reaching(self._fs, path):
                self._fs.pipe_file(path, content)

    def read(self, name: str) -> bytes | None:
        """What the file holds; None where there is none."""
        path = f"{self._root}/{name}"
        with reaching(self._fs, path):
            try:
                return bytes(self._fs.cat_file(path))
            except FileNotFoundError:
                return None

    def open(self, name: str) -> Any:
        """The file, open for reading and seeking."""
        path = f"{self._root}/{name}"
        with reaching(self._fs, path):
            return self._fs.open(path, "rb")

    def has(self, name: str) -> bool:
        path = f"{self._root}/{name}"
        with reaching(self._fs, path):
            return bool(self._fs.exists(path))

    def remove(self, name: str) -> None:
        """Removes the file, if it is there."""
        path = f"{self._root}/{name}"
        with reaching(self._fs, path):
            try:
                self._fs.rm_file(path)
            except FileNotFoundError:
                return

    def rename(self, name: str, to: str) -> None:
        """Gives a file another name, replacing what has it; on this machine a full disk has room for that."""
        if is_local(self._fs):
            os.replace(f"{self._root}/{name}", f"{self._root}/{to}")
        else:
            with reaching(self._fs, f"{self._root}/{to}"):
                self._fs.mv(f"{self._root}/{name}", f"{self._root}/{to}")

    def names(self, folder: str = "") -> list[str]:
        """Names of the files and folders in a folder, in no order; none where there is no such folder."""
        where = f"{self._root}/{folder}".rstrip("/")
        if is_local(self._fs):  # fsspec would look at every file
            return os.listdir(where) if os.path.isdir(where) else []
        with reaching(self._fs, where):
            try:
                return [str(name).rstrip("/").rpartition("/")[2] for name in self._fs.ls(where, detail=False)]
            except FileNotFoundError:
                return []

    def names_that_count(self, folder: str = "") -> list[str]:
        """As `names`, without the lock, and what killed writers and file managers leave."""
        return [
            name for name in self.names(folder) if not name.endswith(UNFINISHED) and name not in (LOCK, ".DS_Store")
        ]

    def remove_unfinished(self, folder: str = "") -> None:
        """What killed writers have left in a folder. A writer that is at it now begins again."""
        for name in self.names(folder):
            if name.endswith(UNFINISHED):
                self.remove(f"{folder}/{name}".lstrip("/"))


_TRIES = 3  # at a file that is swept away before it is finished


def _write_locally(path: Path, content: bytes) -> None:
    for _ in range(_TRIES):
        try:
            write_whole(path, content)
            return
        except FileNotFoundError:  # another run on the same OUT has just removed what is unfinished
            continue
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error
    raise ValueError(f"{path} cannot be written: it was removed {_TRIES} times at it. Has another run the same --out?")
