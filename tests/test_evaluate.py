"""Scoring: a row an image and protocol, in order, whatever fails; killed runs go on where they stopped."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from apn import scoreparts, scorewriter
from apn.calibration import Calibration
from apn.crops import center_crop
from apn.data.samples import Sample, require_both_classes
from apn.data.transforms import jpeg
from apn.detector import Detector
from apn.evaluate import Counts, data_sha256, measure_shortcuts, refuse_repeats, score_samples, show, table_facts
from apn.lock import alone
from apn.protocols import Protocol
from apn.scoreparts import RowGroup
from apn.scoretable import Scores, Shortcut, read_scores

SIZE = 32
NATIVE, ALIGNED = Protocol("native"), Protocol("aligned", SIZE)


class BrightnessBackend:
    """Logit: the crop's mean, from -8 (black) to 8 (white). Remembers how many crops came at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.batches.append(len(crops))
        mean = crops.reshape(len(crops), -1).mean(axis=1) / 255
        return np.stack([np.zeros(len(crops)), 16 * mean - 8], axis=1).astype(np.float32)


def make_detector(backend=None, sha256: str = "0" * 64) -> Detector:
    return Detector(
        backend or BrightnessBackend(),
        name="fake",
        sha256=sha256,
        crop_size=SIZE,
        calibration=Calibration(generated_from=0.7, target_fpr=0.05),
        backend_name="onnx",
    )


def make_samples(folder: Path, count: int = 12) -> list[Sample]:
    """Noise of its own brightness in each file; every second one is generated."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        path = folder / f"{i:03}.png"
        pixels = rng.integers(0, 40 + 200 * i // count, (40, 50 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        generator = ["", "adm", "", "glide"][i % 4]
        samples.append(Sample(path, i % 2, generator, "dog", "camera", f"group {i // 2}", split="val", subset="s"))
    return samples


def run(samples: list[Sample], out: Path, protocols=(NATIVE, ALIGNED), detector=None, **options) -> Counts:
    detector, shown = detector or make_detector(), [show(protocol) for protocol in protocols]
    facts = table_facts(detector, samples, shown, data=["folder:somewhere"], command="apn score", seed=3)
    return score_samples(detector, samples, shown, out, facts, **options)


def read(out: Path) -> Scores:
    (scores,) = read_scores([out])
    return scores


def test_a_row_an_image_and_protocol_in_order(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "data")
    assert run(samples, tmp_path / "scores.parquet") == Counts(24, 0, 0)
    scores = read(tmp_path / "scores.parquet")
    assert scores.paths.to_pylist() == [str(sample.path) for sample in samples] * 2
    np.testing.assert_array_equal(scores.labels, [sample.label for sample in samples] * 2)
    np.testing.assert_array_equal(scores.groups, np.tile(np.arange(12) // 2, 2))
    np.testing.assert_array_equal(scores.protocol.where(ALIGNED.title), [False] * 12 + [True] * 12)
    assert scores.generator.present() == ["adm", "glide"]
    texts = [getattr(scores, name).present() for name in ("scene", "source", "split", "subset", "degradation", "level")]
    assert texts == [["dog"], ["camera"], ["val"], ["s"], [], []]
    detector = make_detector()
    for i, sample in enumerate(samples):
        pixels = np.asarray(Image.open(sample.path))
        for row, image in ((i, pixels), (12 + i, jpeg(center_crop(pixels, SIZE), 96))):
            expected = detector.detect(image, stability=False)
            assert scores.logits[row] == expected.logit
            assert scores.probabilities[row] == expected.probability


def test_the_table_says_where_it_comes_from(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "data", 4)
    run(samples, tmp_path / "scores.parquet", protocols=(ALIGNED,))
    facts = read(tmp_path / "scores.parquet").facts
    assert (facts.weights, facts.sha256, facts.backend) == ("fake", "0" * 64, "onnx")
    assert (facts.protocols, facts.data, facts.images) == ((ALIGNED.title,), ("folder:somewhere",), 4)
    assert (facts.thresholds.generated_from, facts.thresholds.target_fpr) == (0.7, 0.05)
    assert (facts.seed, facts.command, facts.data_sha256) == (3, "apn score", data_sha256(samples))
    metadata = pq.read_schema(tmp_path / "scores.parquet").metadata
    assert json.loads(metadata[b"apn"])["weights"] == "fake"


def test_crops_of_several_images_share_batches(tmp_path: Path) -> None:
    backend = BrightnessBackend()
    samples = make_samples(tmp_path / "data")
    run(samples, tmp_path / "a.parquet", (ALIGNED,), make_detector(backend), batch_size=4)
    assert backend.batches == [4, 4, 4]


def test_a_failed_file_is_a_row_and_is_retried_only_when_asked(tmp_path: Path) -> None:
    samples, out = make_samples(tmp_path / "data"), tmp_path / "scores.parquet"
    good = samples[5].path.read_bytes()
    samples[5].path.write_text("no image")
    assert run(samples, out) == Counts(24, 2, 0)
    scores = read(out)
    assert np.flatnonzero(scores.failed).tolist() == [5, 17]
    assert all(scores.errors[row].as_py() for row in (5, 17))
    before = out.read_bytes()
    samples[5].path.write_bytes(good)
    assert run(samples, out) == Counts(24, 2, 24)
    assert out.read_bytes() == before
    backend = BrightnessBackend()
    assert run(samples, out, detector=make_detector(backend), retry_errors=True) == Counts(24, 0, 24)
    assert sum(backend.batches) == 2 + 1  # the native one has two tiles, the aligned one is one
    retried = read(out)
    assert not retried.failed.any()
    assert retried.paths.equals(scores.paths)
    others = ~scores.failed
    np.testing.assert_array_equal(retried.logits[others], scores.logits[others])
    assert not out.with_name("scores.parquet.parts").exists()


@pytest.mark.parametrize("stop_after", [1, 7, 23])
def test_a_stopped_run_goes_on_where_it_was(stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorewriter, "PART_ROWS", 5)
    samples, out = make_samples(tmp_path / "data"), tmp_path / "scores.parquet"
    run(samples, tmp_path / "whole.parquet")
    seen = 0

    def advance() -> None:
        nonlocal seen
        seen += 1
        if seen == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(samples, out, advance=advance)
    assert not out.exists()
    assert run(samples, out) == Counts(24, 0, stop_after)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert not out.with_name("scores.parquet.parts").exists()


def test_another_data_set_detector_or_protocol_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, out = make_samples(tmp_path / "data"), tmp_path / "scores.parquet"
    run(samples, out)
    with pytest.raises(ValueError, match=r"scores.parquet holds scores of something else \(sha256: expected 111"):
        run(samples, out, detector=make_detector(sha256="1" * 64))
    with pytest.raises(ValueError, match=r"\(data_sha256: .*; images: expected 11, found 12\): choose another --out"):
        run(samples[:-1], out)
    with pytest.raises(ValueError, match=r"\(protocols: expected \['native .files as they are.'\], found"):
        run(samples, out, protocols=(NATIVE,))
    monkeypatch.setattr(scorewriter, "PART_ROWS", 5)
    with pytest.raises(RuntimeError):
        run(samples, tmp_path / "b.parquet", advance=lambda: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(ValueError, match=r"b.parquet.parts holds scores of something else \(sha256"):
        run(samples, tmp_path / "b.parquet", detector=make_detector(sha256="1" * 64))
    with pytest.raises(ValueError, match=r"ends in .parquet, found .*a.csv"):
        run(samples, tmp_path / "a.csv")


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from apn import scorewriter
from test_evaluate import BrightnessBackend, make_detector, make_samples, run
scorewriter.PART_ROWS = 3

class Slow(BrightnessBackend):
    def __call__(self, crops):
        time.sleep(0.2)
        return super().__call__(crops)

run(make_samples(Path({data!r})), Path({out!r}), detector=make_detector(Slow()), batch_size=2)
"""


def test_kill_9_costs_only_the_rows_of_an_unfinished_part(tmp_path: Path) -> None:
    samples, out = make_samples(tmp_path / "data"), tmp_path / "scores.parquet"
    parts = out.with_name("scores.parquet.parts")
    script = KILLED.format(tests=str(Path(__file__).parent), data=str(tmp_path / "data"), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", script])
    until = time.monotonic() + 120
    while len(list(parts.glob("*.parquet"))) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(ValueError, match=rf"scores.parquet is being written by process {process.pid} of"):
        run(samples, out)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    kept = sum(pq.read_metadata(part).num_rows for part in parts.glob("*.parquet"))
    assert 6 <= kept < 24
    assert (tmp_path / ".scores.parquet.lock").exists()
    (tmp_path / ".scores.parquet.abc.unfinished").write_bytes(b"half a table")
    (parts / ".000099.parquet.unfinished").write_bytes(b"half a part")
    assert run(samples, out) == Counts(24, 0, kept)
    run(samples, tmp_path / "whole.parquet")
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "scores.parquet", "whole.parquet"]


def test_a_table_of_several_row_groups_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done sample by sample and stand condition by condition: each row group needs rows of every part."""
    samples, out = make_samples(tmp_path / "data"), tmp_path / "scores.parquet"
    good = samples[5].path.read_bytes()
    run(samples, tmp_path / "whole.parquet")
    monkeypatch.setattr(scorewriter, "PART_ROWS", 3)
    monkeypatch.setattr(scoreparts, "MOST_ROWS", 5)
    samples[5].path.write_text("no image")
    assert run(samples, out).failed == 2
    samples[5].path.write_bytes(good)
    assert run(samples, out, retry_errors=True) == Counts(24, 0, 24)  # rows of the table and of a part
    groups = pq.read_metadata(out)
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [5, 5, 5, 5, 4]
    whole = pq.read_table(tmp_path / "whole.parquet")
    assert pq.read_schema(out).equals(whole.schema, check_metadata=True)
    assert pq.read_table(out).unify_dictionaries().to_pylist() == whole.to_pylist()


def test_large_rows_make_small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [RowGroup(Path(), 0, np.arange(10), 10 * 2**14), RowGroup(Path(), 0, np.arange(2), 2 * 2**15)]
    assert scoreparts._rows_at_once(groups) == scoreparts.MOST_BYTES // 2**15
    assert scoreparts._rows_at_once([]) == scoreparts.MOST_ROWS


def test_a_full_disk_at_the_end_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, out = make_samples(tmp_path / "data", 4), tmp_path / "scores.parquet"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(scorewriter, "joined", lambda *_: map(full, [0]))
    with pytest.raises(OSError, match="No space left") as told:
        run(samples, out)
    assert told.value.filename == str(out)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "scores.parquet.parts"]
    assert run(samples, out) == Counts(8, 0, 8)


def test_a_killed_removal_of_parts_leaves_no_failure_without_its_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, out = make_samples(tmp_path / "data", 4), tmp_path / "scores.parquet"
    removed: list[str] = []
    monkeypatch.setattr(scorewriter, "PART_ROWS", 3)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: removed.append(path.name) or os.unlink(path))
    run(samples, out)
    assert removed[:3] == ["000001.parquet", "000002.parquet", "000003.parquet"]


@pytest.mark.parametrize("command", ["score", "embed", "robustness"])
def test_a_command_is_refused_before_it_reads_anything(command: str, apn, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    with alone(tmp_path / ".a.parquet.lock", out):
        code, _, error = apn(command, "--data", tmp_path / "none", "--out", out)
    assert (code, error.count("\n"), f"apn: {out} is being written by process {os.getpid()} of" in error) == (
        1,
        1,
        True,
    )
    code, _, error = apn(command, "--data", tmp_path / "none", "--out", tmp_path / "a.csv")
    assert (code, "ends in .parquet, found" in error) == (1, True)


def test_names_that_are_no_text_are_kept_readable(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.png")
    Image.new("RGB", (40, 40)).save(path)
    run([Sample(path, 0, "", "", "", "g")], tmp_path / "a.parquet", (NATIVE,))
    assert read(tmp_path / "a.parquet").paths.to_pylist() == [str(tmp_path / "\ufffd.png")]


def test_shortcuts_are_measured_under_each_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the probe itself finds is tests/data/test_probe.py's; here each number must reach its place."""
    asked = []

    def probe(samples: list[Sample], *, protocol: Protocol, limit: int, seed: int) -> SimpleNamespace:
        require_both_classes(samples)
        asked.append((len(samples), limit, seed))
        return SimpleNamespace(auc=0.9 if protocol == NATIVE else 0.6, interval=(0.5, 0.95))

    monkeypatch.setattr("apn.evaluate.probe", probe)
    samples = make_samples(tmp_path, 6)
    native, aligned = measure_shortcuts("here", samples, (NATIVE, ALIGNED), seed=4)
    assert native == Shortcut(data="here", protocol=NATIVE.title, auc=0.9, low=0.5, high=0.95)
    assert aligned == Shortcut(data="here", protocol=ALIGNED.title, auc=0.6, low=0.5, high=0.95)
    assert asked == [(6, 20_000, 4), (6, 2000, 4)]  # making files in memory takes time, reading headers little
    (one_class,) = measure_shortcuts("here", samples[::2], (NATIVE,), seed=0)
    assert one_class.auc is None


def test_a_file_listed_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples(tmp_path, 3)
    refuse_repeats(samples)
    with pytest.raises(ValueError, match=r"expected each image once, found 1 listed twice, the first .*001.png"):
        refuse_repeats([*samples, samples[1]])
    monkeypatch.chdir(tmp_path)
    again = samples[1]._replace(path=samples[1].path.relative_to(tmp_path))
    with pytest.raises(ValueError, match="found 1 listed twice"):
        refuse_repeats([*samples, again])
