"""One run at a time on one result: a lock of the operating system, which ends with its process, however that ends.

The lock is on an open file and not the file itself, so that one which a killed process has left blocks nobody. It holds
against all processes of this machine; of other machines on a network file system that passes locks on (NFS 4 and SMB
do, Lustre only if mounted so). Where the file system has no locks, nothing is held.
"""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FAR = 1 << 30  # byte that Windows locks: beyond the text, which others may then read
_TRIES = 100  # at a file that the run before removes between opening and locking
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # says a file system that has none


@contextmanager
def alone(path: Path, writes: object) -> Iterator[None]:
    """Whoever else comes to the same `path` while this is open, of this process too, gets a ValueError at once.

    path: the file of the lock, made and removed here, its folder too where there is none. writes: what the error says
    is being written. Raises ValueError where a file is in the place of a folder, OSError where none can be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"expected a folder to write to, found a file on the way to {path.parent}/") from error
    descriptor = _take(path, writes)
    try:
        yield
    finally:
        if sys.platform == "win32":  # an open file cannot be removed, and one that another run has just opened stays
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
        else:
            with suppress(OSError):  # who has removed the result's folder has removed this too
                path.unlink()
            os.close(descriptor)


def _take(path: Path, writes: object) -> int:
    """The descriptor of the locked file."""
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                raise ValueError(
                    f"{writes} is being written by {_owner(descriptor)} (its lock is {path}): expected no other run on "
                    f"it; wait for that one, end it, or choose another --out{_of_torchrun()}"
                )
            if _is_at(descriptor, path):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise ValueError(f"{path} cannot be locked: it was removed {_TRIES} times at it")


def _of_torchrun() -> str:
    """What is likely to be wrong where torchrun started several of us, all with the same --out."""
    processes = os.environ.get("WORLD_SIZE", "1") if "TORCHELASTIC_RUN_ID" in os.environ else "1"
    if processes == "1":
        return ""
    return (
        f". torchrun started {processes} processes: `apn train` alone shares one --out among them, start other "
        "commands without torchrun"
    )


def _lock(descriptor: int) -> bool:
    """Whether nobody else has it."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} of {socket.gethostname()}".encode())


def _owner(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        text = os.read(descriptor, 200).decode("utf-8", "replace")
    except OSError:  # a locked file of SMB cannot be read
        text = ""
    return text or "a process that does not say which"
