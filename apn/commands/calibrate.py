"""`apn calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apn.commands import UsageError
from apn.commands.options import BackendOption, DeviceOption, Weights, say

if TYPE_CHECKING:
    from apn.calibration import Thresholds
    from apn.detector import Detector
    from apn.scores import Labelled


def calibrate(
    scores: Annotated[
        str,
        typer.Argument(
            help="A table of `apn score`, CSV or JSONL with `logit` and `label` (and perhaps `lowest` and `highest` of "
            "the re-deliveries), or images to score."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Calibration file to write.")] = Path("calibration.json"),
    target_fpr: Annotated[float, typer.Option(help="Largest share of real images called generated.")] = 0.05,
    target_fnr: Annotated[float, typer.Option(help="Largest share of generated images called real.")] = 0.05,
    checked_fpr: Annotated[
        float | None, typer.Option(help="--target-fpr of verdicts with the stability check; default: the same.")
    ] = None,
    checked_fnr: Annotated[
        float | None, typer.Option(help="--target-fnr of verdicts with the stability check; default: the same.")
    ] = None,
    stability: Annotated[
        bool,
        typer.Option(help="Score re-deliveries of images too, for thresholds of the stability check; 5x the work."),
    ] = True,
    method: Annotated[
        Literal["temperature", "isotonic"],
        typer.Option(help="How logits become probabilities; isotonic is any rising curve, from a thousand images on."),
    ] = "temperature",
    least_colour: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=255,
            help="Pictures with less colour (mean of the strongest less the weakest of RGB, 0 to 255) are unsure; "
            "default: as in the calibration of --weights.",
        ),
    ] = None,
    most_flat: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Pictures of which a larger share is of one colour with what is beside it, such as screenshots, are "
            "unsure; default: as in the calibration of --weights.",
        ),
    ] = None,
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
) -> None:
    """Fit probabilities and thresholds to your own labelled images.

    Use them with `apn detect --calibration FILE`.
    Images: a folder with real/ and generated/, or a CSV or JSONL manifest with path and label.
    """
    from apn.backends import find_weights, weights_sha256
    from apn.calibration import fit_calibration, read_calibration, require_fitting, write_calibration
    from apn.scores import labelled_logits

    # What is wrong whatever the scores are is told before they are made, which may take hours.
    if not stability and (checked_fpr, checked_fnr) != (None, None):
        raise UsageError("--no-stability: expected no --checked-fpr or --checked-fnr, which are of the stability check")
    require_fitting(target_fpr=target_fpr, target_fnr=target_fnr, checked_fpr=checked_fpr, checked_fnr=checked_fnr)
    if out.is_dir():
        raise UsageError(f"--out {out}: expected a file to write, found a folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = find_weights(weights)
    own = read_calibration(folder)
    least_colour = own.least_colour if least_colour is None else least_colour
    most_flat = own.most_flat if most_flat is None else most_flat
    if out.exists() and Path(scores).exists() and out.samefile(scores):
        raise UsageError(f"--out {out}: expected another file than the scores, which it would replace")

    def open_detector() -> "Detector":
        from apn.detector import load

        return load(weights, backend=backend, device=device)

    found = labelled_logits(scores, open_detector, stability=stability)
    if found.sha256 not in (None, its := weights_sha256(folder)):  # whose look at colour and flatness is taken over
        raise UsageError(
            f"{scores}: expected scores of --weights {weights} (sha256 {its}), found those of others ({found.sha256}): "
            "name these with --weights"
        )
    fitted = fit_calibration(
        found.logits,
        found.labels,
        method=method,
        target_fpr=target_fpr,
        target_fnr=target_fnr,
        extremes=found.extremes,
        checked_fpr=checked_fpr,
        checked_fnr=checked_fnr,
        least_colour=least_colour,
        most_flat=most_flat,
        fitted_on=scores,
        weights_sha256=found.sha256,
    )
    write_calibration(fitted, out)
    say(f"{out}: ECE {fitted.ece:.3f}, from {fitted.real_images} real and {fitted.generated_images} generated images")
    if fitted.least_colour:
        say(f"pictures with less colour than {fitted.least_colour:g} are unsure (--least-colour)", indent=2)
    if fitted.most_flat < 1:
        say(f"pictures of which more than {fitted.most_flat:.0%} is flat are unsure (--most-flat)", indent=2)
    for name, checked in {"without the stability check": False, "with it": True}.items():
        one = fitted.thresholds(checked=checked)
        chosen = not checked or fitted.checked is not None
        note = "" if chosen else "; not chosen for it: no scores of re-deliveries"
        say(
            f"{name}: generated from {one.generated_from:.3f} (at most {one.target_fpr:.1%} of real images), "
            f"real below {one.real_below:.3f} (at most {one.target_fnr:.1%} of generated ones){note}",
            indent=2,
        )
        if chosen:
            _warn_of_few(name, one, *_images(found, checked=checked))


def _images(found: "Labelled", *, checked: bool) -> tuple[int, int]:
    """Real and generated images that thresholds were chosen on: of the stability check, those with re-deliveries."""
    import numpy as np

    judged = np.isfinite(found.extremes).all(axis=1) if checked and found.extremes is not None else found.labels >= 0
    return int((judged & (found.labels == 0)).sum()), int((judged & (found.labels == 1)).sum())


def _warn_of_few(thresholds: str, one: "Thresholds", real: int, generated: int) -> None:
    """A line for each rate that so few images cannot promise: its threshold is 1 or 0, which no image reaches."""
    from apn.calibration import images_needed

    sides = (("real", real, one.target_fpr, "generated"), ("generated", generated, one.target_fnr, "real"))
    for label, images, rate, verdict in sides:
        if rate is not None and images < (needed := images_needed(rate)):
            typer.echo(
                f"apn: warning: {thresholds}: expected at least {needed} {label} images for a rate of {rate:g}, "
                f"found {images}: practically nothing will be called {verdict}",
                err=True,
            )
