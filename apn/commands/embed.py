"""`apn embed`: a table of embeddings, for `apn plot` and `apn purification`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from apn.commands.options import (
    BatchSize,
    CalibrationOption,
    DataOption,
    DeviceOption,
    LimitOption,
    RetryErrors,
    SplitOption,
    Weights,
    end_of_table,
)


def embed(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Table to write, .parquet: a row an image.")],
    protocol: Annotated[
        Literal["native", "aligned", "fakes-jpeg"],
        typer.Option(help="What is done to images before; aligned, so that files do not tell the label."),
    ] = "aligned",
    heat_maps: Annotated[bool, typer.Option(help="LayerCAM of each image too; about as long again.")] = True,
    split: SplitOption = "",
    limit: LimitOption = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    retry_errors: RetryErrors = False,
    weights: Weights = "apn-mini",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
    batch_size: BatchSize = 16,
) -> None:
    """Write what the network makes of labelled images: embeddings, bands, heat maps.

    The table is also one of scores, for `apn report`. A run that was stopped goes on where it was when the same command
    is given again. Failed files are rows too; exit code 1 if any.
    """
    from apn.scorewriter import require_free

    require_free(out)  # before the imports that take seconds
    from apn.data.layouts import read_data
    from apn.data.select import draw, select
    from apn.embed import embed_samples, open_embedder
    from apn.evaluate import refuse_repeats, show, table_facts
    from apn.protocols import Protocol
    from apn.rows import open_progress

    samples = draw([sample for spec in data for sample in select(read_data(spec), split)], limit, seed)
    refuse_repeats(samples)
    model, detector = open_embedder(weights, device, calibration)
    applied = Protocol(protocol, size=detector.crop_size)
    command = "apn " + shlex.join(sys.argv[1:])
    facts = table_facts(detector, samples, [show(applied)], data=data, limit=limit, seed=seed, command=command)
    with open_progress(len(samples)) as advance:
        counts = embed_samples(
            model,
            detector.calibration,
            samples,
            applied,
            out,
            facts,
            heat_maps=heat_maps,
            batch_size=batch_size,
            retry_errors=retry_errors,
            advance=advance,
        )
    typer.echo(f"{out}: {counts.rows - counts.failed} images embedded, {counts.failed} failed")
    end_of_table(out, counts)
