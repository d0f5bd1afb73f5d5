"""How far a scan is: a bar on a terminal, a line now and then elsewhere. Both on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apn.scan.shards import Listing
from apn.scan.tally import Tally

LINE_EVERY_S = 30.0


class Rate:
    """Counts what this run has done. The pace is measured from the first shard on: workers take a while to start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        self._first_at, self._first_images = self._started, 0
        self.images = self.shards = 0

    def add(self, tally: Tally) -> None:
        if not self.shards:
            self._first_at, self._first_images = self._clock(), tally.images
        self.images += tally.images
        self.shards += 1

    @property
    def seconds(self) -> float:
        """Since the start, workers' start included."""
        return self._clock() - self._started

    @property
    def images_per_second(self) -> float:
        return self._pace(self.images, self._first_images)

    @property
    def shards_per_second(self) -> float:
        return self._pace(self.shards, 1)

    def _pace(self, done: int, first: int) -> float:
        """Of all but the first shard; of the only one, from the start."""
        seconds = self._clock() - self._first_at
        if self.shards > 1 and seconds:
            return (done - first) / seconds
        return done / self.seconds if self.seconds else 0.0


class Progress:
    """What is done of the whole scan, in images; in shards where tars are among it, whose images nobody has counted."""

    def __init__(self, done: Tally, shards: int, listing: Callable[[], tuple[Listing, bool]]) -> None:
        self.rate, self._images, self._shards, self._listing = Rate(), done.images, shards, listing

    def add(self, tally: Tally) -> None:
        self.rate.add(tally)

    @property
    def position(self) -> tuple[int, int]:
        """(done, total so far); the total grows while listing goes on."""
        listing, _ = self._listing()
        if listing.images is None:
            return self._shards + self.rate.shards, listing.shards
        return self._images + self.rate.images, listing.images

    def describe(self) -> str:
        """As `1,200 of 50,000 images, 31.2 images/s, 26 min left`."""
        (done, total), (listing, listed) = self.position, self._listing()
        in_images = listing.images is not None
        pace, word = (self.rate.images_per_second, "images") if in_images else (self.rate.shards_per_second, "shards")
        text = f"{done:,} of {total:,}{'' if listed else '+'} {word}, {self.rate.images_per_second:.1f} images/s"
        return f"{text}, {duration((total - done) / pace)} left" if pace else text


def duration(seconds: float) -> str:
    """In the two largest units that matter: `45 s`, `26 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@contextmanager
def shown(progress: Progress) -> Iterator[Callable[[], None]]:
    """Yields what to call after each change of `progress`."""
    if not sys.stderr.isatty():
        yield _lines(progress)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(progress.describe(), total=None)

        def update() -> None:
            done, total = progress.position
            bar.update(task, completed=done, total=max(total, 1), description=progress.describe())

        update()
        yield update


def _lines(progress: Progress) -> Callable[[], None]:
    last = time.monotonic()

    def update() -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            print(progress.describe(), file=sys.stderr, flush=True)

    return update
