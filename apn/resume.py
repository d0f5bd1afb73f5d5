"""Going on with a run: everything that a step depends on comes from its checkpoint, in one process or in several."""

import copy
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim import Optimizer

from apn.checkpoint import load_state, load_weights, read_checkpoint_config, read_training, recover
from apn.config import Config, TrainConfig
from apn.data.samples import Sample
from apn.distributed import gather, rank
from apn.model_config import Settings
from apn.step import Trainee

# What the batches of a step follow from; with another one a resumed run would be neither the old run nor a new one.
BATCHES = ("train.seed", "train.batch_size", "data.balance", "data.aligned_share")
# What may change without a word: it does not touch what is learnt, or is there to be changed (the data are compared).
FREE = (
    *("train.steps", "train.minutes", "train.precision", "train.recompute_bands", "train.log_every"),
    *("train.save_every", "train.validate_every", "data.train", "data.folds", "data.aligned", "data.workers"),
)


class RunPoint(NamedTuple):
    """Where a run stands: steps done, seconds of training, latest validation metrics, best AUC so far.

    club_batches: batches of their own that the CLUB halves have seen; no multiple of the steps where the spatial branch
    learnt alone for some.
    """

    step: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] | None = None
    best: float = -math.inf
    club_batches: int = 0


def checkpoint_of(folder: Path) -> Path:
    """The checkpoint of a run folder, or the folder itself."""
    recover(folder / "last")
    return folder / "last" if (folder / "last").is_dir() else folder


def run_folder(resume: Path | None, name: str) -> Path:
    """Where a run is written unless somebody says: the folder of the run that it goes on with, else runs/<name>."""
    if resume is not None and (checkpoint := checkpoint_of(resume)).name == "last":
        return checkpoint.parent
    return Path("runs") / name


def require_no_other_run(out: Path, checkpoint: Path | None) -> None:
    """ValueError where `out` holds a run that this one would write over: any but the one that it goes on with."""
    there = checkpoint_of(out)
    if there == out:
        return
    if checkpoint is None:
        raise ValueError(f"{out} already holds a run: go on with --resume {out}, or choose another --out")
    if checkpoint.resolve().parent != out.resolve():
        raise ValueError(
            f"{out} already holds another run than {checkpoint}: choose another --out, or move {there} away"
        )


def training_data_sha256(samples: Sequence[Sample]) -> str:
    """SHA-256 of what a run trains on: paths below their common folder, labels and origins, in order.

    The same data at another place have the same sum. Files are not opened.
    """
    paths = [os.path.abspath(sample.path) for sample in samples]
    try:
        folder = os.path.commonpath({os.path.dirname(path) for path in paths})
    except ValueError:  # several drives of Windows have none
        folder = ""
    digest = hashlib.sha256()
    for path, sample in zip(paths, samples, strict=True):
        original = os.path.abspath(sample.original).removeprefix(folder) if sample.original else ""
        row = (path.removeprefix(folder), original, str(sample.label), sample.generator, sample.source)
        digest.update("\0".join(row).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def require_one_data_set(sha256: str) -> None:
    """ValueError unless all processes train on the same samples."""
    if len(sums := dict(enumerate(gather(sha256)))) > 1 and len(set(sums.values())) > 1:
        raise ValueError(f"expected the same training data in every process, found these SHA-256 by rank: {sums}")


def require_same_run(folder: Path, config: Config, data_sha256: str) -> list[str]:
    """Compares the settings and data of a checkpoint with those that it is to go on with.

    Returns what else differs, one line a setting. Raises ValueError where the run would not be the same one.
    """
    saved = read_checkpoint_config(folder)
    if another := dict(_changes(saved, config, ("model", "loss"))):
        named = {name: another[name] for name in ("model.architecture",) if name in another} or another
        listed = "; ".join(f"{name} {change}" for name, change in named.items())
        raise ValueError(
            f"cannot resume {folder}: its [model] and [loss] settings differ from the configuration's: {listed}"
        )
    changes = dict(_changes(saved, config, ("data", "train")))
    refused = [f"{name} {changes[name]}" for name in BATCHES if name in changes]
    training = read_training(folder)
    if training["step"] > config.train.steps:
        raise ValueError(
            f"cannot resume {folder}: expected train.steps of at least the {training['step']} that it has done, found "
            f"{config.train.steps}"
        )
    trained_on = training.get("data_sha256")
    if trained_on not in (None, data_sha256):
        refused.append(f"the training data (SHA-256 of their list {trained_on[:12]}, now {data_sha256[:12]})")
    if refused:
        raise ValueError(
            f"cannot resume {folder} with other batches than it began with: {'; '.join(refused)}. "
            "Set them back, or start a new run in another --out"
        )
    notes = [f"{name} {change}" for name, change in changes.items() if name not in FREE]
    if trained_on is None:
        notes.append("its training data cannot be compared: it was saved before checkpoints said what they are")
    return notes


def _changes(saved: Config, config: Config, sections: Sequence[str]) -> Iterator[tuple[str, str]]:
    for section in sections:
        before, now = (dict(_flat(section, getattr(one, section))) for one in (saved, config))
        for name in before | now:
            if before.get(name) != now.get(name):
                yield name, f"was {before.get(name)!r} and is {now.get(name)!r}"


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """`section.key` and value of each setting, those of a table in a section too."""
    if not isinstance(value, Settings):
        yield name, value
        return
    for key, inner in value:
        yield from _flat(f"{name}.{key}", inner)


def restore(trainee: Trainee, folder: Path, config: TrainConfig, device: torch.device) -> RunPoint:
    """Weights, optimisers, CLUB and this process's random numbers from a checkpoint. Returns where its run was."""
    state, training = load_state(folder), read_training(folder)
    if "model" in state:
        trainee.model.load_state_dict(state["model"])
    else:
        load_weights(trainee.model, folder)
    if trainee.average and "average" in state:  # else it begins with the next step
        trainee.average.load_state_dict(state["average"])
    _restore_moments(trainee.model_optimizer, state["model_optimizer"])
    if trainee.club_optimizer:
        _restore_moments(trainee.club_optimizer, state["club_optimizer"])
    trainee.clubs.load_state_dict(state["clubs"])
    if trainee.soft_labels:
        trainee.soft_labels.load_state_dict(state["soft_labels"])
    _restore_random(state["rng"], config.seed, training["step"], device)
    best, step = training["best_auc"], training["step"]
    club_batches = training.get("club_batches", step * config.club_steps)  # older checkpoints do not say
    return RunPoint(step, training["seconds"], training["metrics"], -math.inf if best is None else best, club_batches)


def _restore_moments(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """An optimiser as it was saved, but for its rates and weight decay: the settings say them, and may have changed."""
    ours = [{name: group[name] for name in ("base_lr", "weight_decay")} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, settings in zip(optimizer.param_groups, ours, strict=True):
        group.update(settings)


def resumable_state(trainee: Trainee, device: torch.device, *, scaled: bool = False) -> dict[str, Any]:
    """What `restore` needs beside the weights. All processes call it: each one's random numbers are in it.

    scaled: the checkpoint's own weights will be scaled in the end (`train.unit_spread`); those in here never are, as
    the run may be given more steps.
    """
    state: dict[str, Any] = {
        "model_optimizer": trainee.model_optimizer.state_dict(),
        "club_optimizer": trainee.club_optimizer.state_dict() if trainee.club_optimizer else {},
        "clubs": trainee.clubs.state_dict(),
        "rng": gather(_random_state(device)),
    }
    if trainee.soft_labels:
        state["soft_labels"] = trainee.soft_labels.state_dict()
    weights: dict[str, Any] = {}
    if trainee.average or scaled:  # the checkpoint's own weights are others then
        weights["model"] = trainee.model.state_dict()
    if trainee.average:
        weights["average"] = trainee.average.state_dict()
    return state | (copy.deepcopy(weights) if scaled else weights)


# Random numbers of the network (dropout, drop path); those of the data are a function of the step. --------------------


def seed_process(seed: int, step: int = 0) -> None:
    """Gives every process but the first random numbers of its own; the first goes on as a single one would."""
    if rank():
        torch.manual_seed(int(np.random.SeedSequence((seed, rank(), step)).generate_state(1, np.uint64)[0]))


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _restore_random(saved: Any, seed: int, step: int, device: torch.device) -> None:
    """saved: a state for each process that there was, or the one of an older checkpoint."""
    states: list[dict[str, torch.Tensor]] = saved if isinstance(saved, list) else [{"cpu": saved}]
    if rank() >= len(states):
        seed_process(seed, step)
        return
    torch.set_rng_state(states[rank()]["cpu"])
    if device.type == "cuda" and "cuda" in states[rank()]:
        torch.cuda.set_rng_state(states[rank()]["cuda"], device)
