"""`apn plot`: figures of a table of embeddings."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from apn.commands import UsageError
from apn.commands.options import FAILURES_SHOWN
from apn.words import printable


def plot(
    table: Annotated[Path, typer.Argument(help="Table of `apn embed`.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures.")],
    method: Annotated[Literal["opentsne", "umap", "pca"], typer.Option(help="How points are laid out.")] = "opentsne",
    colour: Annotated[
        Literal["label", "generator", "scene", "source"], typer.Option(help="What points are coloured by.")
    ] = "label",
    branch: Annotated[
        Literal["mean", "spatial", "frequency"],
        typer.Option(help="Whose embeddings; mean: of both, which for artifacts is what decides."),
    ] = "mean",
    formats: Annotated[
        str, typer.Option("--format", help="Of png and svg (all figures) and html (a map that shows thumbnails).")
    ] = "png,html",
    limit: Annotated[int, typer.Option(min=5, help="Images at most, drawn at random.")] = 5000,
    seed: Annotated[int, typer.Option(help="Of the draw, the layout and the intervals.")] = 0,
) -> None:
    """Draw embeddings: both parts, generators, bands, heat maps, spectra.

    Figures that an earlier `apn plot` left in the folder, and this one does not draw, are removed.
    """
    import numpy as np

    from apn.embeddings import read_embeddings
    from apn.plots.write import Format, write_plots
    from apn.report.folder import PLOTS, leave_only

    wanted, known = {part.strip() for part in formats.split(",")}, {kind.value for kind in Format}
    if not wanted <= known:
        raise UsageError(f"expected --format of {', '.join(sorted(known))}, found {formats!r}")
    embeddings = read_embeddings(table)
    count = len(embeddings.scores.labels)
    if count > limit:
        embeddings = embeddings.take(np.sort(np.random.default_rng(seed).choice(count, limit, replace=False)))

    unread: list[str] = []
    written = write_plots(
        embeddings,
        out,
        method=method,
        colour=colour,
        branch=branch,
        formats={Format(kind) for kind in wanted},
        seed=seed,
        warn=unread.append,
    )
    for text in unread[:FAILURES_SHOWN]:
        typer.secho(f"apn: not in the spectra: {printable(text)}", fg="yellow", err=True)
    if len(unread) > FAILURES_SHOWN:
        typer.secho(f"apn: not in the spectra: {len(unread) - FAILURES_SHOWN} more", fg="yellow", err=True)
    if unread and not any(path.stem == "spectra" for path in written):
        typer.secho("apn: no figure of spectra: no image of the table could be opened", fg="yellow", err=True)
    leave_only(written, out, PLOTS)
    typer.echo(f"{min(count, limit)} of {count} images: {', '.join(map(str, written))}")
