"""Tables in Markdown, in which what comes from outside stays text: names of generators, files and detectors.

As GitHub and CommonMark read it; letters and digits, and underscores between them, stay as they are.
"""

import re
from collections.abc import Iterable

from apn.words import printable

# Signs that would begin markup, end a cell or name a character; a backslash before one that it would change.
_SPECIAL = re.compile(r"[`*<|\[\]~]|(?<![^\W_])_|_(?![^\W_])|&(?=[#\w])|\\(?=[!-/:-@\[-`{-~])")


class Marked(str):
    """Markdown already, made by us."""

    __slots__ = ()


def as_text(words: str) -> str:
    """One line that reads as these words do, what is hidden in them spelt out; what is `Marked` stays."""
    return words if isinstance(words, Marked) else _SPECIAL.sub(r"\\\g<0>", printable(words))


def table_row(cells: Iterable[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(map(as_text, cells))} |"
