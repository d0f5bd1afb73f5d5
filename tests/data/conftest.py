"""Data sets in miniature that several files of tests read."""

from pathlib import Path

import pytest
from data.trees import make_genimage


@pytest.fixture(scope="module")
def genimage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_genimage(tmp_path_factory.mktemp("genimage"), 2, size=8)
