"""The images in a tar, in the order of its headers: its image files, then the links to files of it."""

import bz2
import gzip
import io
import lzma
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal, NamedTuple

from apn.image import IMAGE_EXTENSIONS
from apn.scan.files import open_address

_END, _INVALID = tarfile.EOFHeaderError, tarfile.InvalidHeaderError  # type: ignore[attr-defined] # not in typeshed
_ABOUT_THE_NEXT = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE} | {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_MAX_ABOUT = 1 << 20  # bytes of what a tar says of its next member, which tarfile holds: a name and attributes
# By their first bytes. tarfile's own would end at the first of several streams, as pbzip2, bgzip and `cat` leave them.
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


class Header(tarfile.TarInfo):
    """The header of a member. tarfile takes a damaged one, and the place where a tar was cut, for the tar's end, so
    that what follows is lost in silence; here both are errors."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "Header":
        assert isinstance(tar, _Joined)
        try:
            header = super().fromtarfile(tar)
        except _END:
            tar.at_end = True
            raise
        except tarfile.HeaderError as error:
            if isinstance(error, _INVALID):
                told = "behind the mark of its end is no tar" if tar.at_end else "damaged"
                raise tarfile.ReadError(
                    f"{told} at byte {tar.offset}: {error}" if tar.offset else str(error)
                ) from error
            if tar.at_end or not tar.offset:  # tarfile has words for a wrong beginning
                raise
            raise tarfile.ReadError("no mark of its end, as if it was cut") from error
        tar.at_end = False
        return header

    @classmethod
    def frombuf(cls, block: bytes | bytearray, encoding: str, errors: str) -> "Header":
        header = super().frombuf(block, encoding, errors)
        if header.type in _ABOUT_THE_NEXT and header.size > _MAX_ABOUT:
            raise tarfile.ReadError(f"{header.size:,} bytes about one member, more than the limit of {_MAX_ABOUT:,}")
        return header


class _Joined(tarfile.TarFile):
    """A tar, and those that were joined to it (`cat a.tar b.tar`). at_end: behind the mark of an end."""

    at_end = False
    tarinfo = Header
    ignore_zeros = True  # goes on behind a mark


class Found(NamedTuple):
    """A member that holds an image. names: its own, or those of the links to it."""

    names: list[str]
    tar: tarfile.TarFile  # open at the member
    member: tarfile.TarInfo


class Lost(NamedTuple):
    """A link to no file of this tar."""

    name: str
    target: str


def walk_tar(address: str, mode: Literal["r|*", "r:"]) -> Iterator[Found | Lost]:
    """Its image files, in one pass, so that a compressed or far one can be read too; where images are links, a second
    pass finds what they lead to. Held in memory: the links. Raises what tarfile does.

    mode: `r|*` reads every byte, of compressed tars too; `r:` an uncompressed one's headers, and what the caller reads.
    """
    targets: dict[str, str] = {}  # of all links
    links: dict[str, str] = {}  # that are images, and what they say they lead to
    with _open(address, mode) as tar:
        for member in _members(tar):
            if member.issym() or member.islnk():
                targets[_plain(member.name)] = _target(member)
                if is_image_name(member.name):
                    links[member.name] = member.linkname
            elif member.isfile() and is_image_name(member.name):
                yield Found([member.name], tar, member)
    if not links:
        return
    wanted: dict[str, list[str]] = {}
    for name in links:
        wanted.setdefault(_end(_plain(name), targets), []).append(name)
    with _open(address, mode) as tar:
        for member in _members(tar):
            if member.isfile() and (names := wanted.pop(_plain(member.name), None)):
                yield Found(names, tar, member)
    yield from (Lost(name, links[name]) for names in wanted.values() for name in names)


def is_image_name(name: str) -> bool:
    """Whether a member of a tar is an image to scan: by its extension, and not hidden."""
    file_name = name.rpartition("/")[2]
    return not file_name.startswith(".") and any(file_name.lower().endswith(end) for end in IMAGE_EXTENSIONS)


@contextmanager
def _open(address: str, mode: Literal["r|*", "r:"]) -> Iterator[tarfile.TarFile]:
    file_system, path = open_address(address)
    with file_system.open(path, "rb") as file:
        if mode == "r:":
            with _Joined.open(fileobj=file, mode="r:") as tar:
                yield tar
        else:
            with (
                io.BufferedReader(file) as packed,
                _unpacked(packed) as unpacked,
                _Joined.open(fileobj=unpacked, mode="r|") as tar,
            ):
                yield tar


def _unpacked(packed: io.BufferedReader) -> IO[bytes]:
    """What a compressed file holds, and any other file as it is, to be read from front to back."""
    head = packed.peek(8)
    unpack = next((unpack for magic, unpack in _PACKED.items() if head.startswith(magic)), None)
    return packed if unpack is None else unpack(packed, "rb")


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        yield member
        tar.members = []  # type: ignore[attr-defined] # it would keep all of them


def _target(link: tarfile.TarInfo) -> str:
    """A hard link names a member, a symbolic one what is beside it."""
    return _plain(link.linkname if link.islnk() else posixpath.join(posixpath.dirname(link.name), link.linkname))


def _plain(name: str) -> str:
    """`./a/b` and `/a/b` as `a/b`: tar leaves out the root when it packs, and not in the targets of links."""
    return posixpath.normpath(name).lstrip("/")


def _end(name: str, targets: dict[str, str]) -> str:
    """What a chain of links leads to; one of its links where it is a circle."""
    seen = set[str]()
    while name in targets and name not in seen:
        seen.add(name)
        name = targets[name]
    return name
