"""Options that several commands share, as typer annotations."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from apn.commands import HELP

Weights = Annotated[str, typer.Option(help=HELP["weights"])]
BackendOption = Annotated[Literal["auto", "onnx", "torch"], typer.Option(help=HELP["backend"])]
DeviceOption = Annotated[Literal["cpu", "cuda", "mps"], typer.Option(help=HELP["device"])]
CalibrationOption = Annotated[Path | None, typer.Option(help=HELP["calibration"])]
