"""One at a time, whoever is killed, also where the lock's file goes away in between."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apn import lock
from apn.lock import alone

HOLDER = """
import sys, time
from pathlib import Path
from apn.lock import alone
with alone(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(100)
"""


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "made" / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        told = rf"^it is being written by process {holder.pid} of .+ \(its lock is {path}\): expected no other run"
        with pytest.raises(ValueError, match=told), alone(path, "it"):
            pass
        holder.kill()
        holder.wait()
    assert path.exists()
    with alone(path, "it"):
        assert path.read_text().startswith(f"process {os.getpid()} of ")
    assert not path.exists()


def test_several_processes_of_torchrun_are_told_what_they_cannot_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # alone it is of another launcher, whose processes may have an --out each
    with alone(tmp_path / ".lock", "it"), pytest.raises(ValueError, match=r"choose another --out$"):
        alone(tmp_path / ".lock", "it").__enter__()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    told = r"torchrun started 2 processes: `apn train` alone shares one --out among them, start other commands without"
    with alone(tmp_path / ".lock", "it"), pytest.raises(ValueError, match=told):
        alone(tmp_path / ".lock", "it").__enter__()


def test_what_fails_inside_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(KeyboardInterrupt), alone(path, "it"):
        raise KeyboardInterrupt
    with alone(path, "it"), pytest.raises(ValueError, match="expected no other run"), alone(path, "it"):
        pass
    with alone(path, "it"):  # the one that was refused has not given back the other's
        path.unlink()  # with the result's folder, by somebody
    assert not path.exists()


def test_a_file_where_a_folder_should_be_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "file/deeper"):
        with pytest.raises(ValueError, match=r"expected a folder to write to, found a file on the way to .*file"):
            alone(tmp_path / folder / ".lock", "it").__enter__()


def test_a_lock_on_a_file_that_the_run_before_has_removed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock, opened = tmp_path / ".lock", fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        opened.append(descriptor)
        if len(opened) == 1:
            path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with alone(path, "it"):
        assert (len(opened), path.exists()) == (2, True)
        with pytest.raises(ValueError, match="expected no other run"), alone(path, "it"):
            pass


def test_a_file_system_without_locks_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(number: int) -> None:
        def flock(*_: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(lock.fcntl, "flock", flock)

    raising(errno.ENOLCK)
    with alone(tmp_path / ".lock", "it"), alone(tmp_path / ".lock", "it"):
        pass
    raising(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), alone(tmp_path / ".lock", "it"):
        pass
