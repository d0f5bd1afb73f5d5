"""Does every file decode, and is a picture there twice? For `apn data verify` and before a training run; no torch."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from apn.data.samples import Sample
from apn.image import ImageError, load_image
from apn.threads import ahead


class Copy(NamedTuple):
    """A sample with the pixels of an earlier one that nothing keeps on its side of a split.

    of: the class, the data, the split or the split group that the earlier one is of and the sample is not.
    """

    sample: Sample
    earlier: Sample
    of: str


class Verified(NamedTuple):
    """What was found in samples that were decoded, each list in their order; `unreadable` with the reason."""

    readable: list[Sample]
    unreadable: list[tuple[Sample, str]]
    copies: list[Copy]


def verify(parts: Sequence[Sequence[Sample]], workers: int = 4, advance: Callable[[], None] = lambda: None) -> Verified:
    """Decode every file once, `workers` at a time; `advance` is called after each.

    parts: data that were named one by one, a training and a test set for instance: none should hold another's pictures.
    A file that ends early counts as unreadable: what fills its missing part would be learnt as a mark of its class.
    Copies are those of the same pixels; a picture that was saved again with loss, cut or scaled is another one here.
    """
    found = Verified([], [], [])
    first: dict[bytes, tuple[int, Sample]] = {}
    placed = [(number, sample) for number, part in enumerate(parts) for sample in part]
    pictures = ahead(_picture, [sample for _, sample in placed], workers)
    for (number, sample), picture in zip(placed, pictures, strict=True):
        if isinstance(picture, str):
            found.unreadable.append((sample, picture))
        else:
            found.readable.append(sample)
            where, earlier = first.setdefault(picture, (number, sample))
            if of := _difference(sample, earlier, same_part=where == number):
                found.copies.append(Copy(sample, earlier, of))
        advance()
    return found


def quarantine(samples: Sequence[Sample]) -> tuple[list[Sample], list[tuple[Sample, str]]]:
    """(readable samples, the others with the reason), for the caller to report; evaluation never drops an image."""
    found = verify([samples])
    return found.readable, found.unreadable


def _picture(sample: Sample) -> bytes | str:
    """A digest of the pixels, or why there are none."""
    try:
        pixels = load_image(sample.path).pixels
    except ImageError as error:
        return str(error)
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    return digest.digest()


def _difference(sample: Sample, earlier: Sample, *, same_part: bool) -> str:
    if sample.label != earlier.label:
        return "the other class"
    if not same_part:
        return "other data"
    if sample.split != earlier.split:
        return f"split {earlier.split or 'none'}"
    return "another split_group" if sample.split_group != earlier.split_group else ""
