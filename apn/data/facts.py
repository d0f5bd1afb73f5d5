"""Facts of an image file, from its header and its length: what a label can be told by without looking at a pixel."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from apn.data.samples import Sample
from apn.image import ImageError, read_header
from apn.threads import ahead


class Facts(NamedTuple):
    """What is known of a file without decoding it; `apn.image.Header` has the meaning of the last four."""

    format: str
    width: int  # pixels, as stored, before EXIF orientation
    height: int
    bytes: int
    mode: str
    quality: int | None
    subsampling: str | None
    progressive: bool | None

    @property
    def bytes_per_pixel(self) -> float:
        """Length of the whole file over its pixels; of an animation, over those of one frame."""
        return self.bytes / (self.width * self.height)

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height


def read_facts(source: Path | bytes) -> Facts:
    """The facts of a file, or of the bytes of one. ImageError says why there are none."""
    header = read_header(source)
    if not header.width * header.height:
        raise ImageError(f"{header.width} x {header.height} pixels: there is no picture in the file")
    size = len(source) if isinstance(source, bytes) else os.stat(source).st_size
    return Facts(
        header.format,
        header.width,
        header.height,
        size,
        header.mode,
        header.quality,
        header.subsampling,
        header.progressive,
    )


def facts_of(
    samples: Sequence[Sample],
    *,
    deliver: Callable[[Sample], Path | bytes] = lambda sample: sample.path,
    workers: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Facts | str]:
    """The facts of each sample in order, `workers` files at a time; the reason, a text, where a file has none.

    deliver: what file stands for a sample, its own or one in memory. `advance` is called after each.
    """

    def facts_or_reason(sample: Sample) -> Facts | str:
        try:
            return read_facts(deliver(sample))
        except ImageError as error:
            return str(error)

    for result in ahead(facts_or_reason, samples, workers):
        advance()
        yield result
