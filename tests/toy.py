"""A data set that a tiny network learns in seconds, and the settings of a run on it."""

import io
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.ndimage import gaussian_filter
from tiny import tiny_config

import apn.step
from apn.config import Config, DataConfig, DegradationConfig, LossConfig, TrainConfig
from apn.data.samples import read_samples, write_manifest
from apn.train import TrainResult, train


def make_toy(folder: Path, images: int = 80) -> Path:
    """Smooth noise as photographs; as generated images the same with a faint grid of period 2, as up-sampling leaves.

    `split_group` pairs images two by two within a class.
    """
    grid = 14 * (-1.0) ** np.add.outer(np.arange(80), np.arange(80))[..., None]
    for i in range(images):
        rng, label = np.random.default_rng(i), i % 2
        smooth = gaussian_filter(rng.normal(0, 1, (80, 80, 3)), (3, 3, 0))
        pixels = 128 + 150 * smooth + rng.normal(0, 4, smooth.shape) + label * grid
        path = folder / ("generated" if label else "real") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    samples = [sample._replace(split_group=f"pair {int(sample.path.stem) // 4}") for sample in read_samples(folder)]
    write_manifest(samples, folder / "manifest.jsonl")
    return folder


def toy_config(toy: Path, *, model: dict[str, Any] | None = None, **changes: Any) -> Config:
    settings: dict[str, Any] = {
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "club_steps": 1,
        "warmup_steps": 2,
        "precision": "32-true",
        "log_every": 1,
    }
    return Config(
        name="toy",
        model=tiny_config(**{"bands": "straight-through", "band_rows": "symmetric"} | (model or {})),
        loss=LossConfig(artifact_agreement=0.05, irrelevant_agreement=0.05, information=0.1),
        data=DataConfig(train=str(toy), validation=0.25, workers=0, degradations=DegradationConfig(codec_last="none")),
        train=TrainConfig(**settings | changes),
    )


def run(config: Config, out: Path, **options: Any) -> TrainResult:
    return train(config, out, accelerator="cpu", console=Console(file=io.StringIO()), **options)


def logged(out: Path, name: str) -> list[float]:
    rows = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [row[name] for row in rows if name in row]


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, number: signal.Signals = signal.SIGINT) -> None:
    """Sends the signal in the middle of a step."""
    half = apn.step.apn_half

    def interrupted(*arguments: Any) -> Any:
        if arguments[-1] == step:
            signal.raise_signal(number)
        return half(*arguments)

    monkeypatch.setattr(apn.step, "apn_half", interrupted)
