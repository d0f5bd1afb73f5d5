"""Being here puts this folder on the import path: `golden_rule` and `tiny` serve the tests of every folder."""

import os
import sys

# Beside each other, the workers of pytest-xdist share the processor: before anything reads how many threads to start.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))

import pytest
from hypothesis import settings

from apn.cli import main

# A shared machine may stall for seconds, which says nothing about the code; the same examples every time.
settings.register_profile("apn", deadline=None, derandomize=True)
settings.load_profile("apn")


@pytest.fixture
def apn(monkeypatch, capsys):
    """Runs `apn ARGUMENTS` in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["apn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run
