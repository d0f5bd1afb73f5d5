"""apn-mini and the baselines, trained alike on the leave-out folds and scored on what each fold left out.

    python bench/compare.py --out runs/compare [--minutes 10] [--methods apn-mini,npr] [--folds gan] [--jobs 2]

Alike: the data, crops, degradations, batch size, schedule, weight average, seed and minutes of configs/apn-mini.toml;
a method's own are its network, its learning rates and decay, its precision and, for CNNSpot, its blur and JPEG.
apn-mini stops at the steps that it ships with, where these come first: its runs are those of the shipped recipe. Each
method on each fold is a process of its own with --threads cores, --jobs of them at once. Stop it at any time: the same
command goes on where it was. It ends with OUT/compare.md and a table of scores a method, OUT/<method>.parquet, for
`apn report OUT/*.parquet`. Methods whose pretrained weights cannot be had start from random ones, or are not run where
that makes no sense; the table says so. --offline saves the wait for a model hub that cannot be reached.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from apn.backends import Device
from apn.checkpoint import read_checkpoint_config, read_training
from apn.config import Config, read_config, validate
from apn.data.samples import Sample, read_samples
from apn.data.splits import read_folds
from apn.heap import keep_freed_memory
from apn.metrics import Metrics
from apn.models.build import build_network
from apn.protocols import Protocol
from apn.report.build import estimate_metrics, protocols
from apn.report.results import Estimate, Threshold
from apn.report.tables import cell as in_words
from apn.runs import kept_shortcuts, score_checkpoint, train_to_end
from apn.scoretable import METADATA_KEY, Scores, Shortcut, read_scores, read_table

ROOT = Path(__file__).parent.parent
METHODS = (
    "apn-mini", "lite0", "lite0-stats", "resnet50", "deit-s", "swin-t", "cnnspot", "spec", "f3net", "gramnet",
    "univfd", "univfd-lite", "lgrad", "dire", "npr",
)  # fmt: skip
OWN_DEGRADATIONS = {"cnnspot": ("blur", "blur_sigma", "jpeg", "jpeg_quality")}
OWN_TRAINING = ("learning_rate", "backbone_learning_rate", "weight_decay", "unit_spread", "precision")
NEEDS_WEIGHTS = ("univfd", "dire")  # what is frozen in them would know nothing
SHIPPED = "apn-mini"  # has a recipe of so many steps, at most
NEVER = 10**9  # steps
SHOWN = [Protocol("native"), Protocol("aligned")]  # the same picture for every method, whatever its crops
HALF = Threshold(0.5, "probability", "0.5")


class Cell(NamedTuple):
    """One method on one fold, and the folder of its run and scores."""

    method: str
    fold: str
    folder: Path

    @property
    def last(self) -> Path:
        return self.folder / "run" / "last"

    @property
    def scores(self) -> Path:
        return self.folder / f"{self.fold}.parquet"

    @property
    def not_run(self) -> Path:
        """A file that says why, where it cannot be run."""
        return self.folder / "not-run.txt"


# One cell, in a process of its own -----------------------------------------------------------------------------------


def refuse_what_is_a_methods_own(overrides: Sequence[str]) -> None:
    """ValueError for a setting that each method takes from its own file: setting it here would change nothing."""
    own = {f"train.{name}" for name in OWN_TRAINING}
    for override in overrides:
        key = override.split("=")[0].strip()
        if key in own or (key.startswith(("model.", "loss.")) and key != "model.image_size"):
            raise ValueError(
                f"--set {key}: a method's own, from its file. Expected data.*, train.* but {', '.join(OWN_TRAINING)}, "
                "or model.image_size; `apn train configs/METHOD.toml --set ...` trains with anything"
            )


def cell_config(method: str, fold: str, minutes: float, seed: int, overrides: Sequence[str] = ()) -> Config:
    """What the method is trained with on the fold. overrides: of what configs/apn-mini.toml has all methods share."""
    refuse_what_is_a_methods_own(overrides)
    shared = read_config(ROOT / "configs/apn-mini.toml", tuple(overrides))
    own = read_config(ROOT / "configs" / f"{method}.toml")
    data, train = shared.data.model_dump(), shared.train.model_dump()
    data["leave_out_fold"] = fold
    for name in OWN_DEGRADATIONS.get(method, ()):
        data["degradations"][name] = getattr(own.data.degradations, name)
    train |= {name: getattr(own.train, name) for name in OWN_TRAINING}
    train["minutes"] = minutes or None
    if minutes and method != SHIPPED:
        train["steps"] = NEVER
    train |= {"seed": seed, "validate_every": NEVER, "save_every": 200}
    model = own.model.model_dump() | {"image_size": shared.model.image_size}
    values = {"name": method, "model": model, "loss": own.loss.model_dump(), "data": data, "train": train}
    return validate(Config, values, f"{method} on {fold}")


def with_weights_that_can_be_had(config: Config) -> Config:
    """From random weights where the pretrained ones cannot be fetched. Raises ValueError where it needs them."""
    try:
        build_network(config.model)
    except ValueError:
        if config.model.architecture in NEEDS_WEIGHTS or not config.model.pretrained:
            raise
        config = config.model_copy(update={"model": config.model.model_copy(update={"pretrained": False})})
        build_network(config.model)
    return config


def run_cell(cell: Cell, minutes: float, seed: int, overrides: Sequence[str], device: Device) -> None:
    """Trains and scores one method on one fold, or writes why it cannot be."""
    os.chdir(ROOT)  # the paths of configs/ start there
    keep_freed_memory()
    cell.not_run.unlink(missing_ok=True)
    if cell.last.is_dir():
        config = read_checkpoint_config(cell.last)
    else:
        try:
            config = with_weights_that_can_be_had(cell_config(cell.method, cell.fold, minutes, seed, overrides))
        except ValueError as error:
            cell.not_run.write_text(f"{error}\n", encoding="utf-8")
            return
    command = " ".join(sys.argv)
    train_to_end(config, cell.folder / "run", accelerator=device, command=command)
    score_checkpoint(cell.last, {cell.scores: left_out(cell)}, SHOWN, device=device, command=command)


def left_out(cell: Cell) -> list[Sample]:
    """What the fold keeps for testing; its name is the subset, so that only real images of the same fold compare."""
    return [sample._replace(subset=cell.fold) for sample in read_samples(cell.folder / "run" / "test.jsonl")]


# All cells -----------------------------------------------------------------------------------------------------------


def run_all(cells: Sequence[Cell], options: argparse.Namespace) -> bool:
    """Runs what is not there, `jobs` at a time; whether all went well. Ctrl-C lets each save, and starts no other."""
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    environment |= {"HF_HUB_OFFLINE": "1"} if options.offline else {}
    running: list[subprocess.Popen[bytes]] = []

    def run(cell: Cell) -> bool:
        if cell.scores.is_file():
            return True
        cell.folder.mkdir(parents=True, exist_ok=True)
        arguments = [__file__, "--cell", cell.method, cell.fold, "--out", str(cell.folder)]
        arguments += ["--minutes", str(options.minutes), "--seed", str(options.seed), "--device", options.device]
        arguments += [f"--set={override}" for override in options.overrides]
        began = time.monotonic()
        with (cell.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=log, stderr=log)
            running.append(process)
            code = process.wait()
        said = f"failed, see {cell.folder / 'log.txt'}" if code else "not run" if cell.not_run.is_file() else "done"
        print(f"{cell.method} on {cell.fold}: {said}, {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
        return code == 0

    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            return all(list(pool.map(run, cells)))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()  # a training saves before it ends
            raise


def refuse_others(cells: Sequence[Cell], minutes: float, seed: int) -> None:
    """SystemExit where a cell was run with other options."""
    for cell in cells:
        if cell.last.is_dir():
            train = read_checkpoint_config(cell.last).train
            if (train.minutes or 0, train.seed) != (minutes, seed):
                raise SystemExit(
                    f"{cell.folder} was run with --minutes {train.minutes or 0:g} --seed {train.seed}: "
                    "choose another --out"
                )


# The table -----------------------------------------------------------------------------------------------------------


def tabulate(cells: Sequence[Cell], folds: Sequence[str], out: Path, heading: str) -> str:
    """Markdown: AUC and accuracy of each method on each fold under each protocol, and their means."""
    done = [cell for cell in cells if cell.scores.is_file()]
    by_method = {name: [cell for cell in done if cell.method == name] for name in dict.fromkeys(c.method for c in done)}
    shortcuts = fold_shortcuts(done, out)
    scores = {method: join_scores(method, own, shortcuts, out) for method, own in by_method.items()}
    blocks = [f"# {heading}", _starts(by_method)] if done else [f"# {heading}", "Nothing was run."]
    for title in protocols(next(iter(scores.values()))) if done else ():
        for metric, name in (("auc", "AUC"), ("accuracy", "Accuracy at 0.5")):
            lines = [f"## {name}, {title}", "", _line(["method", *folds, "mean"]), _line(["---"] * (len(folds) + 2))]
            for method, one in scores.items():
                found, mean = _by_fold(one.take(one.protocol.where(title)), folds)
                in_folds = [in_words(getattr(found[fold], metric)) if fold in found else "" for fold in folds]
                whole = in_words(getattr(mean, metric)) if len(found) == len(folds) else ""
                lines.append(_line([method, *in_folds, whole]))
            if metric == "auc":
                probes = {one.data: _estimate(one) for one in shortcuts if one.protocol == title}
                cells_of_probe = [in_words(probes[fold]) if fold in probes else "" for fold in folds]
                lines.append(_line(["shortcut probe", *cells_of_probe, ""]))
            blocks.append("\n".join(lines))
    blocks.append(
        "Accuracy at 0.5, uncalibrated. Shortcut probe: the label told from file facts alone, no pixel seen. In "
        "brackets 95 % intervals, bootstrap over split groups; they do not cover how another seed would do. A mean "
        "only where all folds were run."
    )
    return "\n\n".join([*blocks, *_not_run(cells)]) + "\n"


def fold_shortcuts(done: Sequence[Cell], out: Path) -> list[Shortcut]:
    """The shortcut probe of each fold, measured once."""
    first = {cell.fold: cell for cell in reversed(done)}
    return [
        shortcut
        for fold, cell in first.items()
        for shortcut in kept_shortcuts(out / "probe" / f"{fold}.json", fold, left_out(cell), SHOWN)
    ]


def join_scores(method: str, cells: Sequence[Cell], shortcuts: Sequence[Shortcut], out: Path) -> Scores:
    """The folds as one table, OUT/<method>.parquet: each image scored by the network that never saw its generator."""
    tables = [read_table(cell.scores) for cell in cells]
    facts = tables[0][1].model_copy(
        update={
            "weights": method,
            "sha256": hashlib.sha256("".join(one.sha256 for _, one in tables).encode()).hexdigest(),
            "data": tuple(cell.fold for cell in cells),
            "data_sha256": "",
            "images": sum(one.images for _, one in tables),
            "shortcuts": tuple(one for one in shortcuts if one.data in {cell.fold for cell in cells}),
        }
    )
    joined = pa.concat_tables([table for table, _ in tables]).unify_dictionaries()
    path = out / f"{method}.parquet"
    pq.write_table(joined.replace_schema_metadata({METADATA_KEY: facts.model_dump_json()}), path)
    return read_scores([path])[0]


def _by_fold(scores: Scores, folds: Sequence[str]) -> tuple[dict[str, Metrics[Estimate]], Metrics[Estimate]]:
    """Metrics by fold, and of their mean."""
    present = [fold for fold in folds if scores.subset.where(fold).any()]
    sets = [np.ones(len(scores.labels), bool), *(scores.subset.where(fold) for fold in present)]
    (_, *each), mean = estimate_metrics(scores, sets, HALF)
    return dict(zip(present, each, strict=True)), mean


def _starts(by_method: dict[str, list[Cell]]) -> str:
    """What each method started from, and how far it came."""
    lines = [_line(["method", "trunk starts from", "steps", "learns, M parameters"]), _line(["---"] * 4)]
    for method, cells in by_method.items():
        facts = [read_training(cell.last) for cell in cells]
        steps = sorted({one["step"] for one in facts})
        reach = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else str(steps[0])
        lines.append(_line([method, facts[0]["backbone_start"], reach, f"{_learnable(cells[0].last) / 1e6:.2f}"]))
    return "\n".join(lines)


def _learnable(checkpoint: Path) -> int:
    with torch.device("meta"):
        model = build_network(read_checkpoint_config(checkpoint).model, offline=True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _not_run(cells: Sequence[Cell]) -> Iterator[str]:
    reasons = {cell.method: cell.not_run.read_text(encoding="utf-8") for cell in cells if cell.not_run.is_file()}
    if reasons:
        yield "\n".join(["Not run:", "", *(f"- {method}: {reason.strip()}" for method, reason in reasons.items())])


def _estimate(shortcut: Shortcut) -> Estimate:
    return Estimate(*(np.nan if number is None else number for number in (shortcut.auc, shortcut.low, shortcut.high)))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs and tables")
    parser.add_argument(
        "--minutes", type=float, default=10, help="of training, each; 0: as many steps as configs/apn-mini.toml says"
    )
    parser.add_argument("--methods", default=",".join(METHODS), help="names of configs/, with commas between")
    parser.add_argument("--folds", default="", help="names of folds.json, with commas between; all by default")
    parser.add_argument("--threads", type=int, default=1, help="processor cores of each process")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="all processes share a GPU")
    parser.add_argument("--seed", type=int, help="of every run; default: that of configs/apn-mini.toml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="section.key=value, for all alike")
    parser.add_argument("--offline", action="store_true", help="do not ask a model hub for weights")
    parser.add_argument("--cell", nargs=2, metavar=("METHOD", "FOLD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        refuse_what_is_a_methods_own(options.overrides)
    except ValueError as error:
        parser.error(str(error))
    shipped = read_config(ROOT / "configs/apn-mini.toml")
    if options.seed is None:
        options.seed = shipped.train.seed
    out = options.out.resolve()
    if options.cell:
        method, fold = options.cell
        run_cell(Cell(method, fold, out), options.minutes, options.seed, options.overrides, options.device)
        return
    known = tuple(read_folds(ROOT / str(shipped.data.folds)))
    folds = options.folds.split(",") if options.folds else list(known)
    methods = options.methods.split(",")
    for kind, found, expected in (("fold", folds, known), ("method", methods, METHODS)):
        if unknown := sorted(set(found) - set(expected)):
            raise SystemExit(f"no {kind} {', '.join(unknown)}: expected some of {', '.join(expected)}")
    cells = [Cell(method, fold, out / method / fold) for fold in folds for method in methods]  # one fold is there early
    refuse_others(cells, options.minutes, options.seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    well = run_all(cells, options)
    length = f"{options.minutes:g} minutes each" if options.minutes else "as many steps as apn-mini"
    text = tabulate(cells, folds, out, f"Leave-out folds, {length}, seed {options.seed}")
    (out / "compare.md").write_text(text, encoding="utf-8")
    print(text)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
