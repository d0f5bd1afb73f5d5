"""A checkpoint is a folder: model.safetensors, config.json, training.json and, for resuming, state.pt.

Nothing in it can run code when read: safetensors, JSON, and a torch file read with `weights_only=True`.
"""

import hashlib
import json
import pickle
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from apn.backends import WEIGHTS_FOLDER
from apn.config import Config, read_config
from apn.models.build import Network, build_network

WEIGHTS, CONFIG, TRAINING, STATE = "model.safetensors", "config.json", "training.json", "state.pt"


def save_checkpoint(
    folder: Path, model: nn.Module, config: Config, training: dict[str, Any], state: dict[str, Any] | None = None
) -> None:
    """Writes the folder whole or not at all: an interrupted save leaves the previous checkpoint in place.

    training: JSON facts about how the weights came to be (step, metrics, data). state: what resuming needs.
    Raises ValueError where it cannot be written, for want of space mostly.
    """
    unfinished, previous = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("unfinished", "previous"))
    recover(folder)
    for leftover in (unfinished, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _write(unfinished, model, config, training, state)
    except (OSError, SafetensorError, RuntimeError) as error:  # a full disk: safetensors and torch have their own words
        shutil.rmtree(unfinished, ignore_errors=True)
        free = shutil.disk_usage(folder.parent).free / 1e6
        kept = f"; what {folder} held before is still there" if folder.exists() else ""
        raise ValueError(f"cannot save {folder}, where {free:,.1f} MB are free: {error}{kept}") from error
    try:
        if folder.exists():
            folder.rename(previous)
        unfinished.rename(folder)
    except BaseException:
        if previous.exists():
            previous.rename(folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _write(
    folder: Path, model: nn.Module, config: Config, training: dict[str, Any], state: dict[str, Any] | None
) -> None:
    (folder / CONFIG).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors makes files that nobody else may read
    training = {**training, "sha256": sha256(folder / WEIGHTS)}
    (folder / TRAINING).write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
    if state is not None:
        torch.save(state, folder / STATE)


def recover(folder: Path) -> None:
    """Puts the previous checkpoint back where a save was killed between its two renames."""
    previous = folder.with_name(f".{folder.name}.previous")
    if previous.exists() and not folder.exists():
        with suppress(FileNotFoundError):  # another process of the run was faster
            previous.rename(folder)


def load_model(folder: str | Path, *, device: str | torch.device = "cpu") -> Network:
    """The network of a checkpoint folder or of shipped weights by name, APN or a baseline, in evaluation mode.

    Call it on float RGB (B, 3, H, W) in [0, 1].

    Raises ValueError that names the file and what is missing or does not fit.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file() and (WEIGHTS_FOLDER / folder / CONFIG).is_file():
        folder = WEIGHTS_FOLDER / folder
    model = build_network(read_checkpoint_config(folder).model, offline=True)
    load_weights(model, folder)
    return model.to(device).eval()


def read_checkpoint_config(folder: Path) -> Config:
    """The settings that a checkpoint was trained with."""
    if not (folder / CONFIG).is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:5]) or "nothing"
        raise ValueError(f"no checkpoint in {folder}: expected {WEIGHTS} and {CONFIG}, found {found}")
    return read_config(folder / CONFIG)


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that hold infinities or NaN, as those of a training that diverged do."""
    return [name for name, value in weights.items() if not value.isfinite().all()]


def load_weights(model: nn.Module, folder: Path) -> None:
    """Fills `model` from the folder's safetensors; every missing, unexpected or mis-shaped tensor is named.

    Raises ValueError then, and where a number is not finite: such a network has no verdicts.
    """
    try:
        weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read {folder / WEIGHTS}: {error}") from error
    if bad := not_finite(weights):
        raise ValueError(
            f"{folder / WEIGHTS}: expected finite numbers, found others in {len(bad)} of {len(weights)} tensors, the "
            f"first {bad[0]}: its training diverged"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit its {CONFIG}: {error}") from error


def read_training(folder: Path) -> dict[str, Any]:
    """The facts beside the weights: step, metrics, data, sha256. Raises ValueError where they cannot be read."""
    try:
        return json.loads((folder / TRAINING).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {folder / TRAINING}, the facts of a checkpoint: {error}") from error


def load_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given to resume from.

    Raises ValueError where the checkpoint is for inference only, or its state cannot be read.
    """
    if not (folder / STATE).is_file():
        raise ValueError(f"cannot resume from {folder}: expected {STATE} beside the weights, as `apn train` saves it")
    try:
        return torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:  # cut off, most likely
        size = (folder / STATE).stat().st_size
        raise ValueError(
            f"cannot resume from {folder}: expected {STATE} as `apn train` saves it, found {size:,} bytes that "
            f"cannot be read ({error}); the weights beside it may still be good"
        ) from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
