"""One safe way in: bytes or a path to RGB pixels, the same for training, detection, the server and a scan.

Dimensions: H x W pixels after EXIF orientation. The rule for each kind of file is in docs/images.md.
Only numpy and Pillow are used (pillow-heif for HEIC), and only once an image is loaded, so that importing is cheap.

Nothing global in Pillow is changed, because several threads decode at once: a plugin is called directly instead of
`Image.open`, whose pixel limit is a module variable, and an early end is handled per file, not by a module variable.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from apn.imagecolour import to_rgb
from apn.imagefacts import count_frames, jpeg_quality, jpeg_subsampling
from apn.imagefile import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
from apn.imagefile import ImageError as ImageError
from apn.imagefile import Source, readable, sha256_of, state_of
from apn.imagefile import find_images as find_images
from apn.imagekind import RAW_WORDS, kind_of
from apn.provenance import find_provenance

if TYPE_CHECKING:
    from PIL import ImageFile

_PLUGINS = {"JPEG": "Jpeg", "PNG": "Png", "WEBP": "WebP", "TIFF": "Tiff", "JPEG2000": "Jpeg2K"}

_NEW_SUBFILE_TYPE, _DNG_VERSION = 254, 50706  # tags of a TIFF; bit 0 of the first: a smaller copy of another picture

_SLOW_PIXELS = 4_000_000  # for decoders that Pillow has in Python only: up to 8 s
_MAX_SCANS = 100  # of a JPEG, each of which costs a pass over all pixels; cameras and tools write about 10
_MAX_SEGMENTS = 10_000  # of a JPEG, walked through in Python; the largest profile has 255, other metadata not many more
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # a zero after FF is data, and D0 to D7 are restarts


class LoadedImage(NamedTuple):
    """One decoded image and what its file said.

    pixels:    (H, W, 3) uint8 sRGB, C-contiguous, upright, laid on white.
    format:    JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF, JPEG2000, PPM or ICO, from the content and not the name.
    frames:    frames or pages in the file, counted up to 10,000; only the first is decoded (of an ICO, the largest).
    truncated: the file ended early and the missing part is filled; only with `allow_truncated`.
    quality:   JPEG quality in 1..100 whose luminance table is nearest to the file's, None if not a JPEG.
    metadata:  see `apn.provenance.find_provenance`.
    sha256:    of the file's bytes, in hexadecimal; None where nobody asked for it.
    """

    pixels: np.ndarray
    format: str
    frames: int
    truncated: bool
    quality: int | None
    metadata: dict[str, str]
    sha256: str | None = None

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


class Header(NamedTuple):
    """What a file says of its image before a pixel is decoded; format and quality as in `LoadedImage`.

    width, height: as stored, before EXIF orientation.
    mode:          Pillow's name of what a pixel is: RGB, L, RGBA, P, CMYK, I;16 and so on.
    subsampling:   chroma of a JPEG in colour, 4:4:4, 4:2:2, 4:2:0 or other; None for everything else.
    progressive:   whether a JPEG is; None for another format.
    """

    format: str
    width: int
    height: int
    mode: str
    quality: int | None
    subsampling: str | None
    progressive: bool | None


def load_image(
    source: Source, *, max_pixels: int = 200_000_000, allow_truncated: bool = False, digest: bool = False
) -> LoadedImage:
    """The first frame of an image as upright sRGB pixels; the same result for a path, its bytes and an open file.

    source:          path to a regular file; the bytes of one; or a binary file, read from its position to its end.
    max_pixels:      a larger image is refused before it is decoded.
    allow_truncated: load what there is of a JPEG, PNG, GIF, BMP, PPM or uncompressed TIFF that ends early.
    digest:          fill in `sha256`; a file that is written to meanwhile is then an error.

    Raises ImageError for everything that can be wrong with the file, TypeError for a source of another type.
    """
    with readable(source) as file:
        before = state_of(file)
        loaded = _load(file, max_pixels, allow_truncated)
        return loaded._replace(sha256=sha256_of(file, before)) if digest else loaded


def read_header(source: Source, *, max_pixels: int = 200_000_000) -> Header:
    """What the file says of its first image, not decoded (but for an ICO). Arguments and errors as in `load_image`."""
    with readable(source) as file, _opened_image(file, max_pixels) as (name, image):
        jpeg = name == "JPEG"
        return Header(
            name,
            *image.size,
            image.mode,
            jpeg_quality(image) if jpeg else None,
            jpeg_subsampling(image) if jpeg else None,
            bool(image.info.get("progressive")) if jpeg else None,
        )


# ------------------------------------------------------------------------------------------------------------- decoding


def _load(file: BinaryIO, max_pixels: int, allow_truncated: bool) -> LoadedImage:
    with _opened_image(file, max_pixels) as (name, image):
        _check_cost(image, name, file)
        truncated = _decode(image, name, allow_truncated)
        _check_pixels(image.size, max_pixels)
        pixels = to_rgb(image, name)
        frames = count_frames(image, name, file)
        quality = jpeg_quality(image) if name == "JPEG" else None
        return LoadedImage(pixels, name, frames, truncated, quality, find_provenance(image, file))


@contextmanager
def _opened_image(file: BinaryIO, max_pixels: int) -> "Iterator[tuple[str, ImageFile.ImageFile]]":
    """The format and the image with its header read."""
    name = kind_of(file)
    if name == "ICO":  # its plugin decodes while it opens
        _check_pixels(_largest_icon(file), max_pixels)
    with _open(name, file) as image:
        if name == "TIFF":
            _check_not_raw(image)
        _check_pixels(image.size, max_pixels)
        yield name, image


def _open(name: str, file: BinaryIO) -> "ImageFile.ImageFile":
    """The header read by the plugin for this format; no file name is given, so that Pillow does not map the file into
    memory, where another program's truncating it would be a bus error."""
    file.seek(0)
    if name == "HEIF":
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise ImageError('this is a HEIC image, and reading those needs: pip install "apn[heif]"') from error
        return HeifImageFile(file, "")
    from PIL import Image

    import_module(f"PIL.{_PLUGINS.get(name, name.capitalize())}ImagePlugin")
    opener, _ = Image.OPEN[name]
    return opener(file, "")


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels are more than the limit of {max_pixels:,} pixels")


def _check_not_raw(image: Any) -> None:
    """Refuse DNG, NEF, ARW and their kind: of these a TIFF's reader sees a thumbnail, and the photograph is elsewhere.

    image: an opened TIFF.
    """
    reduced = image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)
    if _DNG_VERSION in image.tag_v2 or (isinstance(reduced, int) and reduced & 1):
        raise ImageError(RAW_WORDS)


def _check_cost(image: "ImageFile.ImageFile", name: str, file: BinaryIO) -> None:
    """Refuse what is small on disk and within the pixel limit, yet takes minutes."""
    slow = any(tile[0] in {"ppm", "ppm_plain", "bmp_rle"} for tile in image.tile)
    if slow and image.width * image.height > _SLOW_PIXELS:
        found = f"{image.width} x {image.height} pixels"
        raise ImageError(f"{found} are more than the limit of {_SLOW_PIXELS:,} for this rare kind of {name}")
    if name == "JPEG":  # also of one that is not progressive: each of its colours may come in scans without end
        position = file.tell()
        scans = _count_scans(file)
        file.seek(position)
        if scans > _MAX_SCANS:
            raise ImageError(f"a JPEG of {scans} scans, more than the limit of {_MAX_SCANS}")


def _count_scans(file: BinaryIO) -> int:
    """Scans of a JPEG: exact where there are more than _MAX_SCANS, unless it has more than _MAX_SEGMENTS."""
    file.seek(0)
    most = 0  # what looks like a scan, be it inside a segment or after the end: fast, and enough for most files
    while block := file.read(1 << 20):
        most += block.count(b"\xff\xda")
    if most <= _MAX_SCANS:
        return most
    file.seek(2)  # after the start of the image
    scans = 0
    for _ in range(_MAX_SEGMENTS):
        marker = _next_marker(file)
        if marker in (None, 0xD9):  # the end of the file or of the image
            return scans
        scans += marker == 0xDA
        if marker >= 0xC0:  # those below are nothing but themselves
            length = int.from_bytes(file.read(2))  # counts its own two bytes
            file.seek(max(length - 2, 0), os.SEEK_CUR)
    return most


def _next_marker(file: BinaryIO) -> int | None:
    """The code of the next marker, as libjpeg finds it; the file is then behind it. None where there is no more."""
    while len(block := file.read(1 << 16)) > 1:
        if found := _MARKER.search(block):
            file.seek(found.end() - len(block), os.SEEK_CUR)
            return block[found.end() - 1]
        file.seek(-1, os.SEEK_CUR)  # the last byte may be the first of a marker
    return None


def _largest_icon(file: BinaryIO) -> tuple[int, int]:
    """(width, height) of the largest picture that an icon's PNG and bitmap headers announce."""
    file.seek(4)
    (count,) = struct.unpack("<H", file.read(2))
    offsets = [struct.unpack("<12xI", file.read(16))[0] for _ in range(count)]
    sizes = [(0, 0)]
    for offset in offsets:
        file.seek(offset)
        head = file.read(24).ljust(24, b"\0")
        width, height = (
            struct.unpack(">16xII", head) if head.startswith(b"\x89PNG") else struct.unpack("<4xii12x", head)
        )
        sizes.append((abs(width), abs(height)))
    return max(sizes, key=lambda size: size[0] * size[1])


class _PaddedJpeg:
    """A file that goes on, once, with an end-of-image marker: libjpeg then hands out what it has decoded."""

    def __init__(self, file: Any) -> None:
        self.file, self.ended = file, False
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        if (data := self.file.read(size)) or self.ended:
            return bytes(data)
        self.ended = True
        return b"\xff\xd9"


def _decode(image: "ImageFile.ImageFile", name: str, allow_truncated: bool) -> bool:
    """Decode into the image's own memory; True if the file ended early and that is allowed."""
    if name == "TIFF":
        from PIL import Image

        # Given memory, the plugin skips Pillow's own limit, which is a module variable and below ours.
        image.im = Image.core.new(image.mode, image._tile_size)  # type: ignore[attr-defined]
    padded = _PaddedJpeg(image.fp) if name == "JPEG" and allow_truncated else None
    if padded:
        image.fp = padded  # type: ignore[assignment]
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error).lower():
            raise
        if not allow_truncated:
            raise ImageError("the file ends early: part of the image is missing") from error
        if image._im is None:
            raise
        image.tile = []  # what has been decoded stands; the rest stays zero
        return True
    return padded is not None and padded.ended
