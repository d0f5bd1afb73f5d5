"""`apn import-official`."""

from pathlib import Path
from typing import Annotated

import typer


def import_official(
    file: Annotated[Path, typer.Argument(help="An official checkpoint, .pth.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
) -> None:
    """Turn a checkpoint of the official code into one of ours.

    Nothing is written unless every key fits.
    """
    from apn.official import import_checkpoint

    settings = import_checkpoint(file, out)
    typer.echo(f"{out}: {settings.spatial_backbone}, K = {settings.band_count}, {settings.image_size} px, BGR inside")
