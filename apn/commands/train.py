"""`apn train`."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A file of configs/, TOML.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default that of --resume, or runs/<name of the configuration>.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, in TOML notation; repeatable.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Run or checkpoint folder to go on from.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to train.")] = "auto",
) -> None:
    """Train APN (its network and CLUB in turns) or a baseline.

    Ctrl-C saves and stops; --resume goes on as if it had never stopped. On several GPUs:
    torchrun --nproc-per-node N -m apn train ...
    """
    from apn.config import read_config
    from apn.distributed import launched_rank, launched_with
    from apn.heap import keep_freed_memory
    from apn.resume import run_folder
    from apn.train import train as run

    keep_freed_memory()
    settings = read_config(config, tuple(overrides or ()))
    folder = out or run_folder(resume, settings.name)
    command = "apn " + shlex.join(sys.argv[1:])
    result = run(settings, folder, resume=resume, accelerator=device, command=command)
    first = launched_rank() == 0  # of several processes one speaks
    if result.interrupted:
        if first:
            options = [*_set_options(overrides), *(["--device", device] if device != "auto" else [])]
            again = shlex.join([*launched_with(), "train", str(config), *options, "--resume", str(folder)])
            typer.echo(f"stopped after step {result.step}; go on with: {again}", err=True)
        sys.exit(130)
    if first:
        typer.echo(f"trained {result.step} steps: {folder / 'last'}  {json.dumps(result.metrics)}")


def _set_options(overrides: list[str] | None) -> list[str]:
    return [word for override in overrides or [] for word in ("--set", override)]
