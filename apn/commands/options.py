"""What several commands share: options, as typer annotations, and how they speak: notes and last words."""

import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apn.commands import HELP
from apn.words import hanging, printable

if TYPE_CHECKING:
    from apn.evaluate import Counts

Weights = Annotated[str, typer.Option(help=HELP["weights"])]
BackendOption = Annotated[Literal["auto", "onnx", "torch"], typer.Option(help=HELP["backend"])]
DeviceOption = Annotated[Literal["cpu", "cuda", "mps"], typer.Option(help=HELP["device"])]
CalibrationOption = Annotated[Path | None, typer.Option(help=HELP["calibration"])]

# Of the commands that score labelled data.
DataOption = Annotated[
    list[str],
    typer.Option("--data", help="LAYOUT:ROOT, a folder or a manifest (docs/data.md); repeatable.", show_default=False),
]
SplitOption = Annotated[str, typer.Option("--split", help="Only this split of the data.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Take this many images, drawn at random.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the draw, and of the shortcut probe.")]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Score again what failed in an earlier run.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Crops the network sees at once.")]

FAILURES_SHOWN = 10  # files at the end of a command; the table has all


def say(note: str, indent: int = 0) -> None:
    """A line on stdout, after `indent` spaces; what does not fit a terminal's line hangs under it."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(hanging(note, width, indent))


def end_of_table(out: Path, counts: "Counts") -> None:
    """Says what of a table an earlier run had left and which files failed; exit code 1 where one did."""
    if counts.resumed:
        typer.echo(f"{counts.resumed} of {counts.rows} rows were there from an earlier run")
    if counts.failed:
        from apn.scorewriter import failures

        found = list(islice(failures(out), FAILURES_SHOWN + 1))
        for path, reason in found[:FAILURES_SHOWN]:
            typer.secho(f"apn: {printable(f'{path}: {reason}')}", fg="red", err=True)
        if len(found) > FAILURES_SHOWN:
            typer.secho(f"apn: further ones have an `error` in {out}", fg="red", err=True)
        sys.exit(1)
