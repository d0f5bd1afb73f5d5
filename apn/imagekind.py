"""What kind of image a file holds, by its first bytes and not by its name; what it holds instead, for the error."""

import os
import re
from typing import BinaryIO

from apn.imagefile import ImageError

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
# Raw data of a camera that is no TIFF, or no more than its beginning: CR2, ORF, RW2, CRW, RAF, CR3, X3F, MRW.
_RAW = re.compile(
    rb"II\*\0.{4}CR|II(R[OS]|U\0|\x1a\0.{4}HEAPCCDR)|MMOR|FUJIFILMCCD-RAW|.{4}ftypcrx |FOVb|\0MRM", re.DOTALL
)
# What people take for an image: for the error, in this order.
_OTHERS = (
    ("a PDF document", re.compile(rb"%PDF")),
    ("a video", re.compile(rb".{4}ftyp|\x1aE\xdf\xa3|RIFF....AVI ", re.DOTALL)),
    ("a web page or an SVG drawing", re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|svg|\?xml)", re.IGNORECASE)),
    ("a zip archive or an office document", re.compile(rb"PK\x03\x04")),
    ("text", re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+\Z")),
)
RAW_WORDS = "a camera's raw file, which is no picture yet: expected the camera's own JPEG or one developed from it"
_MAX_FILE = 1 << 31  # bytes, where the decoder reads the file as a whole
_WHOLE_FILE = {"WEBP", "AVIF", "HEIF", "JPEG2000", "PNG", "ICO"}


def kind_of(file: BinaryIO) -> str:
    """Of the file, from its start, its format as in `apn.image.LoadedImage`. Raises ImageError for all others."""
    head = file.read(64)
    if not head:
        raise ImageError("the file is empty")
    if _RAW.match(head):
        raise ImageError(RAW_WORDS)
    name = next((name for name, signature in _SIGNATURES if signature.match(head)), None)
    if name is None:
        known = ", ".join(name for name, _ in _SIGNATURES)
        found = next((words for words, pattern in _OTHERS if pattern.match(head)), "other data")
        raise ImageError(f"not an image of a known kind ({known}): the file holds {found}, whatever its name says")
    # The generic brand `mif1` says "see the compatible brands".
    if name == "HEIF" and any(brand in head[16 : int.from_bytes(head[:4])] for brand in (b"avif", b"avis")):
        name = "AVIF"
    size = file.seek(0, os.SEEK_END)
    if name in _WHOLE_FILE and size > _MAX_FILE:
        raise ImageError(f"the file has {size:,} bytes, more than the limit of {_MAX_FILE:,} for {name}")
    return name
