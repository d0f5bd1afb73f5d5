"""The work, cut into numbered shards while it is listed; the same cut whenever the same is listed.

The first shards are small, so that a small scan keeps every worker busy and shows progress; they double every 64
shards up to `most`, so that a billion images make a quarter of a million files and not sixty million.
"""

import threading
from collections.abc import Container, Iterable, Iterator
from hashlib import sha256
from itertools import takewhile

from pydantic import BaseModel

from apn.scan.entries import Entry, Rows, Tar, decode, encode, images_of
from apn.scan.files import Store
from apn.scan.sample import draw_sample
from apn.wholefile import UNFINISHED

FOLDER = "shards"
LISTING = f"{FOLDER}/listing.json"
# A list that has failed, written while there is room. On a full disk it takes the place of the list's end, without
# which the workers would wait for ever. Named so that what a killed run leaves of it is swept away.
_SPARE = f"{FOLDER}/.listing.json.spare{UNFINISHED}"
FIRST, DOUBLE_EVERY = 16, 64
POLL_S = 0.1  # between looks for the next shard


class Listing(BaseModel):
    """What was listed. images: None where tars are among it, whose images nobody has counted."""

    shards: int = 0
    images: int | None = 0
    population: int | None = None  # images that a sample was drawn from
    sha256: str = ""  # of all shards' lists, one after the other
    error: str | None = None  # why listing stopped early: the shards are not all there is


def shard_file(number: int) -> str:
    """The name of a shard's list."""
    return f"{FOLDER}/{number:06d}.jsonl"


def shard_size(number: int, most: int) -> int:
    """Images in shard `number`, unless a tar or the end of the list comes first."""
    return min(most, FIRST << min(number // DOUBLE_EVERY, 40))


def cut(entries: Iterable[Entry], most: int) -> Iterator[list[Entry]]:
    """Entries of each shard. A tar is a shard of its own; rows of a table are split where a shard is full."""
    number, pending, held = 0, list[Entry](), 0
    for entry in entries:
        if isinstance(entry, Tar):
            if pending:
                yield pending
            yield [entry]
            number, pending, held = number + 1 + bool(pending), [], 0
            continue
        rest: Entry | None = entry
        while rest is not None:
            taken, rest = _split(rest, shard_size(number, most) - held)
            pending.append(taken)
            held += images_of(taken) or 0
            if held == shard_size(number, most):
                yield pending
                number, pending, held = number + 1, [], 0
    if pending:
        yield pending


def _split(entry: Entry, room: int) -> tuple[Entry, Entry | None]:
    """What fits, and the rest. Only rows of a table can be more than one image here."""
    if not isinstance(entry, Rows) or entry.rows <= room:
        return entry, None
    return entry._replace(rows=room), entry._replace(first=entry.first + room, rows=entry.rows - room)


def read_shard(store: Store, number: int) -> list[Entry]:
    """The entries of a shard that has been listed."""
    lines = store.read(shard_file(number))
    assert lines is not None, f"shard {number} is not listed in {store.location}"
    return list(decode(lines))


def read_listing(store: Store) -> Listing | None:
    """What was listed; None while listing goes on, or where it was killed."""
    text = store.read(LISTING)
    return None if text is None else Listing.model_validate_json(text)


class Lister:
    """Lists in a thread, ahead of the workers; `so_far` may be read at any time.

    After an error `failure` is set, and the list on disk ends there. Shards that an earlier run has listed must come
    out the same. sample: size and seed of what to draw from the entries, instead of taking all.
    """

    def __init__(
        self, store: Store, entries: Iterable[Entry], most: int, sample: tuple[int, int] | None = None
    ) -> None:
        self._store, self._most, self._sample = store, most, sample
        self.so_far = Listing()
        self.failure: Exception | None = None
        self._stop = threading.Event()
        self._entries = takewhile(lambda _: not self._stop.is_set(), entries)
        self._thread = threading.Thread(target=self._list, name="apn-list", daemon=True)

    def start(self) -> None:
        spare = Listing(error="the end of the list could not be written")
        self._store.write(_SPARE, spare.model_dump_json().encode())
        self._thread.start()

    def run(self) -> Listing:
        """Lists to the end, and says what there was."""
        self.start()
        self._thread.join()
        return self.so_far

    @property
    def ended(self) -> bool:
        """Whether `so_far` is all there will be."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Ends the thread at the next image; the list stays unfinished."""
        self._stop.set()
        self._thread.join()

    def _list(self) -> None:
        try:
            self._write_shards()
        except Exception as error:  # noqa: BLE001 - the driver raises it again; without an end its workers would wait
            self.failure = error
        if not self._stop.is_set():
            self._write_end()
        self._store.remove(_SPARE)

    def _write_end(self) -> None:
        try:
            listing = self.so_far.model_copy(update={"error": self.failure and str(self.failure)})
            self._store.write(LISTING, listing.model_dump_json().encode())
        except Exception as error:  # noqa: BLE001 - as above
            self.failure = self.failure or error
            self._store.rename(_SPARE, LISTING)

    def _write_shards(self) -> None:
        digest = sha256()
        entries: Iterable[Entry] = self._entries
        if self._sample:
            entries, self.so_far.population = draw_sample(entries, *self._sample)
        for number, shard in enumerate(cut(entries, self._most)):
            if self._stop.is_set():
                return
            content = encode(shard)
            digest.update(content)
            self._write(number, content)
            counts = [images_of(entry) for entry in shard]
            images = self.so_far.images
            total = None if images is None or None in counts else images + sum(filter(None, counts))
            self.so_far = self.so_far.model_copy(
                update={"shards": number + 1, "images": total, "sha256": digest.hexdigest()}
            )
        if self._store.has(shard_file(self.so_far.shards)):
            raise self._changed(self.so_far.shards)

    def _write(self, number: int, content: bytes) -> None:
        earlier = self._store.read(shard_file(number))
        if earlier is None:
            self._store.write(shard_file(number), content)
        elif earlier != content:
            raise self._changed(number)

    def _changed(self, number: int) -> ValueError:
        return ValueError(
            f"the sources have changed since they were first listed: {self._store.location}/{shard_file(number)} "
            "holds other images than are there now. Choose another --out"
        )


def follow(store: Store, done: Container[int]) -> Iterator[int | None]:
    """Numbers of the shards that are not done, up to the end of the list; None where the next is not listed yet."""
    given, listing = 0, read_listing(store)
    while True:
        known = _listed_from(store, given) if listing is None else listing.shards
        yield from (number for number in range(given, known) if number not in done)
        if listing is not None:
            return
        if known == given and (listing := read_listing(store)) is None:
            yield None
        given = known


def _listed_from(store: Store, number: int) -> int:
    """A number that all shards before it are listed, from `number` on; few looks, for shards are listed in order."""
    step = 1
    while store.has(shard_file(number + step - 1)):
        step *= 2
    return number + step // 2
