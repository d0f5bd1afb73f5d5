"""The driver: lists, hands out shards, counts, and says at the end what there is. See the drawing in `apn.scan`."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from pydantic import BaseModel

from apn.scan.files import Store
from apn.scan.manifest import Manifest, claim
from apn.scan.parts import FOLDER as PARTS
from apn.scan.parts import parts_done, read_tally
from apn.scan.prevalence import Prevalence, estimate
from apn.scan.progress import Progress, shown
from apn.scan.shards import FOLDER as SHARDS
from apn.scan.shards import LISTING, Lister, Listing, read_listing
from apn.scan.sources import EXPECTED, Source, list_entries
from apn.scan.tally import Tally, add
from apn.scan.worker import Outcome, WorkerPlan
from apn.threads import ahead

SUMMARY = "summary.json"
READERS = 8  # threads that read the footers of parts

# Outcomes of the shards that are not done yet (`run_local`, or `run_on_ray` of a pool).
Runner = Callable[[WorkerPlan, frozenset[int]], Generator[Outcome, None, None]]


class Summary(BaseModel):
    """What a finished scan found. seconds, images_per_second: of the run that finished it."""

    images: int
    scored: int
    failed: int
    verdicts: dict[str, int]
    errors: dict[str, int]  # by kind, the most frequent first
    prevalence: Prevalence | None  # of a sample
    population: int | None  # images that the sample was drawn from
    shards: int
    listing_sha256: str
    resumed: int  # images that were there from an earlier run
    seconds: float
    images_per_second: float
    model: dict[str, Any]


def scan(
    sources: Sequence[Source], manifest: Manifest, plan: WorkerPlan, runner: Runner, *, resume: bool = False
) -> Summary:
    """Scores every image of the sources once and writes a part a shard to `plan.store`, then the summary.

    Raises ValueError where another run is at OUT (`Store.alone`), where OUT holds something else (`claim`), where there
    is no image, where listing failed, and where the sources have changed since a run that was killed while it listed
    them.
    """
    with plan.store.alone():
        return _scan(sources, manifest, plan, runner, resume)


def _scan(sources: Sequence[Source], manifest: Manifest, plan: WorkerPlan, runner: Runner, resume: bool) -> Summary:
    store = plan.store
    claim(store, manifest, resume=resume)
    for folder in ("", SHARDS, PARTS):
        store.remove_unfinished(folder)
    lister = _lister(store, sources, manifest)
    try:
        done = frozenset(parts_done(store))
        earlier = add(ahead(lambda number: read_tally(store, number), sorted(done), READERS))
        listed = _watch(store, lister)
        progress = Progress(earlier, len(done), listed)
        total = _work(runner(plan, done), earlier, progress) if _open_shards(listed, done) else earlier
        return _finish(store, manifest, listed()[0], lister, total, earlier, progress)
    finally:
        if lister is not None:
            lister.stop()


def _lister(store: Store, sources: Sequence[Source], manifest: Manifest) -> Lister | None:
    """Starts to list; None where an earlier run has listed everything."""
    found = read_listing(store)
    if found is not None and found.error is None:
        return None
    store.remove(LISTING)
    sample = None if manifest.sample is None else (manifest.sample, manifest.seed)
    lister = Lister(store, list_entries(sources, manifest.column), manifest.shard_images, sample)
    lister.start()
    return lister


def _watch(store: Store, lister: Lister | None) -> Callable[[], tuple[Listing, bool]]:
    """What tells how much is listed, and whether that is all."""
    if lister is not None:
        return lambda: (lister.so_far, lister.ended)
    listing = read_listing(store)
    assert listing is not None
    return lambda: (listing, True)


def _open_shards(listed: Callable[[], tuple[Listing, bool]], done: frozenset[int]) -> bool:
    listing, ended = listed()
    return not ended or len(done) < listing.shards


def _work(outcomes: Generator[Outcome, None, None], total: Tally, progress: Progress) -> Tally:
    with closing(outcomes) as running, shown(progress) as update:
        for outcome in running:
            total = add([total, outcome.tally])
            progress.add(outcome.tally)
            update()
    return total


def _finish(
    store: Store,
    manifest: Manifest,
    listing: Listing,
    lister: Lister | None,
    total: Tally,
    earlier: Tally,
    progress: Progress,
) -> Summary:
    if lister is not None and lister.failure is not None:
        raise ValueError(f"listing stopped: {lister.failure}") from lister.failure
    if not listing.shards:
        store.remove(LISTING)
        raise ValueError(f"no images in {', '.join(manifest.sources)}: expected {EXPECTED}")
    missing = set(range(listing.shards)) - parts_done(store)
    assert not missing, f"{len(missing)} shards have no part, the first {min(missing)}"
    assert listing.images in (None, total.images), f"{listing.images} images listed, {total.images} rows"
    summary = _summarise(manifest, listing, total, earlier, progress)
    store.write(SUMMARY, (summary.model_dump_json(indent=2) + "\n").encode())
    store.remove_unfinished(PARTS)
    return summary


def _summarise(manifest: Manifest, listing: Listing, total: Tally, earlier: Tally, progress: Progress) -> Summary:
    kind = "checked_thresholds" if manifest.stability else "thresholds"
    thresholds = manifest.model.get(kind, {})
    prevalence = None
    if manifest.sample is not None and total.scored:
        prevalence = estimate(total, thresholds.get("target_fpr"), thresholds.get("target_fnr"))
    return Summary(
        images=total.images,
        scored=total.scored,
        failed=total.failed,
        verdicts=total.verdicts,
        errors=dict(sorted(total.errors.items(), key=lambda pair: -pair[1])),
        prevalence=prevalence,
        population=listing.population,
        shards=listing.shards,
        listing_sha256=listing.sha256,
        resumed=earlier.images,
        seconds=progress.rate.seconds,
        images_per_second=progress.rate.images_per_second,
        model=manifest.model,
    )
