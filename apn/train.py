"""Training: the loop around the steps of apn/step.py, its data, validation and checkpoints.

Dimensions: B batch, N images.
"""

import json
import math
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from apn.checkpoint import load_state, load_weights, read_checkpoint_config, read_training, save_checkpoint
from apn.config import Config, DataConfig, TrainConfig
from apn.data.dataset import Batch, BatchLoader, evaluation_loader, training_loader
from apn.data.layouts import parse_spec, read_data
from apn.data.samples import REAL, Sample, require_both_classes, write_manifest
from apn.data.sampling import BalancedBatches
from apn.data.splits import leave_out, read_folds, split_by_group
from apn.data.transforms import AlignedTransform, TrainTransform
from apn.data.verify import quarantine
from apn.metrics import auc, balanced_accuracy, probabilities
from apn.models.build import starting_weights
from apn.optim import model_rate_factor, set_rates
from apn.step import Trainee, build_trainee, club_steps, training_step

APN_STREAM, CLUB_STREAM = 0, 1  # random streams of the two halves' batches
EVALUATION_BATCH = 32


class Splits(NamedTuple):
    """train and validation share no split_group; test is the left-out fold, empty without one."""

    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    quarantined: list[tuple[Sample, str]]


def read_splits(config: DataConfig, seed: int) -> Splits:
    """The samples of an experiment. Raises ValueError for data that do not hold both classes."""
    if not config.train:
        raise ValueError("no training data: set data.train to a folder with real/ and generated/, or to a manifest")
    samples = read_data(config.train, default_split="train")
    test: list[Sample] = []
    if config.leave_out_fold:
        folds = read_folds(config.folds or parse_spec(config.train).root.parent / "folds.json")
        if config.leave_out_fold not in folds:
            raise ValueError(f"no fold {config.leave_out_fold!r}: expected one of {', '.join(folds)}")
        samples, test = leave_out(samples, *folds[config.leave_out_fold])
    bad: list[tuple[Sample, str]] = []
    if config.quarantine:
        samples, bad = quarantine(samples)
    train, validation = split_by_group(samples, config.validation, seed) if config.validation else (samples, [])
    require_both_classes(train)
    return Splits(train + read_aligned(config.aligned, train), validation, test, bad)


def read_aligned(manifests: Iterable[str], photographs: Sequence[Sample]) -> list[Sample]:
    """Fakes of these photographs, of no other: what is made from held-out pictures stays out.

    Raises ValueError where a manifest lists a fake without saying what it was made from.
    """
    known = {str(sample.path) for sample in photographs}
    fakes = [sample for manifest in manifests for sample in read_data(manifest)]
    for sample in fakes:
        if not sample.original or sample.label == REAL:
            raise ValueError(f"expected fakes with their `original`, as `apn synthesize` lists them: {sample.path}")
    return [sample for sample in fakes if sample.original in known]


# The loop ------------------------------------------------------------------------------------------------------------


def resolve_precision(precision: str, accelerator: str = "cpu") -> str:
    """`auto` becomes bf16-mixed where the hardware multiplies bfloat16 natively, else 32-true."""
    if precision != "auto":
        return precision
    if accelerator == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    native = (
        accelerator == "cpu" and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return "bf16-mixed" if native else "32-true"


@torch.no_grad()
def score(model: nn.Module, loader: BatchLoader, device: torch.device | str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 2) and labels (N,) of a loader, in its order; the model rests in evaluation mode."""
    model.eval()
    batches = [(model(batch.image.to(device), irrelevant=False).logits.float().cpu(), batch.label) for batch in loader]
    logits, labels = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    return logits, labels


def validate(model: nn.Module, loader: BatchLoader, device: torch.device | str = "cpu") -> dict[str, float]:
    """AUC and balanced accuracy at 0.5 on centre crops, both classes re-encoded alike."""
    logits, labels = score(model, loader, device)
    scores = probabilities(logits)
    return {"auc": auc(labels, scores), "balanced_accuracy": balanced_accuracy(labels, scores), "images": len(labels)}


@contextmanager
def _stop_between_steps() -> Iterator[list[int]]:
    """The first Ctrl-C (or SIGTERM) lets the step finish, so that what is saved resumes exactly."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def share_done(config: TrainConfig, step: int, seconds: float) -> float:
    """How much of its steps or of its minutes a run has used, whichever is more; from 1 on it is over."""
    return max(step / config.steps, seconds / 60 / config.minutes if config.minutes else 0.0)


def is_finished(config: TrainConfig, run: Path) -> bool:
    """Whether the run folder holds a run that has come to its end under these settings."""
    if not (run / "last").is_dir():
        return False
    training = read_training(run / "last")
    return share_done(config, training["step"], training["seconds"]) >= 1


class Clock:
    """How much of a run is over. It stands still while the run validates or saves, so that those cost no training."""

    def __init__(self, config: TrainConfig, seconds: float = 0.0) -> None:
        self._config, self._before, self._began = config, seconds, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self._before + time.perf_counter() - self._began

    def share(self, step: int) -> float:
        """`share_done` by now."""
        return share_done(self._config, step, self.seconds)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Time in here does not count."""
        before = time.perf_counter()
        yield
        self._began += time.perf_counter() - before


class TrainResult(NamedTuple):
    """Where the run stopped: step reached, whether a signal ended it early, latest validation metrics."""

    step: int
    interrupted: bool
    metrics: dict[str, float]


def train(
    config: Config,
    out: Path,
    *,
    resume: Path | None = None,
    accelerator: str = "auto",
    command: str = "",
    console: Console | None = None,
) -> TrainResult:
    """Trains into the run folder `out`: last/ and best/ checkpoints, manifests, log.jsonl, TensorBoard events.

    resume: a checkpoint folder or a run folder; the run goes on as if it had never stopped.
    Raises ValueError for settings, data or checkpoints that do not fit; NonFiniteLossError when a term diverges.
    """
    console = console or Console(stderr=True)
    if resume is None and (out / "last").exists():
        raise ValueError(f"{out} already holds a run: go on with --resume {out}, or choose another --out")
    fabric = Fabric(accelerator=accelerator, devices=1, precision="32-true")
    precision = resolve_precision(config.train.precision, fabric.device.type)
    if precision != "32-true":
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
    seed_everything(config.train.seed, verbose=False)
    splits = read_splits(config.data, config.train.seed)
    trainee = build_trainee(config, offline=resume is not None)
    start, seconds, best = 0, 0.0, -math.inf
    metrics: dict[str, float] = {}
    if resume is not None:
        start, seconds, metrics, best = _restore(trainee, config, _checkpoint_of(resume))
    out.mkdir(parents=True, exist_ok=True)
    for name, samples in zip(("train", "validation", "test"), splits[:3], strict=True):
        if samples:
            write_manifest(samples, out / f"{name}.jsonl")
    _report_data(splits, console)

    model, optimizer = fabric.setup(trainee.model, trainee.model_optimizer)
    learner = trainee._replace(model=model, model_optimizer=optimizer)
    trainee.clubs.to(fabric.device)
    for follower in (trainee.teacher, trainee.average):
        if follower is not None:
            follower.to(fabric.device)
    batches, club_batches = (
        cast(Iterator[Batch], iter(fabric.setup_dataloaders(loader)))
        for loader in _loaders(config, splits.train, start)
    )
    validation = _validation_loader(config, splits.validation)

    def facts(step: int) -> dict[str, Any]:
        return {
            "step": step,
            "metrics": metrics,
            "best_auc": None if best == -math.inf else best,
            "seconds": round(clock.seconds, 1),
            "precision": precision,
            "device": fabric.device.type,
            "backbone_start": starting_weights(config.model),
            "data": {name: len(part) for name, part in splits._asdict().items()},
            "quarantined": [f"{sample.path}: {reason}" for sample, reason in splits.quarantined],
            "command": command,
            "torch": torch.__version__,
        }

    def save(name: str, step: int, resumable: bool) -> None:
        state = {
            "model_optimizer": trainee.model_optimizer.state_dict(),
            "club_optimizer": trainee.club_optimizer.state_dict() if trainee.club_optimizer else {},
            "clubs": trainee.clubs.state_dict(),
            "rng": torch.get_rng_state(),
            # The checkpoint's own weights are the average's, where there is one.
            **(
                {"model": trainee.model.state_dict(), "average": trainee.average.state_dict()}
                if trainee.average
                else {}
            ),
        }
        save_checkpoint(out / name, trainee.shipped, config, facts(step), state if resumable else None)

    clock, images, step = Clock(config.train, seconds), 0, start
    with (
        SummaryWriter(str(out / "tensorboard")) as board,
        _progress(console) as progress,
        _stop_between_steps() as stop,
    ):
        task = progress.add_task("training", total=1, step=start, status="")
        over = clock.share(step) >= 1
        while not over and not stop:
            set_rates(trainee.model_optimizer, model_rate_factor(config.train, step, clock.share(step)))
            if trainee.club_optimizer:
                set_rates(trainee.club_optimizer, 0.1 ** (step // config.train.club_schedule_steps))
            batch = next(batches)
            terms = training_step(fabric, learner, batch, club_batches, config, step)
            step += 1
            over = clock.share(step) >= 1
            images += len(batch.label)
            rate = images / (clock.seconds - seconds)
            status = f"loss {terms['total']:.3f}  class {terms.get('classification', 0):.3f}  {rate:.1f} images/s"
            progress.update(task, completed=clock.share(step), step=step, status=status)
            with clock.stopped():
                if step % config.train.log_every == 0 or over:
                    _log(out, board, step, {**terms, "images_per_second": rate})
                if validation and (step % config.train.validate_every == 0 or over):
                    metrics = validate(trainee.shipped if trainee.average else model, validation, fabric.device)
                    _log(out, board, step, {f"validation_{name}": value for name, value in metrics.items()})
                    progress.console.print(f"step {step}: validation {_in_words(metrics)}")
                    if metrics["auc"] > best:
                        best = metrics["auc"]
                        save("best", step, resumable=False)
                if step % config.train.save_every == 0 or over or stop:
                    save("last", step, resumable=True)
    return TrainResult(step, bool(stop), metrics)


def _checkpoint_of(folder: Path) -> Path:
    return folder / "last" if (folder / "last").is_dir() else folder


def _restore(trainee: Trainee, config: Config, folder: Path) -> tuple[int, float, dict[str, float], float]:
    """Everything that a step depends on: weights, optimisers, CLUB, the random state. Returns where the run was."""
    saved = read_checkpoint_config(folder)
    if saved.model != config.model or saved.loss != config.loss:
        raise ValueError(f"cannot resume {folder}: its [model] and [loss] settings differ from the configuration's")
    state, training = load_state(folder), read_training(folder)
    if trainee.average:
        trainee.model.load_state_dict(state["model"])
        trainee.average.load_state_dict(state["average"])
    else:
        load_weights(trainee.model, folder)
    trainee.model_optimizer.load_state_dict(state["model_optimizer"])
    if trainee.club_optimizer:
        trainee.club_optimizer.load_state_dict(state["club_optimizer"])
    trainee.clubs.load_state_dict(state["clubs"])
    torch.set_rng_state(state["rng"])
    best = training["best_auc"]
    return training["step"], training["seconds"], training["metrics"], -math.inf if best is None else best


def _loaders(config: Config, samples: list[Sample], start: int) -> tuple[BatchLoader, BatchLoader]:
    """Batches of the network and, in a random stream of their own, of the CLUB half."""
    settings = config.train

    def loader(stream: int, per_step: int) -> BatchLoader:
        batches = BalancedBatches(
            samples,
            settings.batch_size,
            settings.steps * per_step,
            seed=settings.seed,
            stream=stream,
            start=start * per_step,
            balance=config.data.balance,
            pair_share=config.data.aligned_share,
        )
        transform = TrainTransform(config.data.degradations, config.model.image_size)
        return training_loader(samples, transform, batches, num_workers=config.data.workers if per_step else 0)

    return loader(APN_STREAM, 1), loader(CLUB_STREAM, club_steps(config) if settings.club_data == "fresh" else 0)


def _validation_loader(config: Config, samples: list[Sample]) -> BatchLoader | None:
    """A fixed, evenly spread part of the held-out samples."""
    if not samples:
        return None
    most = min(len(samples), config.data.validation_images)
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, most).round().astype(int)]
    return evaluation_loader(
        chosen, AlignedTransform(config.model.image_size), EVALUATION_BATCH, num_workers=config.data.workers
    )


def _report_data(splits: Splits, console: Console) -> None:
    for name, part in zip(("train", "validation", "left out"), splits[:3], strict=True):
        generated = sum(sample.label for sample in part)
        console.print(f"{name}: {len(part) - generated} real, {generated} generated")
    for sample, reason in splits.quarantined:
        console.print(f"quarantined {sample.path}: {reason}", style="yellow")


def _in_words(metrics: dict[str, float]) -> str:
    return f"AUC {metrics['auc']:.4f}, balanced accuracy {metrics['balanced_accuracy']:.4f}"


def _log(out: Path, board: SummaryWriter, step: int, values: dict[str, float]) -> None:
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **{name: round(value, 6) for name, value in values.items()}}) + "\n")
    for name, value in values.items():
        board.add_scalar(name, value, step)


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(),
        TextColumn("step {task.fields[step]}  {task.fields[status]}"),
        TimeRemainingColumn(),
        console=console,
    )
