"""Speed and memory of inference, as a Markdown table from one run; every row is a process of its own.

    python bench/inference.py [--models base,mini] [--rows ...] [--batches 1,4,32] [--repeats 3] [--threads N]

The baseline is the official forward pass restated (bench/restatement.py); ratios are to it, at the same batch size.
images/s: median of the repeats. Memory: most that was resident while it answered, after one call to warm up, less what
the imports took; the weights are part of it. Difference: of a logit, to the untouched network's in float32. Verdicts:
the share of --verdict-images of which the detector says the same, where a row may round or runs a graph, for which a
hard band's edge can round differently. Rows: see inference_rows.ROWS. A row that cannot be run says why.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import memory
import numpy as np
from inference_rows import ROWS, Job

from apn.backends import usable_cores

HERE = Path(__file__).parent
TOLERANCE = 1e-4
# What must be there before a graph can be made of it.
MADE_FROM = {"int8.onnx": "model.onnx", "openvino-int8": "openvino"}


class Measured(NamedTuple):
    """One row at one batch size. verdicts: None where they were not compared."""

    images_per_second: float
    memory: float
    difference: float
    verdicts: float | None


# One row, in a process of its own ------------------------------------------------------------------------------------


def measure(name: str, model: str, job: Job, work: Path, options: argparse.Namespace) -> Measured:
    """Times the row at --batch, and compares its logits with those that are expected."""
    row = ROWS[name]
    for module in row.imports:
        importlib.import_module(module)
    with np.load(work / f"{model}-expected.npz") as file:
        crops, expected = file["crops"], file["logits"]
    batch = crops[np.arange(options.batch) % len(crops)]
    started = memory.resident()
    run = row.open(job)
    found = run(batch)  # compiles, packs weights
    memory.forget_peak()
    seconds = [_timed(run, batch) for _ in range(options.repeats)]
    used = memory.peak() - started
    difference = float(np.abs(found - expected[np.arange(options.batch) % len(crops)]).max())
    same = None
    if options.verdicts and (row.graph or not row.exact):
        said = np.concatenate([run(crops[i : i + 16]) for i in range(0, len(crops), 16)])
        difference = float(np.abs(said - expected).max())
        same = agreement(job.checkpoint, said, expected)
    return Measured(options.batch / float(np.median(seconds)), used, difference, same)


def _timed(run: Any, batch: np.ndarray) -> float:
    started = time.perf_counter()
    run(batch)
    return time.perf_counter() - started


def agreement(checkpoint: Path, found: np.ndarray, expected: np.ndarray) -> float:
    """Share of images whose verdict, by the checkpoint's calibration, is the same."""
    from apn.calibration import read_calibration

    calibration = read_calibration(checkpoint)

    def verdicts(logits: np.ndarray) -> np.ndarray:
        return np.array([calibration.verdict(calibration.probability(float(b - a))) for a, b in logits])

    return float((verdicts(found) == verdicts(expected)).mean())


# All rows ------------------------------------------------------------------------------------------------------------


def call(script: str, *arguments: object, threads: int) -> str:
    """Runs a script of this folder and gives what it printed. Raises ValueError with its last line if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-W", "ignore", str(HERE / script), *map(str, arguments)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode:
        said = process.stderr.strip().splitlines() or [f"ended with status {process.returncode}"]
        raise ValueError(said[-1])
    return process.stdout


class Bench:
    """Runs rows; makes networks and graphs when first asked for."""

    def __init__(self, work: Path, options: argparse.Namespace) -> None:
        self.work, self.options = work, options
        self.checkpoints: dict[str, Path] = {}
        self.graphs: dict[tuple[str, str], str] = {}  # what went wrong with it, or nothing

    def prepare(self, model: str) -> None:
        count = max(self.options.verdict_images, 4)
        given = {"base": self.options.base_checkpoint, "mini": None}[model]
        arguments = [model, self.work, count, *(["--checkpoint", given] if given else [])]
        arguments += ["--images", self.options.images] if self.options.images else []
        arguments += ["--after", self.options.verdicts_after]
        said = call("networks.py", *arguments, threads=self.options.threads)
        self.checkpoints[model] = Path(said.splitlines()[-1])

    def make(self, model: str, graph: str) -> None:
        """Raises ValueError where a graph cannot be made; the second time without trying again."""
        if graph in MADE_FROM:
            self.make(model, MADE_FROM[graph])
        if (model, graph) not in self.graphs:
            try:
                threads = self.options.threads
                call(
                    "graphs.py",
                    self.checkpoints[model],
                    self.work / model,
                    graph,
                    self.options.range_images,
                    *([self.options.images] if self.options.images else []),
                    threads=threads,
                )
                self.graphs[model, graph] = ""
            except ValueError as error:
                self.graphs[model, graph] = str(error)
        if problem := self.graphs[model, graph]:
            raise ValueError(problem)

    def run(self, model: str, row: str, batch: int, verdicts: bool) -> Measured:
        if graph := ROWS[row].graph:
            self.make(model, graph)
        options = self.options
        said = call(
            "inference.py", "--one", model, row, self.checkpoints[model], self.work, "--batch", batch,
            "--repeats", options.repeats, "--threads", options.threads, *(["--verdicts"] if verdicts else []),
            threads=options.threads,
        )  # fmt: skip
        return Measured(**json.loads(said.splitlines()[-1]))


def table(bench: Bench, models: list[str], rows: list[str], batches: list[int]) -> None:
    """Prints each line as soon as it is known. Verdicts are compared once a row, at the first batch size."""
    print("| model | row | batch | images/s | of baseline | memory, MB | of baseline | largest difference | verdicts |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for model in models:
        bench.prepare(model)
        baselines: dict[int, Measured] = {}
        for row in rows:
            for batch in batches:
                try:
                    found = bench.run(model, row, batch, batch == batches[0] and bench.options.verdict_images > 0)
                except ValueError as error:
                    print(f"| {model} | {row} | {batch} | not run: {error} | | | | | |", flush=True)
                    continue
                if row == "baseline":
                    baselines[batch] = found
                print(f"| {model} | {row} | {batch} | {cells(row, found, baselines.get(batch))} |", flush=True)


def cells(row: str, found: Measured, baseline: Measured | None) -> str:
    """The numbers of a line. An exact row whose logits differ by more than rounding says so; nan differs too."""
    speed = f"{found.images_per_second / baseline.images_per_second:.2f} x" if baseline else ""
    memory_share = f"{found.memory / baseline.memory:.0%}" if baseline else ""
    wrong = ROWS[row].exact and not found.difference <= TOLERANCE
    difference = f"**{found.difference:.1g}, above {TOLERANCE:g}**" if wrong else f"{found.difference:.1g}"
    verdicts = "" if found.verdicts is None else f"{found.verdicts:.1%}"
    return " | ".join(
        [f"{found.images_per_second:.2f}", speed, f"{found.memory:.0f}", memory_share, difference, verdicts]
    )


def heading(options: argparse.Namespace) -> str:
    """The machine and the versions, one line."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in ("torch", "onnxruntime", "openvino", "nncf"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return (
        f"{options.threads} threads, {platform.machine()}, {', '.join(found)}, {options.verdict_images} verdict images"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="base,mini", help="with commas between")
    parser.add_argument("--rows", default=",".join(ROWS), help="with commas between; all by default")
    parser.add_argument("--batches", default="1,4,32", help="with commas between")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls a row, after one to warm up")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--verdict-images", type=int, default=500, help="0 compares no verdicts")
    parser.add_argument(
        "--verdicts-after", type=int, default=0, help="images to pass over first: those that a setting was chosen on"
    )
    parser.add_argument("--range-images", type=int, default=200, help="other images that set the ranges of int8")
    parser.add_argument(
        "--images", help="data set to judge and to set ranges by, as `apn train` takes it; by default images are made"
    )
    parser.add_argument("--base-checkpoint", type=Path, help="apn-base to measure; by default its weights are made")
    parser.add_argument("--work", type=Path, help="folder for networks and graphs; by default one that is removed")
    parser.add_argument("--one", nargs=4, metavar=("MODEL", "ROW", "CHECKPOINT", "WORK"), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--verdicts", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.one:
        model, row, checkpoint, work = options.one
        job = Job(Path(checkpoint), Path(work) / model, options.threads)
        print(json.dumps(measure(row, model, job, Path(work), options)._asdict()))
        return
    models, rows = options.models.split(","), sorted(options.rows.split(","), key="baseline".__ne__)  # it comes first
    for kind, found, known in (("row", rows, ROWS), ("model", models, ("base", "mini"))):
        if unknown := sorted(set(found) - set(known)):
            raise SystemExit(f"no {kind} {', '.join(unknown)}: expected some of {', '.join(known)}")
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        print(heading(options) + "\n")
        table(Bench(work, options), models, rows, [int(batch) for batch in options.batches.split(",")])


if __name__ == "__main__":
    main()
