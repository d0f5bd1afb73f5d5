"""`apn scan`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apn.commands import UsageError
from apn.commands.options import BackendOption, BatchSize, CalibrationOption, DeviceOption, Weights

if TYPE_CHECKING:
    from apn.scan.run import Runner, Summary

SOURCE_HELP = (
    "Folders, images, lists of paths (.txt), tables of paths or images (.parquet, .csv), tars (.tar, .tar.gz), "
    "patterns of these; here or at any address that fsspec knows (s3://, gs://, https://)."
)


def scan(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help=SOURCE_HELP)],
    out: Annotated[str, typer.Option(help="Folder of the result, or its address; with Ray, one that every node sees.")],
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|local|ADDRESS", help="Scan on Ray: the running cluster, one started here, or its address."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the scan that --out holds.")] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Draw this many images, and estimate the share of generated ones.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    column: Annotated[
        str | None, typer.Option(help="Column of tables with paths or images; default by its name (docs/scale.md).")
    ] = None,
    sha256: Annotated[bool, typer.Option("--sha256", help="Of each file too.")] = False,
    stability: Annotated[
        bool,
        typer.Option(
            help="As in `apn detect`: `unsure` where re-deliveries disagree. Up to 5x the work; without it, most "
            "photographs that were scaled to half or saved as WebP are called generated."
        ),
    ] = True,
    allow_truncated: Annotated[bool, typer.Option("--allow-truncated", help="Score files that end early.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger images before decoding.")] = 200_000_000,
    max_bytes: Annotated[
        int,
        typer.Option(min=1, help="Refuse larger files in tars, in tables and at addresses, which are held in memory."),
    ] = 128 << 20,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, or actors of Ray; default as many as fit.")
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="Of each worker.")] = 1,
    shard_images: Annotated[int, typer.Option(min=1, help="At most, in one part of the result.")] = 4096,
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
    batch_size: BatchSize = 16,
) -> None:
    """Score any number of images into Parquet files, on this machine or on Ray.

    A scan that was killed goes on with --resume; two at a time on one --out are refused. Exit code 0 once it is
    finished: a broken image is a row.
    """
    from apn.scan.files import Store
    from apn.scan.manifest import Manifest
    from apn.scan.opening import OpenDetector
    from apn.scan.run import scan as run
    from apn.scan.sources import find_sources
    from apn.scan.worker import Reading, WorkerPlan

    if out.startswith("memory:"):
        raise UsageError(
            f"--out {out}: expected a folder or an address that every worker sees, found the memory of one process"
        )
    found = find_sources(sources)
    opening = OpenDetector(
        _location(weights), backend, device, str(calibration.absolute()) if calibration else None, cores
    )
    reading = Reading(stability, allow_truncated, max_pixels, max_bytes, sha256, batch_size, cores)
    plan = WorkerPlan(Store(out), opening, reading)
    manifest = Manifest(
        sources=tuple(source.address for source in found),
        column=column,
        sample=sample,
        seed=seed if sample else 0,
        shard_images=shard_images,
        stability=stability,
        allow_truncated=allow_truncated,
        max_pixels=max_pixels,
        max_bytes=max_bytes,
        sha256=sha256,
        model=opening.describe(),
    )
    try:
        summary = run(found, manifest, plan, _runner(ray, workers, cores, device), resume=resume)
    except KeyboardInterrupt:
        typer.echo(f"apn: stopped; what is done is in {out}: the same command with --resume goes on", err=True)
        sys.exit(130)
    typer.echo(_table(summary, plan.store.location), nl=False)


def _location(weights: str) -> str:
    """A name of shipped weights, or a path that holds wherever the worker is started; as `find_weights` tells them."""
    return str(Path(weights).absolute()) if (Path(weights) / "config.json").is_file() else weights


def _runner(ray: str | None, workers: int | None, cores: int, device: str) -> "Runner":
    """Workers of this machine, or of Ray."""
    from apn.backends import usable_cores
    from apn.scan.local import run_local

    if ray is not None and _has_ray(ray):
        from apn.scan.cluster import Pool, connect, run_on_ray

        connect(ray)
        pool = Pool(workers, cores, gpus=device == "cuda")
        return lambda plan, done: run_on_ray(plan, done, pool)
    processes = workers or (max(1, usable_cores() // cores) if device == "cpu" else 1)
    return lambda plan, done: run_local(plan, done, processes)


def _has_ray(wanted: str) -> bool:
    """Whether Ray is installed. A scan that needs no particular cluster does without."""
    from importlib.util import find_spec

    if find_spec("ray") is not None:
        return True
    if wanted not in ("auto", "local"):
        raise UsageError(f'--ray {wanted} needs Ray: pip install "apn[scan]"')
    typer.echo("apn: Ray is not installed: scanning on processes of this machine", err=True)
    return False


def _table(summary: "Summary", out: str) -> str:
    """The summary, for people."""
    lines = [f"{out}: {summary.images:,} images, {summary.scored:,} scored, {summary.failed:,} failed"]
    lines += [f"  {name:<10} {count:>13,}" for name, count in sorted(summary.verdicts.items())]
    lines += [f"  failed     {count:>13,}  {kind}" for kind, count in summary.errors.items()]
    done, rate = summary.images - summary.resumed, summary.images_per_second
    lines.append(f"{done:,} images in {summary.seconds:.1f} s, {rate:.1f} images/s")
    if summary.resumed:
        lines.append(f"{summary.resumed:,} images were there from an earlier run")
    return "\n".join(lines + _estimate(summary)) + "\n"


def _estimate(summary: "Summary") -> list[str]:
    found = summary.prevalence
    if found is None:
        return []
    lines = [f"a sample of {summary.images:,} of {summary.population:,} images; 95 % intervals:"]
    for name, share in found.called.items():
        lines.append(f"  called {name:<10} {share.share:7.2%}  ({share.low:.2%} to {share.high:.2%})")
    if found.low is not None and found.high is not None:
        lines.append(f"  generated  between {found.low:.2%} and {found.high:.2%}")
    return [*lines, f"  {found.note}"]
