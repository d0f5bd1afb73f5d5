"""From what a decoder gives, in whatever mode, to upright sRGB pixels of 8 bits on white.

Dimensions: H x W pixels after EXIF orientation. The rule for each mode is in docs/images.md.
"""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from apn.imagefile import ImageError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

BACKGROUND = (255, 255, 255)  # white: what transparent pixels are laid on
# Pixels decoded, converted and copied together. Small enough for the processor's cache, and the reason why memory
# stays at what Pillow decodes (1 to 4 bytes a pixel) plus the 3 of the result.
_STRIP_PIXELS = 1 << 18


def to_rgb(image: "ImageFile.ImageFile", name: str) -> np.ndarray:
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
