"""`apn calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apn.commands.options import BackendOption, DeviceOption, Weights

if TYPE_CHECKING:
    from apn.detector import Detector


def calibrate(
    scores: Annotated[
        str, typer.Argument(help="A table of `apn score`, CSV or JSONL with `logit` and `label`, or images to score.")
    ],
    out: Annotated[Path, typer.Option(help="Calibration file to write.")] = Path("calibration.json"),
    target_fpr: Annotated[float, typer.Option(help="Largest share of real images called generated.")] = 0.05,
    target_fnr: Annotated[float, typer.Option(help="Largest share of generated images called real.")] = 0.05,
    method: Annotated[
        Literal["temperature", "isotonic"],
        typer.Option(help="How logits become probabilities; isotonic is any rising curve, from a thousand images on."),
    ] = "temperature",
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
) -> None:
    """Fit probabilities and thresholds to your own labelled images.

    Use them with `apn detect --calibration FILE`.
    Images: a folder with real/ and generated/, or a CSV or JSONL manifest with path and label.
    """
    from apn.calibration import fit_calibration, write_calibration
    from apn.scores import labelled_logits

    def open_detector() -> "Detector":
        from apn.detector import load

        return load(weights, backend=backend, device=device)

    logits, labels = labelled_logits(scores, open_detector)
    fitted = fit_calibration(
        logits, labels, method=method, target_fpr=target_fpr, target_fnr=target_fnr, fitted_on=scores
    )
    write_calibration(fitted, out)
    typer.echo(
        f"{out}: generated from {fitted.generated_from:.3f} (at most {target_fpr:.1%} of real images), "
        f"real below {fitted.real_below:.3f} (at most {target_fnr:.1%} of generated ones), ECE {fitted.ece:.3f}, "
        f"from {fitted.real_images} real and {fitted.generated_images} generated images"
    )
