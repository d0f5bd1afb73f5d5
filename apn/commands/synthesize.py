"""`apn synthesize`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def synthesize(
    data: Annotated[str, typer.Argument(help="Photographs: labelled data as for `apn train`; its real images count.")],
    autoencoder: Annotated[
        str,
        typer.Option(
            help="taef2:FOLDER, own:UPSAMPLING (nearest, bilinear, transposed, pixel-shuffle), realesrgan:NETWORK, "
            "or diffusers:MODEL."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to; its manifest.jsonl lists the fakes.")],
    fit_data: Annotated[
        str | None, typer.Option(help="Photographs an `own` autoencoder is trained on; default: DATA.")
    ] = None,
    fit_steps: Annotated[int, typer.Option(min=1, help="Steps an `own` autoencoder is trained for.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the training of an `own` autoencoder.")] = 0,
) -> None:
    """Make aligned fakes: photographs through an autoencoder, saved as the photograph was.

    Train on them with `data.aligned = "OUT"`. An interrupted run goes on where it stopped.
    """
    from rich.progress import track

    from apn.data.layouts import read_data
    from apn.lock import alone
    from apn.synthesize import photographs, prepare, require_fitting, write_fakes
    from apn.synthesize import synthesize as run

    own = autoencoder.startswith("own:")
    made_by = {"fit_data": fit_data or data, "fit_steps": fit_steps, "seed": seed} if own else {}
    photos = photographs(read_data(data))
    with alone(out / ".lock", out):
        require_fitting(autoencoder, photos, out, made_by)  # before an autoencoder is trained, which takes minutes
        fit_photos = photographs(read_data(fit_data)) if fit_data else photos
        network, description = prepare(autoencoder, fit_photos, steps=fit_steps, seed=seed)
        typer.echo(description, err=True)
        results = list(track(run(autoencoder, network, photos, out, made_by), "reconstructing", total=len(photos)))
        manifest = write_fakes([result for result in results if not isinstance(result, str)], out)
    failed = [result for result in results if isinstance(result, str)]
    for reason in failed:
        typer.secho(f"apn: {reason}", fg="red", err=True)
    typer.echo(f"{manifest}: {len(photos) - len(failed)} fakes, {len(failed)} photographs could not be read")
    sys.exit(bool(failed))
