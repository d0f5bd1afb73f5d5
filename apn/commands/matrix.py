"""`apn matrix`."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer


class MatrixProtocol(StrEnum):
    """Typer takes a list of an Enum, but not of a Literal."""

    NATIVE = "native"
    ALIGNED = "aligned"
    FAKES_JPEG = "fakes-jpeg"


def matrix(
    train: Annotated[str, typer.Option(help="LAYOUT:ROOT to train on, a part at a time (docs/data.md).")],
    test: Annotated[str, typer.Option(help="LAYOUT:ROOT to test on.")],
    config: Annotated[Path, typer.Option(help="A file of configs/, for every network.")],
    out: Annotated[Path, typer.Option(help="Folder of the matrix: runs, scores, tables, figures.")],
    by: Annotated[Literal["generator", "scene"], typer.Option(help="What a row and a column is.")] = "generator",
    protocol: Annotated[
        list[MatrixProtocol] | None, typer.Option(help="As of `apn score`; repeatable. Default native and aligned.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value of the configuration; repeatable.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of each interval.")] = 1000,
    train_device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to train.")] = "auto",
    device: Annotated[Literal["cpu", "cuda", "mps"], typer.Option(help="Where to score.")] = "cpu",
) -> None:
    """Train on each generator (or scene) in turn and test on all: a table of every pair.

    Ctrl-C stops it; the same command goes on where it was, in the middle of a training or of a table of scores.
    """
    from apn.config import read_config
    from apn.heap import keep_freed_memory
    from apn.matrix import fill, markdown, write_matrices
    from apn.protocols import PROTOCOLS

    keep_freed_memory()
    settings = read_config(config, tuple(overrides or ()))
    wanted = [str(name) for name in protocol or (MatrixProtocol.NATIVE, MatrixProtocol.ALIGNED)]
    try:
        matrices = fill(
            settings,
            train,
            test,
            out,
            by=by,
            protocols=[name for name in PROTOCOLS if name in wanted],
            device=device,
            accelerator=train_device,
            command="apn " + shlex.join(sys.argv[1:]),
            resamples=resamples,
            say=lambda line: typer.echo(line, err=True),
        )
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    written = write_matrices(matrices, settings.name, out)
    typer.echo(markdown(matrices, settings.name))
    typer.echo(f"written: {', '.join(map(str, written))}", err=True)
