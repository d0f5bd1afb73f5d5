"""Names of files, probabilities and verdicts as people read them, the same in tables, figures, pages and errors.

What programs read (JSON, CSV, Parquet) holds the name as it is, as far as UTF-8 can: `as_utf8`.
"""

import textwrap
import unicodedata

from apn.detection import Detection

VERDICTS = {"generated": "looks AI-generated", "real": "looks like a photograph", "unsure": "unsure"}
_VOID = ("small", "no colour", "flat", "not stable")  # warnings with which no probability is a verdict
_CHOSEN = {"ICO": "largest", "HEIF": "main one"}  # of several pictures in a file; else the first
_JOINER, _KEYCAP = "\u200d", "\u20e3"
_SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
_EMOJI_ENDS = frozenset("\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")  # a selector, colours of skin
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters and marks that show nothing


def printable(text: str) -> str:
    r"""One line in which nothing is hidden: what cannot be seen is spelt out, `\u202e` or `\x1b`.

    So are control characters, those that turn the direction of writing (`photo\u202egpj.exe` would read as
    "photoexe.jpg"), those without width, and undecodable bytes of file names (`\udcff`). Spaces of any width stay, and
    so do signs without width that make one emoji of several, or choose the look of one or of an ideograph.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, f" {text}", text, f"{text[1:]} "))


def _visible(before: str, sign: str, after: str) -> str:
    """The sign between two others, or its escape."""
    if sign == _JOINER:
        shown = (_is_picture(before) or before in _EMOJI_ENDS) and _is_picture(after)
    elif sign in _SELECTORS:
        shown = _is_picture(before) or after == _KEYCAP or unicodedata.name(before, "").startswith("CJK ")
    else:
        shown = (sign.isprintable() or unicodedata.category(sign) == "Zs") and sign not in _BLANK
    return sign if shown else sign.encode("unicode_escape").decode("ascii")


def _is_picture(sign: str) -> bool:
    return unicodedata.category(sign) == "So"


def as_utf8(text: str) -> str:
    """The same text, a replacement character for each undecodable byte of a file name: what UTF-8 files can hold."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def hanging(note: str, width: int | None, indent: int = 0) -> str:
    """The note after `indent` spaces, its further lines two columns further in. Words, paths for instance, stay whole.

    width: columns of the terminal; None where it goes to no terminal, and stays one line.
    """
    first = " " * indent
    if width is None or indent + len(note) <= width:
        return first + note
    return textwrap.fill(
        note,
        width,
        initial_indent=first,
        subsequent_indent=f"{first}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def probability_words(probability: float) -> str:
    """Three digits, which never round to certainty: `<0.001`, `0.500`, `>0.999`. probability: in [0, 1]."""
    if probability < 0.0005:
        return "<0.001"
    return ">0.999" if probability >= 0.9995 else f"{probability:.3f}"


def verdict_line(detection: Detection) -> str:
    """The verdict and its probability in words, and whether that probability counts."""
    if detection.verdict is None or detection.probability is None:
        return f"not checked: {detection.error}"
    words = f"probability {probability_words(detection.probability)} of being AI-generated"
    if detection.verdict == "unsure" and any(warning.startswith(_VOID) for warning in detection.warnings):
        return f"unsure, the {words} does not stand"
    return f"{VERDICTS[detection.verdict]}, {words}"


def frames_words(detection: Detection) -> str | None:
    """Which of several pictures in a file was scored; None where there is but one."""
    if detection.frames is None or detection.frames == 1:
        return None
    chosen = _CHOSEN.get(detection.format or "", "first")
    return f"{detection.frames} pictures in the file, only the {chosen} is scored"
