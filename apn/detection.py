"""What a detector says of one image: the row of `apn detect`, of the server and of a scan.

Everything here is plain data (standard library only), so that a result can be made, stored and read without numpy.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["generated", "real", "unsure"]


@dataclass(frozen=True, slots=True)
class Tile:
    """The score of one native-resolution crop of `size` x `size` pixels whose upper left corner is (left, top)."""

    left: int
    top: int
    size: int
    probability: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """The score of the image after it was delivered once more: saved, resized or shifted (`name` says how).

    probability, logit: as in `Detection`. verdict: that of this score alone.
    """

    name: str
    probability: float
    logit: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Detection:
    """One image, one row. A failed image has `error` in plain words and None for verdict, probability and logit.

    probability: calibrated probability of being AI-generated, in [0, 1].
    logit:       generated logit minus real logit, averaged over the tiles, before calibration.
    width, height: pixels, after EXIF orientation. frames: frames or pages in the file (only the first is scored).
    stability:   the re-deliveries tried; empty where the check was off.
    metadata:    provenance found in the file, for a reader to weigh; it never changes verdict or probability.
    """

    path: str
    verdict: Verdict | None = None
    probability: float | None = None
    logit: float | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    frames: int | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    stability: tuple[Delivery, ...] = ()
    tiles: tuple[Tile, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same fields as plain dicts, lists, numbers and strings, ready for `json.dumps`."""
        return asdict(self)
