"""Options that several commands share, as typer annotations."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from apn.commands import HELP

Weights = Annotated[str, typer.Option(help=HELP["weights"])]
BackendOption = Annotated[Literal["auto", "onnx", "torch"], typer.Option(help=HELP["backend"])]
DeviceOption = Annotated[Literal["cpu", "cuda", "mps"], typer.Option(help=HELP["device"])]
CalibrationOption = Annotated[Path | None, typer.Option(help=HELP["calibration"])]

# Of the commands that score labelled data.
SplitOption = Annotated[str, typer.Option("--split", help="Only this split of the data.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Take this many images, drawn at random.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the draw, and of the shortcut probe.")]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Score again what failed in an earlier run.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Crops the network sees at once.")]
