"""Training: the APN half and the CLUB half of a step, the loop around them, checkpoints.

Source: Meng et al., CVIU 2024, and the official schedule (docs/method.md). Dimensions: B batch, D embedding size.
"""

import json
import math
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.utils.tensorboard import SummaryWriter

from apn.checkpoint import load_state, load_weights, read_checkpoint_config, read_training, save_checkpoint
from apn.config import Config, DataConfig, TrainConfig
from apn.data.dataset import Batch, BatchLoader, evaluation_loader, quarantine, training_loader
from apn.data.samples import Sample, read_samples, require_both_classes, write_manifest
from apn.data.splits import leave_out, read_folds, split_by_group
from apn.data.transforms import AlignedTransform, TrainTransform
from apn.losses import Pairs, build_clubs, club_learning_loss, information_pairs, loss_terms
from apn.metrics import auc, balanced_accuracy, probabilities
from apn.models.apn import APN
from apn.models.backbones import pretrained_source
from apn.models.teacher import SemanticTeacher

APN_STREAM, CLUB_STREAM = 0, 1  # random streams of the two halves' batches
EVALUATION_BATCH = 32


class Splits(NamedTuple):
    """train and validation share no split_group; test is the left-out fold, empty without one."""

    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    quarantined: list[tuple[Sample, str]]


class NonFiniteLossError(ValueError):
    """A loss term stopped being a number; the message names the term and the step."""


def read_splits(config: DataConfig, seed: int) -> Splits:
    """The samples of an experiment. Raises ValueError for data that do not hold both classes."""
    if not config.train:
        raise ValueError("no training data: set data.train to a folder with real/ and generated/, or to a manifest")
    samples = read_samples(config.train)
    test: list[Sample] = []
    if config.leave_out_fold:
        folds = read_folds(config.folds or Path(config.train).parent / "folds.json")
        if config.leave_out_fold not in folds:
            raise ValueError(f"no fold {config.leave_out_fold!r}: expected one of {', '.join(folds)}")
        samples, test = leave_out(samples, *folds[config.leave_out_fold])
    bad: list[tuple[Sample, str]] = []
    if config.quarantine:
        samples, bad = quarantine(samples)
    train, validation = split_by_group(samples, config.validation, seed) if config.validation else (samples, [])
    require_both_classes(train)
    return Splits(train, validation, test, bad)


# The step ------------------------------------------------------------------------------------------------------------


class Trainee(NamedTuple):
    """What learns, with what: the network and CLUB, each with its optimiser; the teacher never learns."""

    model: APN
    clubs: nn.ModuleList
    teacher: SemanticTeacher | None
    model_optimizer: Optimizer
    club_optimizer: Optimizer


def apn_half(
    fabric: Fabric, trainee: Trainee, batch: Batch, config: Config, step: int
) -> tuple[dict[str, float], Pairs]:
    """1. APN learns, CLUB holds still. Returns the loss terms and the detached pairs that CLUB may reuse."""
    model, clubs = trainee.model, trainee.clubs
    model.train()
    clubs.requires_grad_(False)
    output = model(batch.image)
    semantic = trainee.teacher(batch.image) if trainee.teacher else None
    terms = loss_terms(model, output, batch.label, clubs, config.loss, semantic)
    total = torch.stack(list(terms.values())).sum()
    _require_finite(terms, step)
    trainee.model_optimizer.zero_grad()
    fabric.backward(total)
    if config.train.gradient_clip is not None:
        clip_grad_norm_(model.parameters(), config.train.gradient_clip)
    trainee.model_optimizer.step()
    clubs.requires_grad_(True)
    pairs = [(a.detach(), i.detach()) for a, i in information_pairs(output, config.loss.club_pairs)]
    return {"total": total.item(), **{name: term.item() for name, term in terms.items()}}, pairs


def club_half(fabric: Fabric, trainee: Trainee, pairs: Pairs, step: int) -> float:
    """2. CLUB learns, APN holds still: it only gave the pairs, without gradient. Returns CLUB's own loss."""
    loss = club_learning_loss(trainee.clubs, pairs)
    _require_finite({"club_learning": loss}, step)
    trainee.club_optimizer.zero_grad()
    fabric.backward(loss)
    trainee.club_optimizer.step()
    return loss.item()


@torch.no_grad()
def fresh_pairs(model: APN, batch: Batch, club_pairs: str) -> Pairs:
    """Embeddings of a batch of its own from the resting network: evaluation mode, batch norm statistics included."""
    model.eval()
    return information_pairs(model(batch.image), club_pairs)


def _require_finite(terms: dict[str, Tensor], step: int) -> None:
    bad = [name for name, term in terms.items() if not torch.isfinite(term)]
    if bad:
        raise NonFiniteLossError(
            f"loss term {', '.join(bad)} is not finite at step {step}: lower train.learning_rate, set "
            "train.gradient_clip, or use train.precision = '32-true'; the last checkpoint is from before this step"
        )


# Optimisers and schedules --------------------------------------------------------------------------------------------


def model_optimizer(model: APN, config: TrainConfig) -> Optimizer:
    """Adam (with decoupled weight decay if asked), slower for the bases and, if asked, for the spatial backbone."""
    bases = [model.spatial.artifact_basis, model.spatial.irrelevant_basis]
    backbone = list(model.spatial.backbone.parameters())
    taken = {id(parameter) for parameter in bases + backbone}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    backbone_rate = config.learning_rate if config.backbone_learning_rate is None else config.backbone_learning_rate
    groups = [
        {"params": rest, "lr": config.learning_rate},
        {"params": backbone, "lr": backbone_rate},
        {"params": bases, "lr": config.basis_learning_rate, "weight_decay": 0.0},
    ]
    return AdamW([{**g, "base_lr": g["lr"]} for g in groups], weight_decay=config.weight_decay)


def club_optimizer(clubs: nn.ModuleList, config: TrainConfig) -> Optimizer:
    rate = config.club_learning_rate
    return AdamW([{"params": list(clubs.parameters()), "lr": rate, "base_lr": rate}], weight_decay=0.0)


def model_rate_factor(config: TrainConfig, step: int) -> float:
    """Factor on every learning rate at a step: linear warm-up times StepLR (official) or times half a cosine."""
    warm = 1.0
    if step < config.warmup_steps:
        warm = config.warmup_start + (1 - config.warmup_start) * step / config.warmup_steps
    if config.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return warm * 0.1 ** (step // config.schedule_steps)


def set_rates(optimizer: Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


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
    trainee = _build(config, resume)
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
    if trainee.teacher:
        trainee.teacher.to(fabric.device)
    apn_batches, club_batches = (fabric.setup_dataloaders(loader) for loader in _loaders(config, splits.train, start))
    validation = _validation_loader(config, splits.validation)
    club_iterator = cast(Iterator[Batch], iter(club_batches))

    def facts(step: int) -> dict[str, Any]:
        return {
            "step": step,
            "metrics": metrics,
            "best_auc": None if best == -math.inf else best,
            "seconds": round(seconds + time.perf_counter() - began, 1),
            "precision": precision,
            "device": fabric.device.type,
            "spatial_backbone_start": pretrained_source(config.model.spatial_backbone, config.model.pretrained),
            "data": {name: len(part) for name, part in splits._asdict().items()},
            "quarantined": [f"{sample.path}: {reason}" for sample, reason in splits.quarantined],
            "command": command,
            "torch": torch.__version__,
        }

    def save(name: str, step: int, resumable: bool) -> None:
        state = {
            "model_optimizer": trainee.model_optimizer.state_dict(),
            "club_optimizer": trainee.club_optimizer.state_dict(),
            "clubs": trainee.clubs.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_checkpoint(out / name, trainee.model, config, facts(step), state if resumable else None)

    began, images, step = time.perf_counter(), 0, start
    with (
        SummaryWriter(str(out / "tensorboard")) as board,
        _progress(console) as progress,
        _stop_between_steps() as stop,
    ):
        task = progress.add_task("training", total=config.train.steps, completed=start, status="")
        for batch in cast(Iterable[Batch], apn_batches):
            set_rates(trainee.model_optimizer, model_rate_factor(config.train, step))
            set_rates(trainee.club_optimizer, 0.1 ** (step // config.train.club_schedule_steps))
            terms, pairs = apn_half(fabric, learner, batch, config, step)
            for _ in range(config.train.club_steps if config.loss.information else 0):
                if config.train.club_data == "fresh":
                    pairs = fresh_pairs(learner.model, next(club_iterator), config.loss.club_pairs)
                terms["club_learning"] = club_half(fabric, learner, pairs, step)
            step += 1
            images += len(batch.label)
            rate = images / (time.perf_counter() - began)
            status = f"loss {terms['total']:.3f}  class {terms.get('classification', 0):.3f}  {rate:.1f} images/s"
            progress.update(task, completed=step, status=status)
            if step % config.train.log_every == 0 or step == config.train.steps:
                _log(out, board, step, {**terms, "images_per_second": rate})
            last = step == config.train.steps
            if validation and (step % config.train.validate_every == 0 or last):
                metrics = validate(model, validation, fabric.device)
                _log(out, board, step, {f"validation_{name}": value for name, value in metrics.items()})
                progress.console.print(f"step {step}: validation {_in_words(metrics)}")
                if metrics["auc"] > best:
                    best = metrics["auc"]
                    save("best", step, resumable=False)
            if step % config.train.save_every == 0 or last or stop:
                save("last", step, resumable=True)
            if stop:
                break
    return TrainResult(step, bool(stop), metrics)


def _build(config: Config, resume: Path | None) -> Trainee:
    settings = config.model
    if resume is not None:  # the weights come from the checkpoint, so nothing needs to be fetched
        settings = settings.model_copy(update={"pretrained": False, "pretrained_irrelevant": False})
    model = APN(settings)
    clubs = build_clubs(config.loss, config.model.embedding_dim)
    teacher = None
    if config.loss.semantic_teacher:
        teacher = SemanticTeacher(
            config.loss.semantic_teacher,
            config.model.embedding_dim,
            pretrained=config.loss.semantic_teacher_pretrained,
            seed=config.train.seed,
        )
    return Trainee(model, clubs, teacher, model_optimizer(model, config.train), club_optimizer(clubs, config.train))


def _checkpoint_of(folder: Path) -> Path:
    return folder / "last" if (folder / "last").is_dir() else folder


def _restore(trainee: Trainee, config: Config, folder: Path) -> tuple[int, float, dict[str, float], float]:
    """Everything that a step depends on: weights, optimisers, CLUB, the random state. Returns where the run was."""
    saved = read_checkpoint_config(folder)
    if saved.model != config.model or saved.loss != config.loss:
        raise ValueError(f"cannot resume {folder}: its [model] and [loss] settings differ from the configuration's")
    load_weights(trainee.model, folder)
    state, training = load_state(folder), read_training(folder)
    trainee.model_optimizer.load_state_dict(state["model_optimizer"])
    trainee.club_optimizer.load_state_dict(state["club_optimizer"])
    trainee.clubs.load_state_dict(state["clubs"])
    torch.set_rng_state(state["rng"])
    best = training["best_auc"]
    return training["step"], training["seconds"], training["metrics"], -math.inf if best is None else best


def _loaders(config: Config, samples: list[Sample], start: int) -> tuple[BatchLoader, BatchLoader]:
    """Batches of the APN half and, in a random stream of their own, of the CLUB half."""
    settings = config.train

    def loader(stream: int, per_step: int) -> BatchLoader:
        return training_loader(
            samples,
            TrainTransform(config.data.degradations, config.model.image_size),
            settings.batch_size,
            settings.steps * per_step,
            seed=settings.seed,
            stream=stream,
            start=start * per_step,
            balance=config.data.balance,
            num_workers=config.data.workers if per_step else 0,
        )

    fresh = settings.club_data == "fresh" and config.loss.information > 0
    return loader(APN_STREAM, 1), loader(CLUB_STREAM, settings.club_steps if fresh else 0)


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
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn(), console=console
    )
