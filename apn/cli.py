"""The commands: parse, call one library function, print. Heavy imports stay inside the command that needs them.

Exit codes: 0 all went well, 1 something failed (for `detect`: some images could not be scored), 2 usage error.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TextIO

import typer

if TYPE_CHECKING:
    from apn.detector import Detector

# The extra that brings a package; the rest of what a command can miss is in `torch`.
EXTRAS = {"sklearn": "evaluate", "fastapi": "server", "uvicorn": "server", "prometheus_client": "server"}

app = typer.Typer(
    help="Tell AI-generated images from photographs with the Artifact Purification Network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Weights = Annotated[str, typer.Option(help="Shipped weights by name, or a checkpoint folder.")]
BackendOption = Annotated[
    Literal["auto", "onnx", "torch"], typer.Option(help="auto: ONNX Runtime where the weights have a graph.")
]
DeviceOption = Annotated[Literal["cpu", "cuda", "mps"], typer.Option(help="Where the network runs.")]
CalibrationOption = Annotated[Path | None, typer.Option(help="A file of `apn calibrate` instead of the weights' own.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Tiles the network sees at once; does not change a score.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, in TOML notation; repeatable.")]


def main() -> None:
    """The `apn` command: user errors become one line on stderr and exit code 1 (or 2 for wrong usage)."""
    try:
        app()
    except ModuleNotFoundError as error:  # the base install is for detection; the rest comes with extras
        extra = EXTRAS.get((error.name or "").split(".")[0], "torch")
        _fail(f"this command needs {error.name}: pip install 'apn[{extra}]'", code=1)
    except ValueError as error:
        _fail(str(error), code=1)
    except BrokenPipeError:  # `apn detect ... | head`: the reader has left, and Python must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str, code: int) -> NoReturn:
    typer.secho(f"apn: {message}", fg="red", err=True)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        from apn.version import __version__

        typer.echo(f"apn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def detect(
    paths: Annotated[list[Path], typer.Argument(help="Images and folders (searched recursively).")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, in order.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to a CSV file too.")] = None,
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
    batch_size: BatchSize = 16,
    stability: Annotated[
        bool,
        typer.Option(help="Deliver each image a few more ways; `unsure` where the verdicts disagree. 5x the work."),
    ] = True,
    allow_truncated: Annotated[bool, typer.Option(help="Score files that end early, with a warning.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger images before decoding.")] = 200_000_000,
) -> None:
    """Say of each image whether it is AI-generated.

    Exit code 0 if every image was scored, 1 if some failed (the others are still scored), 2 for a usage error.
    """
    from apn.detector import load
    from apn.image import find_images
    from apn.rows import CsvRows, JsonRows, RowWriter, TableRows, open_progress

    files = list(find_images(paths))
    if not files:
        _fail(f"no images in {', '.join(map(str, paths))}: expected image files or folders that hold some", code=2)
    detector = load(weights, backend=backend, device=device, calibration=calibration)
    failed = 0
    with _output(csv) as csv_file, open_progress(len(files)) as advance:
        writers: list[RowWriter] = [JsonRows(sys.stdout) if as_json else TableRows(sys.stdout)]
        if csv_file is not None:
            writers.append(CsvRows(csv_file))
        rows = detector.detect_many(
            files,
            names=map(str, files),
            stability=stability,
            allow_truncated=allow_truncated,
            max_pixels=max_pixels,
            batch_size=batch_size,
        )
        for row in rows:
            failed += row.error is not None
            for writer in writers:
                writer.write(row)
            advance()
    if failed:
        typer.secho(f"apn: {failed} of {len(files)} images could not be scored", fg="red", err=True)
        sys.exit(1)


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        _fail(f"cannot write {path}: {error.strerror}", code=2)
    with file:
        yield file


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A file of configs/, TOML.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<name of the configuration>.")] = None,
    overrides: Overrides = None,
    resume: Annotated[Path | None, typer.Option(help="Run or checkpoint folder to go on from.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to train.")] = "auto",
) -> None:
    """Train a network: APN and CLUB in turns. Ctrl-C saves and stops; --resume goes on as if it had never stopped."""
    from apn.config import read_config
    from apn.train import train as run

    settings = read_config(config, tuple(overrides or ()))
    folder = out or (resume if resume is not None and (resume / "last").is_dir() else Path("runs") / settings.name)
    command = "apn " + " ".join(sys.argv[1:])
    result = run(settings, folder, resume=resume, accelerator=device, command=command)
    if result.interrupted:
        typer.echo(f"stopped after step {result.step}; go on with: apn train {config} --resume {folder}", err=True)
        sys.exit(130)
    typer.echo(f"trained {result.step} steps: {folder / 'last'}  {json.dumps(result.metrics)}")


@app.command("import-official")
def import_official(
    file: Annotated[Path, typer.Argument(help="An official checkpoint, .pth.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
) -> None:
    """Turn a checkpoint of the official code into one of ours; nothing is written unless every key fits."""
    from apn.official import import_checkpoint

    settings = import_checkpoint(file, out)
    typer.echo(f"{out}: {settings.spatial_backbone}, K = {settings.band_count}, {settings.image_size} px, BGR inside")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .xml for OpenVINO.")],
    file_format: Annotated[Literal["onnx", "openvino"], typer.Option("--format")] = "onnx",
    images: Annotated[list[Path] | None, typer.Option(help="Images to compare numbers on; repeatable.")] = None,
    int8: Annotated[
        str | None, typer.Option(help="Labelled data (as for `data.train`): quantise to int8 and measure the loss.")
    ] = None,
) -> None:
    """Export for another runtime; fails unless its probabilities equal PyTorch's within 1e-4 on real images."""
    from apn.export import comparison_crops, export_graph

    if int8 is not None:
        if file_format != "onnx":
            raise ValueError("--int8 makes an ONNX graph: leave out --format openvino")
        from apn.quantize import quantize

        typer.echo(quantize(checkpoint, out, int8).summary())
        return
    comparison = export_graph(checkpoint, out, comparison_crops(checkpoint, images), file_format=file_format)
    typer.echo(
        f"{out}: largest difference from PyTorch on {comparison.images} crops, one by one and together: "
        f"probability {comparison.probability:.1e}, logit {comparison.logit:.1e}"
    )


@app.command()
def score(
    data: Annotated[str, typer.Argument(help="Folder with real/ and generated/, or a manifest.")],
    out: Annotated[Path, typer.Option(help="CSV to write: a row an image.")],
    protocol: Annotated[
        Literal["native", "aligned"], typer.Option(help="aligned: both classes cut and saved alike (JPEG q96).")
    ] = "native",
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
) -> None:
    """Score labelled images, for `apn report` and `apn calibrate`. Failed files are rows too; exit code 1 if any."""
    from apn.data.samples import read_samples
    from apn.detector import load
    from apn.evaluate import score_samples

    samples = read_samples(data)
    detector = load(weights, backend=backend, device=device, calibration=calibration)
    failed = score_samples(detector, samples, protocol, out)
    typer.echo(f"{out}: {len(samples) - failed} images scored, {failed} failed")
    if failed:
        sys.exit(1)


@app.command()
def report(
    scores: Annotated[Path, typer.Argument(help="A table of `apn score`.")],
    threshold: Annotated[float, typer.Option(help="Probability from which an image counts as generated.")] = 0.5,
) -> None:
    """Print AUC (95 % interval) and balanced accuracy from a table of scores, overall and per generator."""
    from apn.evaluate import markdown, read_scores
    from apn.evaluate import report as tabulate

    table = read_scores(scores)
    typer.echo(markdown(tabulate(table, threshold)))
    if table.failed:
        typer.echo(f"\n{table.failed} images have no score and are left out.")


@app.command()
def calibrate(
    scores: Annotated[str, typer.Argument(help="CSV or JSONL with `logit` and `label`, or labelled images to score.")],
    out: Annotated[Path, typer.Option(help="Calibration file to write.")] = Path("calibration.json"),
    target_fpr: Annotated[float, typer.Option(help="Largest share of real images called generated.")] = 0.05,
    target_fnr: Annotated[float, typer.Option(help="Largest share of generated images called real.")] = 0.05,
    method: Annotated[Literal["temperature", "isotonic"], typer.Option(help="How logits become probabilities.")] = (
        "temperature"
    ),
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
) -> None:
    """Fit probabilities and thresholds to your own labelled images; use them with `apn detect --calibration FILE`.

    Images: a folder with real/ and generated/, or a CSV or JSONL manifest with path and label.
    """
    from apn.calibration import fit_calibration, write_calibration
    from apn.scores import labelled_logits

    def open_detector() -> "Detector":
        from apn.detector import load

        return load(weights, backend=backend, device=device)

    logits, labels = labelled_logits(scores, open_detector)
    fitted = fit_calibration(
        logits, labels, method=method, target_fpr=target_fpr, target_fnr=target_fnr, fitted_on=scores
    )
    write_calibration(fitted, out)
    typer.echo(
        f"{out}: generated from {fitted.generated_from:.3f} (at most {target_fpr:.1%} of real images), "
        f"real below {fitted.real_below:.3f} (at most {target_fnr:.1%} of generated ones), ECE {fitted.ece:.3f}, "
        f"from {fitted.real_images} real and {fitted.generated_images} generated images"
    )


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="APN_TOKEN", help="Bearer token that requests must carry.")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Allow other machines without a token.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="limit=value, see docs/server.md; repeatable.")
    ] = None,
    weights: Weights = "apn-mini",
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    calibration: CalibrationOption = None,
) -> None:
    """Serve detection over REST, with a web page at /."""
    from apn.config import apply_overrides, validate
    from apn.detector import load
    from apn.server import ServerSettings
    from apn.server import serve as run

    values = apply_overrides({"host": host, "port": port, "token": token, "insecure": insecure}, overrides or ())
    settings = validate(ServerSettings, values, "server settings")
    run(load(weights, backend=backend, device=device, calibration=calibration), settings)
