"""A simple random sample of everything listed, without replacement, in one pass and with memory for the sample only.

The N images with the smallest keyed hashes of their names (bottom-k sampling): every set of N is as likely as any
other, and which images are drawn depends on their names and the seed alone, not on the order or number of sources.
"""

import heapq
import tarfile
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from apn.scan.entries import Empty, Entry, File, Link, Member, Rows, Tar, name_of
from apn.scan.tars import Lost, walk_tar

Single = File | Rows | Member | Link | Empty  # one image


class Sample(NamedTuple):
    """The images drawn, in the order of their hashes (itself random), and how many they were drawn from."""

    entries: list[Single]
    population: int


def draw_sample(entries: Iterable[Entry], size: int, seed: int) -> Sample:
    """`size` of the images listed, or all where there are fewer. Raises ValueError for a compressed tar."""
    listed = 0

    def counted() -> Iterator[Single]:
        nonlocal listed
        for single in _singles(entries):
            listed += 1
            yield single

    chosen = heapq.nsmallest(size, counted(), key=lambda single: _place(name_of(single), seed))
    return Sample(chosen, listed)


def _place(name: str, seed: int) -> bytes:
    """Where the image stands in the draw's order; 16 bytes, so that no two of a trillion images share a place."""
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16, key=str(seed).encode()).digest()


def _singles(entries: Iterable[Entry]) -> Iterator[Single]:
    for entry in entries:
        if isinstance(entry, Tar):
            yield from _members(entry.tar)
        elif isinstance(entry, Rows):
            yield from (entry._replace(first=entry.first + row, rows=1) for row in range(entry.rows))
        else:
            yield entry


def _members(address: str) -> Iterator[Member | Link]:
    """The images of an uncompressed tar, from its headers: the bytes between them are skipped."""
    try:
        for found in walk_tar(address, "r:"):
            if isinstance(found, Lost):
                yield Link(address, *found)
            else:
                offset, size = found.member.offset_data, found.member.size
                yield from (Member(address, name, offset, size) for name in found.names)
    except tarfile.TarError as error:
        raise ValueError(f"{address}: expected an uncompressed tar to draw a sample from, found {error}") from error
