"""`apn purification`: what artifact and irrelevant embeddings know, over training."""

from pathlib import Path
from typing import Annotated

import typer


def purification(
    tables: Annotated[
        list[Path], typer.Argument(help="Tables of `apn embed`, one a checkpoint, in the order of training.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for purification.md and purification.png.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of each interval.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the folds, the fit of CLUB and the intervals.")] = 0,
) -> None:
    """Measure purification: linear probes of both parts, and what they share.

    Whether artifact and irrelevant embeddings tell label, generator and source, and how much information they still
    have in common (CLUB, and nearest neighbours). docs/explanations.md says how to read it.
    """
    from apn.embeddings import read_embeddings
    from apn.plots.purification import purification_figure
    from apn.purification import measure_purity, purity_table, table_names
    from apn.report.canvas import save_figure

    found = [
        measure_purity(name, embeddings, branch=branch, resamples=resamples, seed=seed)
        for name, table in zip(table_names(tables), tables, strict=True)
        for embeddings in [read_embeddings(table)]
        for branch in ("mean", "spatial", "frequency")
    ]
    text = purity_table(found)
    typer.echo(text, nl=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "purification.md").write_text(text, encoding="utf-8")
        deciding = [one for one in found if one.branch == "mean"]
        save_figure(purification_figure(deciding, "Purification, mean of both branches"), out / "purification.png")
        typer.echo(f"\nwritten: {out / 'purification.md'}, {out / 'purification.png'}")
