"""How many of the images are generated, estimated from a simple random sample of them.

What is counted is what the detector says. The share *called* generated is not the share that is: of photographs some
are called so too (the false alarms that the thresholds were calibrated for), and of generated images only some.
Rogan & Gladen (Am. J. Epidemiol. 1978) correct for both where both rates are known. A calibration promises an upper
limit of two rates and not the rates themselves, so here the correction gives limits: with p generated,

    called generated <= p + (1 - p) fpr     so   p >= (called generated - fpr) / (1 - fpr)
    called real      <= (1 - p) + p fnr     so   p <= (1 - called real) / (1 - fnr)

Both hold for images like those that the thresholds were fitted on, and for no others.
Intervals of shares: Clopper & Pearson (Biometrika 1934), exact, at least 95 % whatever the share.
"""

from pydantic import BaseModel
from scipy.stats import binomtest

from apn.scan.tally import Tally

CONFIDENCE = 0.95


class Share(BaseModel):
    """A share of the scored images of a sample, with its interval."""

    images: int
    share: float
    low: float
    high: float


class Prevalence(BaseModel):
    """Of the images that could be scored. called: shares by verdict.

    low, high: limits of the share that is generated; None where nothing is promised.
    """

    scored: int
    failed: int
    called: dict[str, Share]
    low: float | None
    high: float | None
    note: str


def estimate(tally: Tally, target_fpr: float | None, target_fnr: float | None) -> Prevalence:
    """From the counts of a sample. target_fpr, target_fnr: what the calibration promises, None where it does not.

    Raises ValueError where no image of the sample was scored.
    """
    if not tally.scored:
        raise ValueError(f"expected scored images to estimate a share from, found {tally.images}, of which none is")
    called = {name: share(tally.verdicts.get(name, 0), tally.scored) for name in ("generated", "real", "unsure")}
    low = None if target_fpr is None else max(0.0, (called["generated"].low - target_fpr) / (1 - target_fpr))
    high = None if target_fnr is None else min(1.0, (1 - called["real"].low) / (1 - target_fnr))
    return Prevalence(
        scored=tally.scored,
        failed=tally.failed,
        called=called,
        low=low,
        high=high,
        note=_note(target_fpr, target_fnr),
    )


def share(images: int, scored: int) -> Share:
    """`images` of `scored`, with a Clopper-Pearson interval."""
    interval = binomtest(images, scored).proportion_ci(CONFIDENCE, method="exact")
    return Share(images=images, share=images / scored, low=float(interval.low), high=float(interval.high))


def _note(target_fpr: float | None, target_fnr: float | None) -> str:
    if target_fpr is None or target_fnr is None:
        return (
            "the shares are of images called so; the weights' calibration promises no error rates, so nothing follows "
            "for the share that is generated"
        )
    return (
        f"the shares are of images called so; the limits allow for up to {target_fpr:.1%} of photographs called "
        f"generated and up to {target_fnr:.1%} of generated images called real, which the calibration promises for "
        "images like those it was fitted on, and for no others"
    )
