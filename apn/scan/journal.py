"""What kills the process that reads it (a decoder's crash, no memory left) must not stop the scan.

Only a worker that replaces a dead one keeps a journal. If a shard has been begun twice before, it goes through it image
by image, and writes down each before it is fetched and before it is scored. An image whose scoring two workers died of
becomes a row with an error; where two died while they fetched the next one of a table or tar (a page of it is unpacked
as a whole), so does the rest of that table or tar in this shard, for nobody can read past it.
"""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, Field

from apn.scan.entries import Entry, images_of
from apn.scan.files import Store
from apn.scan.images import Image, images_in, unread

DEATHS = 2  # at the same image: once may be somebody else's doing
ERROR = "the process that reads this image dies of it"
ERROR_UNREAD = "the process that reads on in this table or tar dies of it"


class Journal(BaseModel):
    """What is known of a shard that workers died in. Images are counted from 0."""

    begun: int = 0
    at: int | None = None  # the image that is being fetched or scored
    fetching: bool = False
    deaths: dict[int, int] = Field(default_factory=dict)  # while each image was scored
    unread: dict[int, int] = Field(default_factory=dict)  # while each was fetched

    @property
    def careful(self) -> bool:
        """Whether to go image by image: workers have died in this shard twice before."""
        return self.begun > 2


def begin(store: Store, number: int) -> Journal:
    """The journal of a shard that is begun again."""
    text = store.read(_file(number))
    journal = Journal(begun=1) if text is None else Journal.model_validate_json(text)
    if journal.at is not None:
        told = journal.unread if journal.fetching else journal.deaths
        told[journal.at] = told.get(journal.at, 0) + 1
    journal.begun, journal.at = journal.begun + 1, None
    _write(store, number, journal)
    return journal


def one_by_one(
    store: Store, number: int, journal: Journal, entries: Iterable[Entry], max_bytes: int
) -> Iterator[Image]:
    """As `images_in`, each image written down before it is given out; those that workers died of have an error."""
    place = 0
    for entry in entries:
        first, images = place, images_in([entry], max_bytes)
        while place - first != images_of(entry):
            if journal.unread.get(place, 0) >= DEATHS:
                images = unread(entry, place - first, ERROR_UNREAD)
            else:
                _write(store, number, journal.model_copy(update={"at": place, "fetching": True}))
            image = next(images, None)
            if image is None:  # of a tar nobody knows how many it holds
                break
            if journal.deaths.get(place, 0) >= DEATHS:
                image = Image(image.name, error=ERROR)
            elif image.error is None:
                _write(store, number, journal.model_copy(update={"at": place, "fetching": False}))
            yield image
            place += 1


def end(store: Store, number: int) -> None:
    """Forgets the journal of a shard that is done."""
    store.remove(_file(number))


def _file(number: int) -> str:
    return f"journals/{number:06d}.json"


def _write(store: Store, number: int, journal: Journal) -> None:
    store.write(_file(number), journal.model_dump_json().encode())
