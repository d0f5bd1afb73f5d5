"""Training: the loop around the steps of apn/step.py, in one process or in several (docs/training.md)."""

import copy
import math
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning_fabric import Fabric, seed_everything
from lightning_fabric.wrappers import _FabricModule
from rich.console import Console
from torch import nn

from apn.clock import Clock
from apn.config import Config, LossConfig
from apn.data.dataset import Batch, BatchLoader
from apn.distributed import agree, device_type, gather, leave, lost_process_explained, start, world_size
from apn.model_config import ModelConfig
from apn.models.apn import APN
from apn.models.build import starting_weights
from apn.models.soft_labels import SoftLabels
from apn.optim import model_rate_factor, set_rates
from apn.precision import resolve_precision
from apn.resume import (
    RunPoint,
    checkpoint_of,
    require_no_other_run,
    require_one_data_set,
    require_same_run,
    restore,
    resumable_state,
    seed_process,
    training_data_sha256,
)
from apn.runconsole import bar, say, say_data, status, validation_words
from apn.runfolder import RunFolder
from apn.step import Trainee, build_trainee, club_steps, prepare, require_finite_weights, training_step
from apn.trainingdata import (
    label_loader,
    read_splits,
    spread_loader,
    training_loaders,
    validation_loader,
)
from apn.validation import scale_to_unit_spread, validate


def unwrapped(model: nn.Module) -> APN:
    """The APN in Fabric's wrapping."""
    network = model.module if isinstance(model, _FabricModule) else model
    assert isinstance(network, APN), "the settings allow it for APN alone"
    return network


def fit_soft_labels(soft_labels: SoftLabels, batches: Iterable[Batch], loss: LossConfig) -> float:
    """Fits them on what all processes see, alike in each. Returns their AUC there."""
    features, labels = [], []
    for batch in batches:
        features.append([one.cpu().numpy() for one in soft_labels.features(batch.image)])
        labels.append(batch.label.cpu().numpy())
    parts = gather(([np.concatenate(look) for look in zip(*features, strict=True)], np.concatenate(labels)))
    by_look = zip(*(looks for looks, _ in parts), strict=True)
    return soft_labels.fit(
        [np.concatenate(look).astype(float) for look in by_look],
        np.concatenate([one for _, one in parts]),
        loss.soft_label_penalty,
        loss.soft_label_joint_penalty,
    )


@contextmanager
def _stop_between_steps() -> Iterator[list[int]]:
    """The first Ctrl-C (or SIGTERM) lets the step finish, so that what is saved resumes exactly.

    A second one ends a single process at once. Where there are several, both the terminal and torchrun pass a Ctrl-C
    on, so a second one means nothing; torchrun itself kills what has not ended after 30 seconds.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals go to that one, which may do as it likes
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if world_size() == 1:
            signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except RuntimeError:
        if world_size() > 1:  # where another process is gone, torchrun ends this one too, which has yet to say why
            before.clear()
        raise
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

    Started by torchrun it is one of several processes that train one network; the first of them writes.
    resume: a checkpoint folder or a run folder; the run goes on as if it had never stopped.
    Raises ValueError for settings, data or checkpoints that do not fit, and where another run is writing to `out` or
    has written there; NonFiniteLossError when a term diverges;
    LostProcessError where another process of the run is gone.
    """
    precision = resolve_precision(config.train.precision, device_type(accelerator))
    fabric = start(accelerator, precision)
    folder = RunFolder(out, fabric.is_global_zero)
    with lost_process_explained(f"go on from the last checkpoint with --resume {out}"), folder.alone():
        checkpoint = None if resume is None else checkpoint_of(resume)
        require_no_other_run(out, checkpoint)
        result = _Run(fabric, config, folder, checkpoint, console, command, precision).go()
    leave()
    return result


class _Run:
    """A run's parts, made once; `go` is the loop."""

    def __init__(
        self,
        fabric: Fabric,
        config: Config,
        folder: RunFolder,
        checkpoint: Path | None,
        console: Console | None,
        command: str,
        precision: str,
    ) -> None:
        self.fabric, self.config, self.folder = fabric, config, folder
        self.console = (console or Console(stderr=True)) if fabric.is_global_zero else Console(quiet=True)
        seed_everything(config.train.seed, verbose=False)
        splits = read_splits(config.data, config.train.seed)
        data_sha256 = training_data_sha256(splits.train)
        require_one_data_set(data_sha256)
        notes = [] if checkpoint is None else require_same_run(checkpoint, config, data_sha256)
        self.trainee = build_trainee(config, offline=checkpoint is not None)
        seed_process(config.train.seed)
        self.learner, self.began = self._place(), RunPoint()
        if checkpoint is not None:  # once all is on its device, where the optimizers' state goes too
            self.began = restore(self.trainee, checkpoint, config.train, fabric.device)
        self.metrics, self.best = self.began.metrics or {}, self.began.best
        self.club_batches_seen = self.began.club_batches
        self.folder.write_manifests(splits)
        self.train_samples = splits.train
        say_data(self.console, splits, notes)
        loaders = training_loaders(config, splits.train, self.began.step, self.began.club_batches)
        self.batches, self.club_batches = map(self._batches, loaders)
        if self.trainee.soft_labels and checkpoint is None:
            batches = self._batches(label_loader(config, splits.train))
            found = fit_soft_labels(self.trainee.soft_labels, batches, config.loss)
            looked_at = f"the {config.loss.soft_label_batches} batches of their fit"
            say(self.console, f"soft labels: AUC {found:.4f} on {looked_at}")
            if isinstance(config.model, ModelConfig) and config.model.head_start == "regressions":
                self.trainee.soft_labels.start(unwrapped(self.trainee.model))
        self.validation = validation_loader(config, splits.validation)
        self.facts: dict[str, Any] = {
            "precision": precision,
            "device": fabric.device.type,
            "processes": fabric.world_size,
            "backbone_start": starting_weights(config.model),
            "data": {name: len(part) for name, part in splits._asdict().items()},
            "data_sha256": data_sha256,
            "quarantined": [f"{sample.path}: {reason}" for sample, reason in splits.quarantined],
            "command": command,
            "torch": torch.__version__,
        }
        self.clock = Clock(config.train, self.began.seconds)

    def _batches(self, loader: BatchLoader) -> Iterator[Batch]:
        """On the network's device."""
        return cast(Iterator[Batch], iter(self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)))

    def _place(self) -> Trainee:
        """Everything on its device, the network in Fabric's wrapping."""
        trainee, device = self.trainee, self.fabric.device
        prepare(trainee, self.config.train, device.type)
        model, optimizer = self.fabric.setup(trainee.model, trainee.model_optimizer)
        if isinstance(trainee.model, APN):
            model.mark_forward_method("spatial_logits")
        for other in (trainee.clubs, trainee.teacher, trainee.average, trainee.soft_labels):
            if other is not None:
                other.to(device)
        return trainee._replace(model=model, model_optimizer=optimizer)

    def go(self) -> TrainResult:
        step, device = self.began.step, self.fabric.device
        with self.folder.open(step), bar(self.console) as progress, _stop_between_steps() as received:
            task = progress.add_task("training", total=1, step=step, status="")
            images = 0
            share, stop = agree(self.clock.share(step), bool(received), device)
            while share < 1 and not stop:
                self._set_rates(step, share)
                batch = next(self.batches)
                alone = share < self.config.train.spatial_share
                terms = training_step(
                    self.fabric,
                    self.learner,
                    batch,
                    self.club_batches,
                    self.config,
                    step,
                    spatial_alone=alone,
                )
                step += 1
                self.club_batches_seen += 0 if alone else club_steps(self.config)
                share, stop = agree(self.clock.share(step), bool(received), device)
                images += len(batch.label) * self.fabric.world_size
                rate = images / (self.clock.seconds - self.began.seconds)
                progress.update(task, completed=share, step=step, status=status(terms, rate))
                with self.clock.stopped():
                    self._after(step, {**terms, "images_per_second": rate}, share >= 1, stop, progress.console)
        return TrainResult(step, stop, self.metrics)

    def _set_rates(self, step: int, share: float) -> None:
        set_rates(self.trainee.model_optimizer, model_rate_factor(self.config.train, step, share))
        if self.trainee.club_optimizer:
            set_rates(self.trainee.club_optimizer, 0.1 ** (step // self.config.train.club_schedule_steps))

    def _after(self, step: int, values: dict[str, float], over: bool, stop: bool, console: Console) -> None:
        """What a step may be followed by: a line of the log, validation, checkpoints."""
        config = self.config.train
        if over or stop or step % config.validate_every == 0 or step % config.save_every == 0:
            require_finite_weights(self.trainee, step)
        if step % config.log_every == 0 or over:
            self.folder.log(step, values)
        scaled = over and config.unit_spread
        saved = step % config.save_every == 0 or over or stop
        state = resumable_state(self.trainee, self.fabric.device, scaled=scaled) if saved else None
        with self._scaled_in_here(console) if scaled else nullcontext():
            if self.validation is not None and (step % config.validate_every == 0 or over):
                self._validate(step, console, scaled=scaled)
            if saved:
                self._save("last", step, state)

    @contextmanager
    def _scaled_in_here(self, console: Console) -> Iterator[None]:
        """For a checkpoint; the run goes on, now or when it is given more steps, with the logits that it had."""
        model = self.trainee.shipped
        assert isinstance(model, APN), "the settings allow it for APN alone"
        before = copy.deepcopy(model.classifier.state_dict())
        spread = scale_to_unit_spread(model, spread_loader(self.config, self.train_samples), self.fabric.device)
        say(console, f"logits: a standard deviation of {spread:.4f} over training crops, scaled to 1")
        try:
            yield
        finally:
            model.classifier.load_state_dict(before)

    def _validate(self, step: int, console: Console, *, scaled: bool) -> None:
        assert self.validation is not None, "nothing to validate on"
        # The average is validated in full precision, which is what it will be used in.
        with nullcontext() if self.trainee.average else self.fabric.autocast():
            self.metrics = validate(self.trainee.shipped, self.validation, self.fabric.device)
        self.folder.log(step, {f"validation_{name}": value for name, value in self.metrics.items()})
        say(console, f"step {step}: validation {validation_words(self.metrics)}")
        if self.metrics.get("auc", -math.inf) > self.best:
            self.best = self.metrics["auc"]
            with nullcontext() if scaled or not self.config.train.unit_spread else self._scaled_in_here(console):
                self._save("best", step, None)

    def _save(self, name: str, step: int, state: dict[str, Any] | None) -> None:
        facts = {
            "step": step,
            "metrics": self.metrics,
            "best_auc": None if self.best == -math.inf else self.best,
            "seconds": round(self.clock.seconds, 1),
            "club_batches": self.club_batches_seen,
            **self.facts,
        }
        self.folder.save(name, self.trainee.shipped, self.config, facts, state)
