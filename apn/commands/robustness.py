"""`apn robustness`: the grid of degradations as a table of scores."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from apn.commands.options import (
    BackendOption,
    BatchSize,
    CalibrationOption,
    DataOption,
    DeviceOption,
    LimitOption,
    RetryErrors,
    SeedOption,
    SplitOption,
    Weights,
    end_of_table,
)


def robustness(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Table to write, .parquet: a row an image, degradation and level.")],
    only: Annotated[
        str, typer.Option(help="These degradations alone, such as jpeg,blur; docs/robustness.md lists all.")
    ] = "",
    protocol: Annotated[
        Literal["native", "aligned", "fakes-jpeg"],
        typer.Option(help="What is done to images before they are degraded."),
    ] = "aligned",
    split: SplitOption = "",
    limit: LimitOption = None,
    seed: SeedOption = 0,
    retry_errors: RetryErrors = False,
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
    batch_size: BatchSize = 16,
) -> None:
    """Score labelled images after JPEG, blur, resizing and more, level by level.

    For `apn report`, which draws the curves. A run that was stopped goes on where it was when the same command is given
    again. Failed files are rows too; exit code 1 if any.
    """
    from apn.scorewriter import require_free

    require_free(out)  # before the imports that take seconds
    from apn.data.layouts import read_data
    from apn.data.select import draw, select
    from apn.detector import load
    from apn.evaluate import refuse_repeats, score_samples, shortcuts_of, table_facts
    from apn.protocols import Protocol
    from apn.robustness import show_degraded
    from apn.rows import open_progress

    by_spec = {spec: select(read_data(spec), split) for spec in data}
    samples = draw([sample for part in by_spec.values() for sample in part], limit, seed)
    refuse_repeats(samples)
    names = [name.strip() for name in only.split(",") if name.strip()]
    detector = load(weights, backend=backend, device=device, calibration=calibration)
    applied = Protocol(protocol, size=detector.crop_size)
    shown = show_degraded(applied, names)
    drawn = set(samples)
    by_spec = {spec: [sample for sample in part if sample in drawn] for spec, part in by_spec.items()}
    facts = table_facts(
        detector,
        samples,
        shown,
        data=data,
        limit=limit,
        seed=seed,
        command="apn " + shlex.join(sys.argv[1:]),
        shortcuts=shortcuts_of(out, by_spec, samples, [applied], seed),
    )
    with open_progress(len(samples) * len(shown)) as advance:
        counts = score_samples(
            detector, samples, shown, out, facts, batch_size=batch_size, retry_errors=retry_errors, advance=advance
        )
    typer.echo(
        f"{out}: {len(samples)} images under {len(shown)} conditions, {counts.rows - counts.failed} scored, "
        f"{counts.failed} failed; curves: apn report {out} --out DIR"
    )
    end_of_table(out, counts)
