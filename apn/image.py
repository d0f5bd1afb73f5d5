"""One safe way in: bytes or a path to RGB pixels, the same for training, detection, the server and a scan.

Dimensions: H x W pixels after EXIF orientation. The rule for each kind of file is in docs/images.md.
Only numpy and Pillow are used (pillow-heif for HEIC), and only once an image is loaded, so that importing is cheap.

Nothing global in Pillow is changed, because several threads decode at once: a plugin is called directly instead of
`Image.open`, whose pixel limit is a module variable, and an early end is handled per file, not by a module variable.
"""

import io
import logging
import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from apn.provenance import clean, find_provenance

if TYPE_CHECKING:
    from PIL import Image, ImageFile

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ico"}
    | {".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
)
BACKGROUND = (255, 255, 255)  # white: what transparent pixels are laid on

# Formats by content; never one whose decoder starts a program (EPS) or that any bytes can pass for (TGA).
_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM")),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("AVIF", re.compile(rb".{4}ftypavi[fs]", re.DOTALL)),
    ("HEIF", re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif[12]|msf1)", re.DOTALL)),
    ("JPEG2000", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", re.DOTALL)),
    ("PPM", re.compile(rb"P[1-6Ff]\s")),
    ("ICO", re.compile(rb"\0\0\x01\0[^\0]\0")),
)
_PLUGINS = {"JPEG": "Jpeg", "PNG": "Png", "WEBP": "WebP", "TIFF": "Tiff", "JPEG2000": "Jpeg2K"}

# Pixels decoded, converted and copied together. Small enough for the processor's cache, and the reason why memory
# stays at what Pillow decodes (1 to 4 bytes a pixel) plus the 3 of the result.
_STRIP_PIXELS = 1 << 18
_SLOW_PIXELS = 4_000_000  # for decoders that Pillow has in Python only: up to 8 s
_MAX_FRAMES = 10_000  # counting stops here: a hostile file can hold millions of empty frames
_MAX_SCANS = 100  # of a progressive JPEG, each of which costs a pass over all pixels; cameras and tools write about 10
_MAX_FILE = 1 << 31  # bytes, where the decoder reads the file as a whole
_WHOLE_FILE = {"WEBP", "AVIF", "HEIF", "JPEG2000", "PNG", "ICO"}

# Without any handler Python prints Pillow's log of a damaged file to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class ImageError(ValueError):
    """The image cannot be loaded; the message says why in one sentence for a reader without a traceback."""


class LoadedImage(NamedTuple):
    """One decoded image and what its file said.

    pixels:    (H, W, 3) uint8 sRGB, C-contiguous, upright, laid on white.
    format:    JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF, JPEG2000, PPM or ICO, from the content and not the name.
    frames:    frames or pages in the file, counted up to 10,000; only the first is decoded (of an ICO, the largest).
    truncated: the file ended early and the missing part is filled; only with `allow_truncated`.
    quality:   JPEG quality in 1..100 whose luminance table is nearest to the file's, None if not a JPEG.
    metadata:  see `apn.provenance.find_provenance`.
    """

    pixels: np.ndarray
    format: str
    frames: int
    truncated: bool
    quality: int | None
    metadata: dict[str, str]

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


Source = str | os.PathLike[str] | bytes | BinaryIO


def load_image(source: Source, *, max_pixels: int = 200_000_000, allow_truncated: bool = False) -> LoadedImage:
    """The first frame of an image as upright sRGB pixels; the same result for a path, its bytes and an open file.

    source:          path to a regular file; the bytes of one; or a binary file, read from its position to its end.
    max_pixels:      a larger image is refused before it is decoded.
    allow_truncated: load what there is of a JPEG, PNG, GIF, BMP, PPM or uncompressed TIFF that ends early.

    Raises ImageError for everything that can be wrong with the file, TypeError for a source of another type.
    """
    with _readable(source) as file:
        return _load(file, max_pixels, allow_truncated)


def read_header(source: Source, *, max_pixels: int = 200_000_000) -> Header:
    """What the file says of its first image, not decoded (but for an ICO). Arguments and errors as in `load_image`."""
    with _readable(source) as file, _opened_image(file, max_pixels) as (name, image):
        jpeg = name == "JPEG"
        return Header(
            name,
            *image.size,
            image.mode,
            _jpeg_quality(image) if jpeg else None,
            _jpeg_subsampling(image) if jpeg else None,
            bool(image.info.get("progressive")) if jpeg else None,
        )


def find_images(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Files named, and image files (IMAGE_EXTENSIONS) of the folders named with all folders in them, in order of name.

    A path that is not a folder is always yielded, whatever its extension and whether or not it exists, and so is a
    folder that cannot be listed: loading it gives the error to report. In folders hidden files and folders are skipped,
    links are followed, and no folder is visited twice.
    """
    for path in map(Path, paths):
        visited: set[tuple[int, int]] = set()
        waiting = [path]
        while waiting:
            current = waiting.pop()
            if not os.path.isdir(current):  # not Path.is_dir, which raises without permission
                yield current
                continue
            try:
                status = os.stat(current)
                names = sorted(os.listdir(current), reverse=True)
            except OSError:
                yield current
                continue
            if (identity := (status.st_dev, status.st_ino)) not in visited:
                visited.add(identity)
                waiting += [current / name for name in names if _is_wanted(current, name)]


def _is_wanted(folder: Path, name: str) -> bool:
    if name.startswith("."):
        return False
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS or os.path.isdir(folder / name)


# ---------------------------------------------------------------------------------------------------------------- files


@contextmanager
def _readable(source: Any) -> Iterator[BinaryIO]:
    """The opened source; whatever goes wrong with it is an ImageError in plain words."""
    if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) and not hasattr(source, "read"):
        raise TypeError(f"source must be a path, bytes or a binary file, found {type(source).__name__}")
    try:
        with _opened(source) as file, _pillow_warnings_ignored:
            yield file
    except ImageError:
        raise
    except Exception as error:  # so broad because decoders raise anything for hostile bytes, even MemoryError
        raise ImageError(_in_plain_words(error)) from error


@contextmanager
def _opened(source: Any) -> Iterator[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif hasattr(source, "read"):
        yield io.BytesIO(source.read())
    else:
        if stat.S_ISDIR(mode := os.stat(source).st_mode):
            listable = os.access(source, os.R_OK | os.X_OK)
            raise ImageError("a folder, not an image file" if listable else "no permission to list this folder")
        if not stat.S_ISREG(mode):
            raise ImageError("a pipe, socket or device, not an image file")
        # Should a pipe have taken the file's place meanwhile, opening must not wait for a writer.
        no_wait = getattr(os, "O_NONBLOCK", 0)
        with open(source, "rb", opener=lambda path, flags: os.open(path, flags | no_wait)) as file:
            yield file


class _IgnorePillowWarnings:
    """Ignores warnings raised inside Pillow for as long as any thread decodes.

    `warnings.catch_warnings` saves and restores the whole list of filters, which two threads would do in the wrong
    order. Here the first thread in adds one rule and the last one out removes it. The list is changed directly because
    `warnings.filterwarnings` also forgets which warnings of other modules have been shown already, on every image.
    """

    rule = ("ignore", None, Warning, re.compile(r"(PIL|pillow_heif)\b"), 0)

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0

    def __enter__(self) -> None:
        filters: Any = warnings.filters
        with self.lock:
            self.users += 1
            if self.rule not in filters:
                filters.insert(0, self.rule)

    def __exit__(self, *error: object) -> None:
        filters: Any = warnings.filters
        with self.lock:
            self.users -= 1
            if not self.users and self.rule in filters:
                filters.remove(self.rule)


_pillow_warnings_ignored = _IgnorePillowWarnings()


def _in_plain_words(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case PermissionError():
            return "no permission to read the file"
        case MemoryError():
            return "not enough memory to decode the image"
        case OSError(strerror=str(reason)):
            return f"the file cannot be read ({reason})"
    detail = clean(str(error))[:200] or type(error).__name__
    return f"the image data is damaged or of a kind that is not supported ({detail})"


# ------------------------------------------------------------------------------------------------------------- decoding


def _load(file: BinaryIO, max_pixels: int, allow_truncated: bool) -> LoadedImage:
    with _opened_image(file, max_pixels) as (name, image):
        _check_cost(image, name, file)
        truncated = _decode(image, name, allow_truncated)
        _check_pixels(image.size, max_pixels)
        pixels = _to_rgb(image, name)
        frames = _count_frames(image, name, file)
        quality = _jpeg_quality(image) if name == "JPEG" else None
        return LoadedImage(pixels, name, frames, truncated, quality, find_provenance(image, file))


@contextmanager
def _opened_image(file: BinaryIO, max_pixels: int) -> "Iterator[tuple[str, ImageFile.ImageFile]]":
    """The format and the image with its header read."""
    name = _sniff(file)
    if name == "ICO":  # its plugin decodes while it opens
        _check_pixels(_largest_icon(file), max_pixels)
    with _open(name, file) as image:
        _check_pixels(image.size, max_pixels)
        yield name, image


def _sniff(file: BinaryIO) -> str:
    head = file.read(64)
    if not head:
        raise ImageError("the file is empty")
    name = next((name for name, signature in _SIGNATURES if signature.match(head)), None)
    if name is None:
        known = ", ".join(name for name, _ in _SIGNATURES)
        raise ImageError(f"not an image of a known kind ({known}): the file starts with {head[:12]!r}")
    # The generic brand `mif1` says "see the compatible brands".
    if name == "HEIF" and any(brand in head[16 : int.from_bytes(head[:4])] for brand in (b"avif", b"avis")):
        name = "AVIF"
    size = file.seek(0, os.SEEK_END)
    if name in _WHOLE_FILE and size > _MAX_FILE:
        raise ImageError(f"the file has {size:,} bytes, more than the limit of {_MAX_FILE:,} for {name}")
    return name


def _open(name: str, file: BinaryIO) -> "ImageFile.ImageFile":
    """The header read by the plugin for this format; no file name is given, so that Pillow does not map the file into
    memory, where another program's truncating it would be a bus error."""
    file.seek(0)
    if name == "HEIF":
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise ImageError("this is a HEIC image, and reading those needs: pip install apn[heif]") from error
        return HeifImageFile(file, "")
    from PIL import Image

    import_module(f"PIL.{_PLUGINS.get(name, name.capitalize())}ImagePlugin")
    opener, _ = Image.OPEN[name]
    return opener(file, "")


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels are more than the limit of {max_pixels:,} pixels")


def _check_cost(image: "ImageFile.ImageFile", name: str, file: BinaryIO) -> None:
    """Refuse what is small on disk and within the pixel limit, yet takes minutes."""
    slow = any(tile[0] in {"ppm", "ppm_plain", "bmp_rle"} for tile in image.tile)
    if slow and image.width * image.height > _SLOW_PIXELS:
        found = f"{image.width} x {image.height} pixels"
        raise ImageError(f"{found} are more than the limit of {_SLOW_PIXELS:,} for this rare kind of {name}")
    if name == "JPEG" and image.info.get("progressive"):
        position, scans = file.tell(), 0
        file.seek(0)
        while block := file.read(1 << 20):
            scans += block.count(b"\xff\xda")
        file.seek(position)
        if scans > _MAX_SCANS:
            raise ImageError(f"a progressive JPEG of {scans} scans, more than the limit of {_MAX_SCANS}")


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


# --------------------------------------------------------------------------------------------------- conversion to sRGB


def _to_rgb(image: "ImageFile.ImageFile", name: str) -> np.ndarray:
    """(H, W, 3) uint8, upright. Strip by strip, each written once to where it belongs in the result."""
    width, height = image.size
    orientation = _orientation(image)
    pixels = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    stored = _as_stored(pixels, orientation)  # (height, width, 3), a view
    _mend_transparency(image)
    levels, profile = _levels(image, name), _profile_transform(image)
    for top, bottom, strip in _strips(image):
        rgb = _strip_to_rgb(strip, levels, profile)
        # One colour at a time is three times as fast where rows become columns.
        for colour in (slice(None),) if orientation == 1 else range(3):
            stored[top:bottom, :, colour] = rgb[..., colour]
    return pixels


def _strips(image: "ImageFile.ImageFile") -> "Iterator[tuple[int, int, Image.Image]]":
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield top, bottom, image.crop((0, top, width, bottom))


def _strip_to_rgb(strip: "Image.Image", levels: tuple[float, float] | None, profile: Any) -> np.ndarray:
    """(rows, W, 3) uint8: to 8 bits, then to sRGB, then laid on the background by its alpha."""
    from PIL import Image

    alpha: Image.Image | None = None
    if levels:
        values = np.asarray(strip)  # (rows, W)
        if (key := strip.info.get("transparency")) is not None:
            alpha = Image.fromarray(np.where(values == key, np.uint8(0), np.uint8(255)))
        strip = Image.fromarray(_to_8_bits(values, *levels))
    elif "transparency" in strip.info or strip.mode in {"LA", "PA", "RGBA", "La", "RGBa"}:
        strip = strip.convert("LA" if strip.mode in {"LA", "La"} else "RGBA")
        alpha = strip.getchannel("A")
    colour = strip.convert(_colour_mode(strip.mode))
    rgb = (profile.apply(colour) if profile else colour).convert("RGB")
    if alpha and alpha.getextrema() != (255, 255):
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, BACKGROUND), alpha)
    return np.asarray(rgb)


def _to_8_bits(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """floor(256 * (values - black) / (white - black)) in [0, 255]; NaN is black. For 16 bits this is the high byte."""
    exact = np.float32 if values.itemsize == 2 else np.float64
    with np.errstate(invalid="ignore"):  # infinity - infinity
        scaled = np.clip(np.subtract(values, black, dtype=exact) * (256 / (white - black)), 0, 255)
    if values.dtype.kind == "f":
        scaled[np.isnan(scaled)] = 0
    return scaled.astype(np.uint8)


def _levels(image: "ImageFile.ImageFile", name: str) -> tuple[float, float] | None:
    """(black, white): the values that 0 and 256 stand for in 8 bits; None for images that Pillow has in 8 bits.

    Where the file does not say what is white, the values do: they are taken as they are if they fit a usual range
    (floats [0, 1]; integers of 8, then of 16 bits) and otherwise stretched from their minimum to their maximum.
    """
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
        return 0.0, float(1 << bits)
    if image.mode not in {"I", "F"}:
        return None
    if name == "PPM" and image.mode == "I":
        return 0.0, 65536.0
    low, high = np.inf, -np.inf
    for _, _, strip in _strips(image):
        values = np.asarray(strip)
        if (finite := values[np.isfinite(values)]).size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if image.mode == "I" and low < 0 and getattr(image, "tag_v2", {}).get(339, (1,))[0] == 1:
        raise ImageError("32-bit unsigned values above 2,147,483,647 are not supported")
    for white, largest in ((1.0, 1.0),) if image.mode == "F" else ((256.0, 255.0), (65536.0, 65535.0)):
        if low >= 0 and high <= largest:
            return 0.0, white
    return (low, high) if low < high else (0.0, 1.0)


def _colour_mode(mode: str) -> str:
    """The 8-bit mode that an image of this mode is brought to before its profile is applied."""
    if mode in {"1", "L", "LA", "La", "I", "F"} or mode.startswith("I;16"):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


def _mend_transparency(image: "ImageFile.ImageFile") -> None:
    """A PNG text chunk may have this name, and of a 16-bit colour Pillow keeps the high byte in pixels but not here."""
    match image.info.get("transparency"):
        case (int(), int(), int()) as colour if max(colour) > 255:
            image.info["transparency"] = tuple(part >> 8 for part in colour)
        case None | int() | bytes() | (int(), int(), int()):
            pass
        case _:
            del image.info["transparency"]


def _profile_transform(image: "ImageFile.ImageFile") -> Any:
    """Transform from the embedded ICC profile to sRGB; None for no profile, sRGB, one of another kind, a broken one.

    A transform is not shared between images: littlecms keeps its last pixel in it, which is not safe across threads.
    """
    profile_bytes, mode = image.info.get("icc_profile"), _colour_mode(image.mode)
    if not isinstance(profile_bytes, bytes) or profile_bytes[16:20] != {"L": b"GRAY", "CMYK": b"CMYK"}.get(
        mode, b"RGB "
    ):
        return None
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
        if "srgb" in (profile.profile.profile_description or "").lower():
            return None
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # noqa: BLE001 - a broken profile says nothing about the pixels, which are shown without it everywhere
        return None


def _orientation(image: "ImageFile.ImageFile") -> int:
    """EXIF orientation in 1..8; 1 where there is none or none that can be read, and where the plugin has applied it."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - a hostile EXIF block raises anything, and the pixels are still good
        return 1
    return orientation if orientation in range(1, 9) else 1


def _as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """View of the upright pixels in the order in which the file stores them."""
    match orientation:
        case 2 | 6:  # 2 mirrored; 6 to be turned clockwise
            upright = upright[:, ::-1]
        case 3 | 7:  # 3 upside down; 7 mirrored on the other diagonal
            upright = upright[::-1, ::-1]
        case 4 | 8:  # 4 mirrored upside down; 8 to be turned anticlockwise
            upright = upright[::-1]
    return upright.swapaxes(0, 1) if orientation >= 5 else upright


# ------------------------------------------------------------------------------------------------- facts about the file


def _jpeg_quality(image: Any) -> int | None:
    """The quality in 1..100 whose libjpeg luminance table differs least from the one used for the first component."""
    table = image.quantization.get(image.layer[0][3]) if image.layer else None
    if table is None:
        return None
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = np.clip((_LUMINANCE * percent + 50) // 100, 1, 255)  # (100, 64)
    return int(np.abs(tables - np.array(table)).sum(axis=1).argmin()) + 1


def _jpeg_subsampling(image: Any) -> str | None:
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


def _count_frames(image: Any, name: str, file: BinaryIO) -> int:
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
