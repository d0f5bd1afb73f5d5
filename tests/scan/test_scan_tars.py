"""Tars as they come: joined, in several compressed streams, with something else behind them, with endless names."""

import bz2
import gzip
import lzma
import tarfile

import pytest
from scanning import picture
from test_scan_sources import listed, read, write_tar

from apn.scan.sample import draw_sample

RED = picture(255)


def joined(folder):
    """Two tars of two images each, one behind the other."""
    tars = [write_tar(folder / f"{a}.tar", {f"{a}{n}.png": RED for n in (0, 1)}).read_bytes() for a in "ab"]
    return b"".join(tars)


def in_streams(compress, content: bytes, size: int = 700) -> bytes:
    """As pbzip2 and bgzip write: each stretch of the content compressed by itself."""
    return b"".join(compress(content[at : at + size]) for at in range(0, len(content), size))


@pytest.mark.parametrize(
    ("name", "compress"),
    [("j.tar", None), ("j.tar.gz", gzip.compress), ("j.tar.bz2", bz2.compress), ("j.tar.xz", lzma.compress)],
)
def test_tars_that_were_joined_and_those_of_several_streams_are_read_to_their_end(tmp_path, name, compress):
    content = joined(tmp_path)
    (tmp_path / name).write_bytes(content if compress is None else in_streams(compress, content))
    images = read(tmp_path / name)
    assert [one.name.partition("#")[2] for one in images] == ["a0.png", "a1.png", "b0.png", "b1.png"]
    assert all(one.load().pixels[0, 0, 0] == 255 for one in images)


def test_joined_tars_are_drawn_from_as_a_whole(tmp_path):
    (tmp_path / "j.tar").write_bytes(joined(tmp_path))
    assert draw_sample(listed(tmp_path / "j.tar"), 99, seed=0).population == 4


@pytest.mark.parametrize(
    ("cut", "added", "reason"),
    [
        (-10240, b"", "no mark of its end, as if it was cut"),
        (None, b"?" * 512, "behind the mark of its end is no tar at byte 20480: invalid header"),
    ],
)
def test_what_is_lost_behind_a_tar_is_a_row(tmp_path, cut, added, reason):
    content = joined(tmp_path)
    end = content.rindex(RED) + 512  # of the last member, whose content is less than a block
    (tmp_path / "j.tar").write_bytes((content[: end - end % 512] if cut else content) + added)
    *images, last = read(tmp_path / "j.tar")
    assert (len(images), last.error) == (4, f"{tmp_path}/j.tar cannot be read: {reason} (after 4 images)")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_what_a_tar_says_of_a_member_cannot_take_all_memory(tmp_path, kind):
    """tarfile reads it as a whole before it says what it is."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 34
    first = write_tar(tmp_path / "a.tar", {"0.png": RED}).read_bytes()[:1024]
    (tmp_path / "a.tar").write_bytes(first + info.tobuf(tarfile.GNU_FORMAT))
    image, last = read(tmp_path / "a.tar")
    assert image.name.endswith("#0.png")
    assert "17,179,869,184 bytes about one member, more than the limit of 1,048,576" in last.error
