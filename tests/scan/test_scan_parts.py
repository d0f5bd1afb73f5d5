"""The pieces of the bookkeeping: entries, shards, store, manifest, counts, journal, sample, estimate, progress."""

import errno
import os
import tarfile
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scanning import FakeDetector, manifest_of, picture
from scipy.stats import beta

from apn.scan import files, images
from apn.scan.entries import File, Member, Rows, Tar, decode, encode, images_of
from apn.scan.fetching import MAX_BYTES
from apn.scan.files import Store
from apn.scan.images import images_in
from apn.scan.journal import DEATHS, ERROR, ERROR_UNREAD, begin, end, one_by_one
from apn.scan.manifest import claim
from apn.scan.prevalence import estimate, share
from apn.scan.progress import Progress, Rate, duration
from apn.scan.sample import draw_sample
from apn.scan.shards import LISTING, Lister, Listing, cut, follow, read_listing, read_shard, shard_size
from apn.scan.tally import KINDS, OTHERS, Tally, add, kind_of

texts = st.text(st.characters(codec=None, exclude_characters=""), max_size=20)  # lone surrogates too
counts = st.integers(0, 5000)
entries = st.one_of(
    st.builds(File, texts),
    st.builds(Rows, texts, texts, counts, st.integers(1, 5000)),
    st.builds(Tar, texts),
    st.builds(Member, texts, texts, counts, counts),
)


@given(st.lists(entries, max_size=20))
def test_entries_come_back_from_their_lines(some):
    assert list(decode(encode(some))) == some


@given(st.lists(entries, max_size=20), st.integers(1, 100))
def test_shards_hold_everything_once_in_order_and_no_more_than_they_may(some, most):
    shards = list(cut(some, most))
    for number, shard in enumerate(shards):
        if any(isinstance(entry, Tar) for entry in shard):
            assert len(shard) == 1
        else:
            assert 0 < sum(map(images_of, shard)) <= shard_size(number, most)
    singles = [one for entry in some for one in _one_by_one(entry)]
    assert [one for shard in shards for entry in shard for one in _one_by_one(entry)] == singles


def _one_by_one(entry):
    if not isinstance(entry, Rows):
        return [entry]
    return [(entry.table, entry.column, row) for row in range(entry.first, entry.first + entry.rows)]


def test_shards_start_small_and_stay_few():
    sizes = [len(shard) for shard in cut(map(File, map(str, range(300_000))), 4096)]
    assert (sizes[0], max(sizes), sum(sizes)) == (16, 4096, 300_000)
    assert all(after in (before, 2 * before) for before, after in pairwise(sizes[:-1]))
    assert len(sizes) == 512 + -(-(300_000 - 16 * 64 * 255) // 4096)


@pytest.mark.parametrize("location", ["{tmp_path}/out", "memory://scan-store"])
def test_a_store_keeps_whole_files(tmp_path, location):
    store = Store(location.format(tmp_path=tmp_path))
    assert (store.read("a/b"), store.has("a/b"), store.names("a")) == (None, False, [])
    store.write("a/b", b"1")
    store.write("a/b", b"22")
    assert (store.read("a/b"), store.has("a/b"), store.names("a"), store.open("a/b").read()) == (
        b"22", True, ["b"], b"22",
    )  # fmt: skip
    store.write("a/.c.xyz.unfinished", b"what a killed writer leaves")
    store.remove_unfinished("a")
    store.remove("a/none")
    assert store.names("a") == ["b"]
    store.remove("a/b")
    assert store.names("a") == []


def test_a_file_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ValueError, match=f"^{tmp_path}/a/b cannot be written: No space left on device$"):
        Store(str(tmp_path)).write("a/b", b"1")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_file_that_another_run_sweeps_away_half_written_is_written_again(tmp_path, monkeypatch):
    """A second run on the same OUT removes what is unfinished; here between the first one's write and rename."""
    store, fsync, swept = Store(str(tmp_path)), os.fsync, []

    def sweeping(descriptor: int) -> None:
        fsync(descriptor)
        if not swept:
            swept.append(store.names("a"))
            store.remove_unfinished("a")

    monkeypatch.setattr(files.os, "fsync", sweeping)
    store.write("a/b", b"1")
    assert (len(swept), store.read("a/b"), store.names("a")) == (1, b"1", ["b"])


def test_followers_see_each_shard_once_it_is_listed_and_the_end(tmp_path):
    store = Store(str(tmp_path))
    numbers = follow(store, {1})
    assert next(numbers) is None
    lister = Lister(store, map(File, "abcdefg"), most=2)
    lister.start()
    lister.stop()
    assert (lister.ended, lister.failure) == (True, None)


def test_a_list_that_is_done_is_followed_to_its_end(tmp_path):
    store = Store(str(tmp_path))
    lister = Lister(store, map(File, "abcdefg"), most=2)
    lister.run()
    assert list(follow(store, {1})) == [0, 2, 3]
    assert read_shard(store, 3) == [File("g")]
    listing = read_listing(store)
    assert (listing.shards, listing.images, listing.error) == (4, 7, None)


@pytest.mark.parametrize("location", ["{tmp_path}/out", "memory://scan-full"])
def test_a_list_whose_end_cannot_be_written_is_a_failure_and_followers_see_its_end(tmp_path, location, monkeypatch):
    store, write = Store(location.format(tmp_path=tmp_path)), Store.write

    def full(self: Store, name: str, content: bytes) -> None:
        if name == LISTING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, name, content)

    monkeypatch.setattr(Store, "write", full)
    lister = Lister(store, map(File, "abc"), most=2)
    lister.run()
    assert isinstance(lister.failure, OSError)
    assert None not in islice(follow(store, ()), 9), "it would wait for ever"
    assert "could not be written" in read_listing(store).error
    assert sorted(store.names("shards")) == ["000000.jsonl", "000001.jsonl", "listing.json"]
    monkeypatch.undo()
    Lister(store, map(File, "abc"), most=2).run()
    assert (read_listing(store).images, read_listing(store).error) == (3, None)
    assert sorted(store.names("shards")) == ["000000.jsonl", "000001.jsonl", "listing.json"]


def test_tars_make_the_number_of_images_unknown(tmp_path):
    store = Store(str(tmp_path))
    lister = Lister(store, [File("a"), Tar("b.tar"), File("c")], most=8)
    lister.run()
    assert (lister.so_far.shards, lister.so_far.images) == (3, None)


def test_out_belongs_to_one_scan(tmp_path):
    store = Store(str(tmp_path))
    ours = manifest_of(["/a"], sample=3)
    claim(store, manifest_of(["/other"]), resume=False)
    claim(store, ours, resume=False)  # nothing was listed for the other one
    store.write("shards/000000.jsonl", b"")
    claim(store, ours.model_copy(update={"version": "another"}), resume=True)
    with pytest.raises(ValueError, match="holds this scan already: --resume"):
        claim(store, ours, resume=False)
    model = FakeDetector().describe()
    model["thresholds"] = model["thresholds"] | {"target_fpr": 0.01}
    other = ours.model_copy(update={"sha256": True, "model": model})
    expected = (
        r"another scan \(model thresholds target_fpr: expected 0.01, found 0.05; sha256: expected True, found False"
    )
    with pytest.raises(ValueError, match=expected):
        claim(store, other, resume=True)


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"expected a new or empty folder for --out, found thesis.tex"):
        claim(Store(str(tmp_path)), manifest_of(["/a"]), resume=False)


def test_one_run_at_a_time_where_there_are_locks(tmp_path):
    store = Store(str(tmp_path / "out"))
    with store.alone():
        assert store.names_that_count() == []
        with pytest.raises(ValueError, match="out is being written by"), Store(f"file://{tmp_path}/out").alone():
            pass
    assert store.names() == []
    with Store("memory://scan-alone").alone(), Store("memory://scan-alone").alone():
        pass


@pytest.mark.parametrize(
    "name", [".lock", ".scan.json.abc.unfinished", ".DS_Store", "shards/.000000.jsonl.abc.unfinished"]
)
@pytest.mark.parametrize("resume", [False, True])
def test_what_a_kill_or_a_file_manager_leaves_does_not_make_a_folder_another_scans(tmp_path, name, resume):
    store = Store(str(tmp_path))
    if name.startswith("shards/"):
        claim(store, manifest_of(["/other"]), resume=False)
    store.write(name, b"")
    ours = manifest_of(["/a"])
    claim(store, ours, resume=resume)
    assert store.read("scan.json").decode().strip() == ours.model_dump_json(indent=2)


def test_errors_that_differ_in_numbers_and_files_are_one_kind_and_kinds_stay_few():
    assert kind_of("12,000 x 3 pixels are more than 9") == kind_of("1 x 30 pixels are more than 9")
    assert kind_of("12,000.5 s, or 1.5, then 3.") == "N s, or N, then N."
    unknown = "not an image of a known kind (JPEG2000, PPM)"
    assert {kind_of(f"{unknown}: the file starts with {head!r}") for head in (b"<html>", b"'\"", b"1/2 3")} == {unknown}
    assert kind_of("s3://a/b.tar cannot be read") == kind_of("/c/d.tar cannot be read") == "FILE cannot be read"
    address = "'xyz://a/b.jpg' cannot be opened: expected a path, or an address whose package is installed (s3fs for "
    missing = kind_of(f"cannot be fetched ({address}s3://, gcsfs for gs://): Protocol not known: xyz)")
    assert missing.endswith("Protocol not known: xyz)"), "the reason comes last"
    many = [Tally(images=2, verdicts={"real": 1}, errors={f"kind {chr(65 + n)}": n + 1}) for n in range(60)]
    total = add(many)
    assert (total.images, total.verdicts, total.failed) == (120, {"real": 60}, sum(range(1, 61)))
    assert len(total.errors) == KINDS + 1
    assert total.errors[OTHERS] >= sum(range(1, 10))


def test_only_an_image_that_two_workers_died_of_is_given_up(tmp_path):
    store, names = Store(str(tmp_path)), ["/a.png", "/b.png", "/c.png"]

    def go(until: int) -> list[str | None]:
        """Errors of the images that a worker which dies at image `until` has been given."""
        known = begin(store, 7)
        if not known.careful:
            return [one.error for one in images_in(map(File, names))]
        given = []
        for place, image in enumerate(one_by_one(store, 7, known, map(File, names), MAX_BYTES)):
            given.append(image.error)
            if place == until:
                break
        return given

    assert go(1) == [None] * 3, "begun once before: all together, as ever"
    for _ in range(DEATHS):
        assert go(1) == [None] * 2
    assert go(2) == [None, ERROR, None], "one death at another image may be chance"
    assert go(9) == [None, ERROR, None]
    end(store, 7)
    assert begin(store, 7).deaths == {}


def test_where_two_workers_died_as_they_read_on_the_rest_of_the_table_is_given_up(tmp_path, monkeypatch):
    """As of a page that no memory is left for. A KeyboardInterrupt stands for a death: no code of ours stops it."""
    store, table = Store(str(tmp_path / "out")), str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"image": [picture(n) for n in range(9)]}), table)
    shard = [File("/a.png"), Rows(table, "image", 0, 9), File("/b.png")]
    held = images._held

    def dies(name, *arguments):
        if name == f"{table}#4":
            raise KeyboardInterrupt
        return held(name, *arguments)

    monkeypatch.setattr(images, "_held", dies)
    begin(store, 7)
    for _ in range(DEATHS):
        known = begin(store, 7)
        assert known.careful
        with pytest.raises(KeyboardInterrupt):
            list(one_by_one(store, 7, known, shard, MAX_BYTES))
    found = list(one_by_one(store, 7, begin(store, 7), shard, MAX_BYTES))
    assert [one.name for one in found] == ["/a.png", *(f"{table}#{row}" for row in range(9)), "/b.png"]
    assert [one.error for one in found] == [None] * 5 + [ERROR_UNREAD] * 5 + [None]


# Samples --------------------------------------------------------------------------------------------------------------


def test_a_sample_depends_on_names_and_seed_not_on_order():
    files = [File(f"/{n}") for n in range(100)]
    one = draw_sample(files, 10, seed=1)
    assert (one.population, len(set(one.entries))) == (100, 10)
    assert draw_sample(reversed(files), 10, seed=1) == one
    assert draw_sample(files, 10, seed=2) != one
    assert set(draw_sample(files, 20, seed=1).entries) > set(one.entries)
    assert set(draw_sample(files, 1000, seed=1).entries) == set(files)


def test_each_image_is_drawn_equally_often():
    """Chi squared over 2,000 draws of 5 of 20: 19 degrees of freedom, 99.9 % quantile 43.8."""
    drawn = Counter(one for seed in range(2000) for one in draw_sample(map(File, map(str, range(20))), 5, seed).entries)
    expected = 2000 * 5 / 20
    assert sum((drawn[File(str(n))] - expected) ** 2 / (expected * 0.75) for n in range(20)) < 43.8


def test_rows_and_members_are_drawn_one_by_one(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("1.png", "2.png", "2.json"):
            (tmp_path / name).write_bytes(picture(int(name[0])))
            tar.add(tmp_path / name, name)
    sample = draw_sample([Tar(f"{tmp_path}/a.tar"), Rows("t", "image", 5, 3)], 9, seed=0)
    assert sample.population == 5
    members = [one for one in sample.entries if isinstance(one, Member)]
    assert {one.first for one in sample.entries if isinstance(one, Rows)} == {5, 6, 7}
    assert {(one.name, one.load().pixels[0, 0, 0]) for one in images_in(members)} == {
        (f"{tmp_path}/a.tar#{n}.png", n) for n in (1, 2)
    }
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="expected an uncompressed tar to draw a sample from"):
        draw_sample([Tar(f"{tmp_path}/a.tar.gz")], 1, seed=0)


def test_shares_have_clopper_pearson_intervals():
    found = share(7, 40)
    assert np.isclose(found.low, beta.ppf(0.025, 7, 34))
    assert np.isclose(found.high, beta.ppf(0.975, 8, 33))
    assert np.isclose(share(0, 30).high, 1 - 0.025 ** (1 / 30))
    assert share(30, 30).high == 1


def test_limits_of_prevalence_are_the_closed_form():
    tally = Tally(images=1010, verdicts={"generated": 300, "real": 600, "unsure": 100}, errors={"damaged": 10})
    found = estimate(tally, target_fpr=0.05, target_fnr=0.1)
    assert (found.scored, found.failed, found.called["unsure"].share) == (1000, 10, 0.1)
    assert np.isclose(found.low, (beta.ppf(0.025, 300, 701) - 0.05) / 0.95)
    assert np.isclose(found.high, (1 - beta.ppf(0.025, 600, 401)) / 0.9)
    unknown = estimate(tally, None, None)
    assert (unknown.low, unknown.high) == (None, None)
    assert "promises no error rates" in unknown.note
    with pytest.raises(ValueError, match="expected scored images"):
        estimate(Tally(images=1, errors={"damaged": 1}), 0.05, 0.05)


@pytest.mark.parametrize("prevalence", [0.0, 0.03, 0.5, 1.0])
def test_the_limits_hold_the_truth_when_the_calibration_keeps_its_promise(prevalence):
    """Both error rates at their limit, which is the hardest case: 120 samples of 500, at least 95 % right."""
    rng, right = np.random.default_rng(0), 0
    for _ in range(120):
        generated = rng.binomial(500, prevalence)
        real = 500 - generated
        called = rng.multinomial(generated, [0.7, 0.1, 0.2]) + rng.multinomial(real, [0.05, 0.75, 0.2])
        tally = Tally(images=500, verdicts=dict(zip(("generated", "real", "unsure"), map(int, called), strict=True)))
        found = estimate(tally, 0.05, 0.1)
        right += found.low <= prevalence <= found.high
    assert right >= 0.95 * 120


# Progress -------------------------------------------------------------------------------------------------------------


def test_progress_counts_images_or_shards_and_tells_the_time_left(monkeypatch):
    now = 0.0
    listing = Listing(shards=10, images=1000)
    progress = Progress(Tally(images=200), 2, lambda: (listing, True))
    progress.rate = Rate(clock=lambda: now)
    now = 20.0
    progress.add(Tally(images=200))
    assert progress.position == (400, 1000)
    assert progress.describe() == "400 of 1,000 images, 10.0 images/s, 60 s left"
    now = 30.0
    progress.add(Tally(images=200))
    assert progress.describe() == "600 of 1,000 images, 20.0 images/s, 20 s left", "the start of the workers left out"
    listing = Listing(shards=10, images=None)
    assert progress.describe() == "4 of 10 shards, 20.0 images/s, 60 s left"


def test_durations_for_people():
    assert [duration(s) for s in (5, 89, 120, 5000, 5400, 12_000, 200_000)] == [
        "5 s", "89 s", "2 min", "83 min", "1 h 30 min", "3 h 20 min", "2 d 8 h",
    ]  # fmt: skip
