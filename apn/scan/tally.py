"""Counts of a scan's rows: of a part (in its footer), of the whole (in summary.json)."""

import re
from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, Field

KINDS = 50  # of errors that are counted apart; a billion files can fail in a million ways
LONGEST = 240  # characters of a kind
OTHERS = "other errors"


class Tally(BaseModel):
    """How many rows there are, with which verdict, and how many failed for what reason (numbers in it left out)."""

    images: int = 0
    verdicts: dict[str, int] = Field(default_factory=dict)
    errors: dict[str, int] = Field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def scored(self) -> int:
        return self.images - self.failed


def kind_of(error: str) -> str:
    """What errors that differ only in a number, an address, a path or the first bytes of a file have in common."""
    without = re.sub(r": (the file starts with b['\"]|it leads to ).*", "", error, flags=re.DOTALL)
    without = re.sub(r"\S*(/|://)\S+", "FILE", without)
    return re.sub(r"(?<![A-Za-z\d])\d+([.,]\d+)*", "N", without)[:LONGEST]  # JPEG2000 is a name


def add(tallies: Iterable[Tally]) -> Tally:
    """The sum; of the kinds of errors the KINDS most frequent are kept apart."""
    images, verdicts, errors = 0, Counter[str](), Counter[str]()
    for one in tallies:
        images += one.images
        verdicts.update(one.verdicts)
        errors.update(one.errors)
        errors = shortened(errors)
    return Tally(images=images, verdicts=dict(verdicts), errors=dict(errors))


def shortened(errors: Counter[str]) -> Counter[str]:
    """The KINDS most frequent errors, and how many others there were."""
    if len(errors) <= KINDS + 1:
        return errors
    others = errors.pop(OTHERS, 0)
    kept = Counter(dict(errors.most_common(KINDS)))
    kept[OTHERS] = others + errors.total() - kept.total()
    return kept
