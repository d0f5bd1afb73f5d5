"""`apn explain`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from apn.commands import UsageError
from apn.commands.options import BackendOption, CalibrationOption, DeviceOption, Weights


def explain(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Images, and folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the files of each image.")],
    formats: Annotated[
        str,
        typer.Option("--format", help="Of png (figure and its parts), svg (figure) and json (bands); comma between."),
    ] = "png",
    target: Annotated[
        Literal["generated", "real"], typer.Option(help="Which verdict the heat maps show evidence for.")
    ] = "generated",
    stability: Annotated[bool, typer.Option(help="As in `apn detect`: `unsure` where re-deliveries disagree.")] = True,
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
) -> None:
    """Draw why the detector said what it said of each image.

    A heat map shows where the evidence lies, not that it is true: docs/explanations.md. Exit code 1 if an image could
    not be read; the others are still explained.
    """
    from apn.checkpoint import load_model
    from apn.detector import load
    from apn.explain_files import FileNames, Format, write_explanation
    from apn.explanations import explain as run
    from apn.image import ImageError, find_images
    from apn.words import frames_words, printable, verdict_line

    wanted, known = {part.strip() for part in formats.split(",")}, {kind.value for kind in Format}
    if not wanted <= known:
        raise UsageError(f"expected --format of {', '.join(sorted(known))}, found {formats!r}")
    detector = load(weights, backend=backend, device=device, calibration=calibration)
    model = load_model(weights, device=device)
    names, failed = FileNames(), 0
    for image in find_images(images):
        try:
            explanation = run(model, image, detector=detector, target=target, stability=stability)
        except ImageError as error:
            failed += 1
            typer.secho(f"apn: {printable(str(image))}: {error}", fg="red", err=True)
            continue
        kinds, name = {Format(kind) for kind in wanted}, names.name(str(image))
        files = write_explanation(explanation, out, name, kinds, detector, stability=stability)
        typer.echo(f"{printable(str(image))}: {verdict_line(explanation.detection)} -> {files[0]}")
        for note in filter(None, (frames_words(explanation.detection), *explanation.detection.warnings)):
            typer.echo(f"    {note}")
    sys.exit(failed > 0)
