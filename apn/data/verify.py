"""Does every file decode? For `apn data verify` and before a training run; no torch here."""

from collections.abc import Callable, Sequence

from apn.data.samples import Sample
from apn.image import ImageError, load_image
from apn.threads import ahead


def quarantine(
    samples: Sequence[Sample], workers: int = 4, advance: Callable[[], None] = lambda: None
) -> tuple[list[Sample], list[tuple[Sample, str]]]:
    """Decode every file once, `workers` at a time: (readable samples, the others with the reason), each in order.

    For the caller to report; evaluation never drops an image. `advance` is called after each file.
    A file that ends early counts as unreadable: what fills its missing part would be learnt as a mark of its class.
    """
    good: list[Sample] = []
    bad: list[tuple[Sample, str]] = []
    for sample, reason in zip(samples, ahead(_fault, samples, workers), strict=True):
        if reason is None:
            good.append(sample)
        else:
            bad.append((sample, reason))
        advance()
    return good, bad


def _fault(sample: Sample) -> str | None:
    try:
        load_image(sample.path)
    except ImageError as error:
        return str(error)
    return None
