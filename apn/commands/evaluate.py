"""`apn score` and `apn report`: a table of scores, then metrics of it."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apn.commands import UsageError
from apn.commands.options import (
    BackendOption,
    BatchSize,
    CalibrationOption,
    DeviceOption,
    LimitOption,
    RetryErrors,
    SeedOption,
    SplitOption,
    Weights,
    end_of_table,
)

if TYPE_CHECKING:
    from apn.data.samples import Sample


PROTOCOL_HELP = (
    "native: files as they are. aligned: both classes cut and saved alike. fakes-jpeg: generated ones saved as JPEG. "
    "both: native and aligned. Repeatable."
)


class ProtocolOption(StrEnum):
    """Typer takes a list of an Enum, but not of a Literal."""

    NATIVE = "native"
    ALIGNED = "aligned"
    FAKES_JPEG = "fakes-jpeg"
    BOTH = "both"


def score(
    out: Annotated[Path, typer.Option(help="Table to write, .parquet: a row an image and protocol.")],
    locations: Annotated[list[str] | None, typer.Argument(metavar="[DATA]...", help="The same as --data.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="LAYOUT:ROOT, a folder or a manifest (docs/data.md); repeatable.")
    ] = None,
    protocol: Annotated[list[ProtocolOption] | None, typer.Option(help=PROTOCOL_HELP)] = None,
    codec: Annotated[Literal["jpeg", "webp", "png"], typer.Option(help="Codec of aligned images.")] = "jpeg",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of aligned and fakes-jpeg images.")] = 96,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of aligned images in pixels; default the detector's crop.")
    ] = None,
    split: SplitOption = "",
    generator: Annotated[
        list[str] | None, typer.Option(help="Only these generators and their real images; repeatable.")
    ] = None,
    scene: Annotated[list[str] | None, typer.Option(help="Only these scenes; repeatable.")] = None,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    retry_errors: RetryErrors = False,
    probe: Annotated[bool, typer.Option(help="Measure what file facts alone tell, and store it in the table.")] = True,
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
    batch_size: BatchSize = 16,
) -> None:
    """Score labelled images, for `apn report` and `apn calibrate`.

    A run that was stopped goes on where it was when the same command is given again. Failed files are rows too; exit
    code 1 if any.
    """
    from apn.scorewriter import require_free

    require_free(out)  # before the imports that take seconds
    from apn.detector import load
    from apn.evaluate import refuse_repeats, score_samples, shortcuts_of, show, table_facts
    from apn.protocols import PROTOCOLS, Protocol
    from apn.rows import open_progress

    specs = [*(locations or ()), *(data or ())]
    if not specs:
        raise UsageError("no data: expected --data with LAYOUT:ROOT, a folder or a manifest")
    samples, by_spec = _chosen(specs, split, generator or [], scene or [], limit, seed)
    refuse_repeats(samples)
    detector = load(weights, backend=backend, device=device, calibration=calibration)
    names = {str(name) for name in protocol or [ProtocolOption.NATIVE]}
    names |= {"native", "aligned"} if "both" in names else set()
    protocols = [
        Protocol(name, size=size or detector.crop_size, codec=codec, quality=quality)
        for name in PROTOCOLS
        if name in names
    ]
    shown = [show(one) for one in protocols]
    facts = table_facts(
        detector,
        samples,
        shown,
        data=specs,
        limit=limit,
        seed=seed,
        command="apn " + shlex.join(sys.argv[1:]),
        shortcuts=shortcuts_of(out, by_spec, samples, protocols, seed) if probe else (),
    )
    with open_progress(len(samples) * len(shown)) as advance:
        counts = score_samples(
            detector, samples, shown, out, facts, batch_size=batch_size, retry_errors=retry_errors, advance=advance
        )
    typer.echo(f"{out}: {counts.rows - counts.failed} images scored, {counts.failed} failed")
    end_of_table(out, counts)


def report(
    scores: Annotated[list[Path], typer.Argument(help="Tables of `apn score`, of one or several detectors.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for index.html, figures, and all tables as Markdown, CSV and JSON.")
    ] = None,
    threshold_from: Annotated[
        list[Path] | None,
        typer.Option(help="Validation tables to freeze thresholds on, instead of those of the weights; repeatable."),
    ] = None,
    target_fpr: Annotated[float, typer.Option(help="Share of real images called generated, for --threshold-from.")] = (
        0.05
    ),
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of each interval.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    page: Annotated[bool, typer.Option(help="Write index.html and figures too.")] = True,
    explain: Annotated[
        int,
        typer.Option(min=0, help="Explain so many of each detector's worst false alarms and misses (extra: explain)."),
    ] = 0,
    explain_weights: Annotated[
        list[str] | None,
        typer.Option(help="Checkpoints to explain with, where they are not the shipped ones; repeatable."),
    ] = None,
) -> None:
    """Print metrics of tables of scores, overall and per generator.

    Under each protocol and by generator and scene, with 95 % intervals; with tables of several detectors also tests
    between them.
    """
    from apn.report.build import build_report, validation_threshold
    from apn.report.folder import leave_only
    from apn.report.tables import brief, write_tables
    from apn.scoretable import read_scores

    tables = read_scores(scores)
    thresholds = None
    if threshold_from:
        validation = read_scores(threshold_from)
        thresholds = [validation_threshold(one, validation, target_fpr) for one in tables]
    made = build_report(tables, thresholds=thresholds, resamples=resamples, seed=seed)
    typer.echo(brief(made), nl=False)
    if out is not None:
        written = write_tables(made, out)
        if page:
            from apn.report.page import write_page

            command = "apn " + shlex.join(sys.argv[1:])
            weights = explain_weights or ()
            pages = write_page(made, tables, out, command=command, explained=explain, explain_weights=weights)
            written = pages + written
        leave_only(written, out)
        typer.echo(f"\nwritten: {', '.join(str(path) for path in written if path.parent == out)}")


def _chosen(
    specs: list[str], split: str, generators: list[str], scenes: list[str], limit: int | None, seed: int
) -> "tuple[list[Sample], dict[str, list[Sample]]]":
    """The samples to score, and those of each spec among them."""
    from apn.data.layouts import read_data
    from apn.data.select import draw, select

    read = {spec: read_data(spec) for spec in specs}
    chosen = select([sample for part in read.values() for sample in part], split, generators, scenes)
    samples = draw(chosen, limit, seed)
    kept = set(samples)
    return samples, {spec: [sample for sample in part if sample in kept] for spec, part in read.items()}
