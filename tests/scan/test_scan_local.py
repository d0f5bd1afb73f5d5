"""Scans on processes of this machine: every image once, whoever is killed."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scanning
from scanning import (
    assert_each_once,
    folder_of_pictures,
    here,
    kill_a_worker,
    local,
    picture,
    plan_of,
    rows_of,
    scan_with,
    wait_until,
)

from apn.scan.files import Store
from apn.scan.journal import ERROR
from apn.scan.local import WorkerError
from apn.scan.parts import SCHEMA, parts_done
from apn.scan.shards import LISTING
from apn.scan.worker import Reading, Worker


def openings(folder: Path) -> int:
    """Detectors opened so far."""
    return len(list(folder.iterdir()))


def test_a_scan_is_a_row_an_image_and_a_summary(tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 50)
    (tmp_path / "in" / "broken.jpg").write_text("not an image")
    plan = plan_of(tmp_path / "out", tmp_path / "openings")
    summary = scan_with(local(), tmp_path / "in", plan)
    rows = rows_of(tmp_path / "out")
    assert set(rows[0]) == set(SCHEMA.names)
    assert sorted(row["path"] for row in rows) == sorted([*reds, str(tmp_path / "in" / "broken.jpg")])
    verdicts = [row["verdict"] for row in rows]
    assert summary.verdicts == {name: verdicts.count(name) for name in ("generated", "real", "unsure")}
    assert (summary.images, summary.scored, summary.failed, sum(summary.errors.values())) == (51, 50, 1, 1)
    assert openings(tmp_path / "openings") == 2, "each worker opens the detector once"
    assert (tmp_path / "out" / "summary.json").read_text().strip() == summary.model_dump_json(indent=2)
    for row in rows:
        assert (row["width"], row["height"], row["format"]) == ((8, 6, "PNG") if row["error"] is None else (None,) * 3)
        assert row["stable"] is (None if row["verdict"] in (None, "unsure") else True)
        assert row["warnings"] == ("strongly compressed" if row["error"] is None else "")
        assert (row["model"], row["sha256"]) == ("f" * 64, None)


@pytest.mark.parametrize(("stability", "rate"), [(True, "2.0%"), (False, "5.0%")])
def test_an_estimate_allows_for_the_rates_of_the_thresholds_in_use(tmp_path, stability, rate):
    folder_of_pictures(tmp_path / "in", 12)
    plan = plan_of(tmp_path / "out", tmp_path / "openings", reading=Reading(stability=stability))
    summary = scan_with(here, tmp_path / "in", plan, sample=10, stability=stability)
    assert f"up to {rate} of photographs called" in summary.prevalence.note


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 100)

    def killing(plan, done):
        for number, outcome in enumerate(local()(plan, done)):
            if number in (1, 4):
                kill_a_worker(tmp_path / "openings")
            yield outcome

    summary = scan_with(killing, tmp_path / "in", plan_of(tmp_path / "out", tmp_path / "openings", 0.01))
    assert_each_once(tmp_path / "out", reds)
    assert summary.images == 100
    assert openings(tmp_path / "openings") == 4, "two workers, and one for each that was killed"


def test_a_killed_driver_is_resumed_and_what_was_done_is_not_done_again(tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 120)
    out = tmp_path / "out"
    command = [sys.executable, scanning.__file__, str(tmp_path / "in"), str(out), "0.02"]
    driver = subprocess.Popen(command)
    wait_until(lambda: len(list((out / "parts").glob("part-*"))) >= 3)
    again = plan_of(out, tmp_path / "refused")
    with pytest.raises(ValueError, match=rf"^{out} is being written by process {driver.pid} of .*\.lock"):
        scan_with(local(), tmp_path / "in", again, resume=True)
    assert openings(tmp_path / "refused") == 0
    driver.kill()
    driver.wait()
    assert (out / ".lock").exists()
    opened = Path(f"{out}-openings")
    wait_until(lambda: not any(alive(one.name) for one in opened.iterdir()))  # workers end with their driver
    plan = plan_of(out, tmp_path / "again")
    before = {part: part.stat().st_mtime_ns for part in (out / "parts").glob("part-*")}
    assert 3 <= len(before) < 15
    with pytest.raises(ValueError, match="holds this scan already: --resume"):
        scan_with(local(), tmp_path / "in", plan)
    summary = scan_with(local(), tmp_path / "in", plan, resume=True)
    assert_each_once(out, reds)
    assert not (out / ".lock").exists()
    assert {part: part.stat().st_mtime_ns for part in before} == before
    assert (summary.images, summary.resumed) == (120, 8 * len(before))
    # Once more: there is nothing to do, and no worker is started.
    assert scan_with(local(), tmp_path / "in", plan_of(out, tmp_path / "none"), resume=True).resumed == 120
    assert openings(tmp_path / "none") == 0


def alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_an_image_that_kills_its_reader_becomes_a_row(tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 20)
    deadly = tmp_path / "in" / "0" / "0004.png"
    deadly.write_bytes(picture(colour=scanning.DEADLY))
    summary = scan_with(local(1), tmp_path / "in", plan_of(tmp_path / "out", tmp_path / "openings"))
    rows = {row["path"]: row for row in rows_of(tmp_path / "out")}
    assert set(rows) == {*reds, str(deadly)}
    assert {path for path, row in rows.items() if row["error"]} == {str(deadly)}
    assert rows[str(deadly)]["error"] == ERROR
    assert (summary.images, summary.failed) == (20 + (str(deadly) not in reds), 1)
    assert not list((tmp_path / "out" / "journals").iterdir())


def test_what_a_worker_cannot_do_ends_the_scan_with_its_words(tmp_path):
    folder_of_pictures(tmp_path / "in", 4)
    plan = plan_of(tmp_path / "out", tmp_path / "openings")
    with pytest.raises(WorkerError, match="no such weights"):
        scan_with(local(), tmp_path / "in", plan._replace(open_detector=no_weights))
    with pytest.raises(WorkerError, match="died 3 times before it was ready"):
        scan_with(local(), tmp_path / "in", plan._replace(open_detector=dies), resume=True)
    assert not multiprocessing.active_children()


def no_weights() -> None:
    raise ValueError("no such weights")


def dies() -> None:
    os._exit(1)


def test_listing_that_fails_midway_ends_the_scan_and_is_begun_again(tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 30)
    (tmp_path / "1.txt").write_text("".join(f"{path}\n" for path in list(reds)[:20]))
    (tmp_path / "2.parquet").write_text("not a table")
    plan = plan_of(tmp_path / "out", tmp_path / "openings")
    with pytest.raises(ValueError, match=r"listing stopped: .*Parquet"):
        scan_with(here, f"{tmp_path}/?.*", plan)
    assert parts_done(plan.store) == {0, 1}, "what was listed is scanned"
    pq.write_table(pa.table({"path": list(reds)[20:]}), tmp_path / "2.parquet")
    assert scan_with(here, f"{tmp_path}/?.*", plan, resume=True).resumed == 16
    assert_each_once(tmp_path / "out", reds)


def test_a_full_disk_at_the_end_of_the_list_ends_the_scan(tmp_path, monkeypatch):
    reds = folder_of_pictures(tmp_path / "in", 30)
    plan, write = plan_of(tmp_path / "out", tmp_path / "openings"), Store.write

    def full(self: Store, name: str, content: bytes) -> None:
        if name == LISTING:
            raise ValueError(f"{name} cannot be written: No space left on device")
        write(self, name, content)

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(ValueError, match=r"^listing stopped: .*listing.json cannot be written: No space left"):
        scan_with(here, tmp_path / "in", plan)
    monkeypatch.undo()
    scan_with(here, tmp_path / "in", plan, resume=True)
    assert_each_once(tmp_path / "out", reds)
    assert not list((tmp_path / "out" / "shards").glob(".*"))


def test_an_empty_table_among_the_sources_costs_nothing(tmp_path):
    reds = folder_of_pictures(tmp_path / "in", 9)
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "0.parquet")
    (tmp_path / "1.txt").write_text("".join(f"{path}\n" for path in reds))
    plan = plan_of(tmp_path / "out", tmp_path / "openings")
    assert scan_with(here, f"{tmp_path}/?.*", plan).images == 9
    assert_each_once(tmp_path / "out", reds)
    with pytest.raises(ValueError, match="no images in"):
        scan_with(here, tmp_path / "0.parquet", plan_of(tmp_path / "none", tmp_path / "openings"))


@pytest.mark.parametrize("gone", ["the first", "the last shard"])
def test_sources_that_changed_while_they_were_listed_are_refused(tmp_path, gone):
    reds = folder_of_pictures(tmp_path / "in", 24)
    plan = plan_of(tmp_path / "out", tmp_path / "openings")
    scan_with(here, tmp_path / "in", plan)
    (tmp_path / "out" / "shards" / "listing.json").unlink()  # as if killed before the end of the list
    for path in sorted(reds)[:1] if gone == "the first" else sorted(reds)[-8:]:
        Path(path).unlink()
    with pytest.raises(ValueError, match="the sources have changed since they were first listed"):
        scan_with(here, tmp_path / "in", plan, resume=True)


def test_a_folder_without_images_says_what_was_expected_and_can_be_tried_again(tmp_path):
    (tmp_path / "in").mkdir()
    plan = plan_of(tmp_path / "out", tmp_path / "openings")
    with pytest.raises(ValueError, match=r"no images in .*: expected a folder, an image"):
        scan_with(here, tmp_path / "in", plan)
    reds = folder_of_pictures(tmp_path / "in", 3)
    scan_with(here, tmp_path / "in", plan)
    assert_each_once(tmp_path / "out", reds)


def test_workers_that_do_the_same_shard_leave_one_part(tmp_path):
    """A worker that was thought dead finishes after the one that replaced it."""
    reds = folder_of_pictures(tmp_path / "in", 5)
    plan = plan_of(tmp_path / "out", tmp_path / "openings")
    scan_with(here, tmp_path / "in", plan)
    assert Worker(plan)(0) == Worker(plan, restarted=True)(0)
    assert parts_done(plan.store) == {0}
    assert_each_once(tmp_path / "out", reds)


def test_closing_the_driver_early_ends_its_processes(tmp_path):
    folder_of_pictures(tmp_path / "in", 64)
    plan = plan_of(tmp_path / "out", tmp_path / "openings", delay_s=0.05)

    def leaving(plan, done):
        outcomes = local()(plan, done)
        yield next(outcomes)
        started = time.monotonic()
        outcomes.close()
        assert time.monotonic() - started < 5
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_with(leaving, tmp_path / "in", plan)
    assert not multiprocessing.active_children()
