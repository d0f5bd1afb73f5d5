"""An image that kills the process which reads it (a decoder's crash, no memory left) must not stop the scan.

Only a worker that replaces a dead one keeps a journal. If a shard has been begun twice before, it goes through it image
by image, and writes down each before it is read; an image at which two workers died becomes a row with an error.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, Field

from apn.scan.files import Store
from apn.scan.images import Image

DEATHS = 2  # at the same image: once may be somebody else's doing
ERROR = "the process that reads this image dies of it"


class Journal(BaseModel):
    """What is known of a shard that workers died in. Images are counted from 0."""

    begun: int = 0
    at: int | None = None  # the image that is being read
    deaths: dict[int, int] = Field(default_factory=dict)  # at each image

    @property
    def careful(self) -> bool:
        """Whether to go image by image: workers have died in this shard twice before."""
        return self.begun > 2


def begin(store: Store, number: int) -> Journal:
    """The journal of a shard that is begun again."""
    text = store.read(_file(number))
    journal = Journal(begun=1) if text is None else Journal.model_validate_json(text)
    if journal.at is not None:
        journal.deaths = dict(Counter(journal.deaths) + Counter([journal.at]))
    journal.begun, journal.at = journal.begun + 1, None
    _write(store, number, journal)
    return journal


def one_by_one(store: Store, number: int, journal: Journal, images: Iterable[Image]) -> Iterator[Image]:
    """The images, each written down before it is given out; those that workers died of come with an error."""
    for place, image in enumerate(images):
        if journal.deaths.get(place, 0) >= DEATHS:
            yield Image(image.name, error=ERROR)
        else:
            _write(store, number, journal.model_copy(update={"at": place}))
            yield image


def end(store: Store, number: int) -> None:
    """Forgets the journal of a shard that is done."""
    store.remove(_file(number))


def _file(number: int) -> str:
    return f"journals/{number:06d}.json"


def _write(store: Store, number: int, journal: Journal) -> None:
    store.write(_file(number), journal.model_dump_json().encode())
