"""Facts about an image file that its pixels do not tell: JPEG quality and subsampling, frames."""

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

_MAX_FRAMES = 10_000  # counting stops here: a hostile file can hold millions of empty frames


def jpeg_quality(image: Any) -> int | None:
    """The quality in 1..100 whose libjpeg luminance table differs least from the one used for the first component."""
    table = image.quantization.get(image.layer[0][3]) if image.layer else None
    if table is None:
        return None
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = np.clip((_LUMINANCE * percent + 50) // 100, 1, 255)  # (100, 64)
    return int(np.abs(tables - np.array(table)).sum(axis=1).argmin()) + 1


def jpeg_subsampling(image: Any) -> str | None:
    from PIL.JpegImagePlugin import get_sampling

    if image.layers != 3:
        return None
    return {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(get_sampling(image), "other")


# ITU-T T.81 table K.1, the table that libjpeg scales by quality, row by row.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()


def count_frames(image: Any, name: str, file: BinaryIO) -> int:
    """Pillow counts the frames of GIF and TIFF by parsing all of them, at the pace a hostile file sets: not used."""
    if name == "ICO":
        return int(image.ico.nb_items)
    counter = {"GIF": _gif_frames, "TIFF": _tiff_pages}.get(name)
    frames = sum(1 for _ in counter(file)) if counter else int(getattr(image, "n_frames", 1))
    return min(max(frames, 1), _MAX_FRAMES)


def _tiff_pages(file: BinaryIO) -> Iterator[int]:
    """Offsets of the image directories that the file chains, up to a damaged one, a repeated one, or the limit."""
    file.seek(0)
    head = file.read(16)
    order, big = "<" if head[:1] == b"I" else ">", 43 in head[2:4]
    count_format, offset_format, entry_size = (order + "Q", order + "Q", 20) if big else (order + "H", order + "I", 12)
    visited: set[int] = set()
    try:
        (offset,) = struct.unpack_from(offset_format, head, 8 if big else 4)
        while offset and offset not in visited and len(visited) < _MAX_FRAMES:
            file.seek(offset)
            (entries,) = struct.unpack(count_format, file.read(struct.calcsize(count_format)))
            file.seek(offset + struct.calcsize(count_format) + entries * entry_size)
            visited.add(offset)
            yield offset
            (offset,) = struct.unpack(offset_format, file.read(struct.calcsize(offset_format)))
    except (struct.error, OverflowError, OSError, ValueError):
        return  # the chain leaves the file


def _gif_frames(file: BinaryIO) -> Iterator[int]:
    """Offsets of the image blocks, up to the end of a whole file, a cut one, or the limits."""
    file.seek(10)
    head = file.read(3)
    file.seek(_colour_table(head[0]), os.SEEK_CUR)
    frames = blocks = 0
    while frames < _MAX_FRAMES and (kind := file.read(1)) in {b"!", b","}:
        if kind == b",":
            frames += 1
            yield file.tell()
            if len(descriptor := file.read(9)) == 9:
                file.seek(_colour_table(descriptor[8]), os.SEEK_CUR)
        file.read(1)  # the extension's label, or the image's code size
        while (size := file.read(1)) not in {b"", b"\0"}:
            file.seek(size[0], os.SEEK_CUR)
            if (blocks := blocks + 1) > 1_000_000:  # of up to 255 bytes
                return


def _colour_table(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 128 else 0
