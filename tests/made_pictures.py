"""Pictures made here, as the bytes of their files, for the tests of how images are opened."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from apn.image import load_image

WHITE = [255, 255, 255]
# 2 x 3 pixels, all different, so that any turn or mirroring shows.
SIX = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [90, 120, 60], [200, 210, 220]]], np.uint8)


def encode(image: Image.Image | np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


def photo(width: int = 64, height: int = 48) -> Image.Image:
    """Smooth, so that lossy formats keep it within a few levels."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([40 + 2 * x % 200, 60 + y % 180, 200 - x % 150], axis=-1).astype(np.uint8))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of exactly these bits: Pillow cannot write every kind that it can read."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def pixels(data: bytes) -> list[Any]:
    return load_image(data).pixels.tolist()
