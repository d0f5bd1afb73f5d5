"""`apn explain`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures, one an image.")],
    file_format: Annotated[Literal["png", "svg"], typer.Option("--format")] = "png",
    weights: Annotated[
        str, typer.Option(help="Shipped weights by name, or a checkpoint folder of an APN.")
    ] = "apn-mini",
) -> None:
    """Draw why the detector said what it said of each image.

    A heat map shows where the evidence lies, not that it is true. Exit code 1 if an image could not be read.
    """
    from apn.backends import find_weights
    from apn.checkpoint import load_model
    from apn.detector import load
    from apn.explain_figures import explanation_figure, save_figure
    from apn.explanations import explain as run
    from apn.image import ImageError

    detector, model = load(weights), load_model(find_weights(weights))
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for number, image in enumerate(images, start=1):
        path = out / f"{number:03}-{image.stem[:100]}.{file_format}"  # numbered: two images may have one name
        try:
            explanation = run(model, image, detector=detector)
        except ImageError as error:
            failed += 1
            typer.secho(f"apn: {image}: {error}", fg="red", err=True)
            continue
        save_figure(explanation_figure(explanation, image.name, detector.name), path)
        typer.echo(f"{path}: {explanation.detection.verdict}, probability {explanation.detection.probability:.3f}")
    sys.exit(failed > 0)
