"""Every file is decoded, to its end; those that cannot be are named with the reason."""

import subprocess
import sys
from pathlib import Path

import pytest
from data.trees import make_folder

from apn.data.samples import Sample, read_samples
from apn.data.verify import quarantine


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return read_samples(make_folder(tmp_path, 5, size=48))


@pytest.mark.parametrize("workers", [1, 3])
def test_quarantine_lists_what_cannot_be_read_and_why(samples: list[Sample], workers: int) -> None:
    samples[1].path.write_bytes(b"not an image")
    samples[4].path.write_bytes(samples[4].path.read_bytes()[:-300])
    samples[6].path.write_bytes(samples[6].path.read_bytes()[:2000])
    samples[8].path.unlink()
    calls: list[None] = []
    good, bad = quarantine(samples, workers, lambda: calls.append(None))
    assert good == [sample for i, sample in enumerate(samples) if i not in (1, 4, 6, 8)]
    assert [sample for sample, _ in bad] == [samples[i] for i in (1, 4, 6, 8)]
    reasons = [reason for _, reason in bad]
    for reason, expected in zip(reasons, ("known kind", "ends early", "ends early", "no such file"), strict=True):
        assert expected in reason
    assert len(calls) == 10


def test_whole_files_are_all_good(samples: list[Sample]) -> None:
    assert quarantine(samples) == (samples, [])


def test_neither_torch_nor_scikit_learn_is_needed_to_verify_and_to_summarise() -> None:
    modules = "apn.commands.data, apn.data.layouts, apn.data.verify, apn.data.summary, apn.data.probe"
    code = f"import {modules}, sys; print(sorted({{'torch', 'sklearn', 'scipy', 'pyarrow'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
