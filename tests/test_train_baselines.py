"""Baselines go through the same training, checkpoints, detector and export as APN."""

import io
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.test_baselines import SMALL
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter

import apn
import apn.step
from apn.checkpoint import load_model, load_state, read_training, save_checkpoint
from apn.config import Config, validate
from apn.data.layouts import read_data
from apn.export import export_graph
from apn.image import load_image
from apn.models.build import build_network
from apn.train import TrainResult, train

# Steps that suffice, with trunks small enough to wait for.
STEPS = {"classifier": 20, "spec": 25, "gramnet": 20, "univfd": 60, "lgrad": 100, "npr": 10, "f3net": 30}
RATES = {"univfd": 2e-2, "f3net": 1e-3}
SLOW = ("f3net", "lgrad")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy blobs; the generated ones made at half the size and doubled, as up-sampling generators do."""
    folder = tmp_path_factory.mktemp("toy")
    for i in range(60):
        rng, label = np.random.default_rng(i), i % 2
        small = gaussian_filter(rng.normal(128, 300, (80 >> label, 80 >> label, 3)), (4 >> label, 4 >> label, 0))
        noisy = small + rng.normal(0, 12, small.shape)
        pixels = noisy.repeat(1 + label, axis=0).repeat(1 + label, axis=1).clip(0, 255).astype(np.uint8)
        path = folder / ("generated" if label else "real") / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def toy_config(toy: Path, architecture: str, **changes: Any) -> Config:
    trunk = {**SMALL.get(architecture, {}), **({"backbone": "test_resnet"} if architecture == "classifier" else {})}
    values = {
        "name": "toy",
        "model": {"architecture": architecture, "image_size": 64, "pretrained": False, **trunk},
        "data": {"train": str(toy), "validation": 0.3, "workers": 0, "degradations": {"codec_last": "none"}},
        "train": {"batch_size": 8, "learning_rate": 1e-3, "warmup_steps": 2, "precision": "32-true", **changes},
    }
    return validate(Config, values, "toy")


def run(config: Config, out: Path, **options: Any) -> TrainResult:
    return train(config, out, accelerator="cpu", console=Console(file=io.StringIO()), **options)


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in STEPS]
)
def test_learns_the_toy_set(architecture: str, toy: Path, tmp_path: Path) -> None:
    steps, rate = STEPS[architecture], RATES.get(architecture, 3e-3)
    config = toy_config(toy, architecture, steps=steps, learning_rate=rate, schedule="cosine", validate_every=1000)
    result = run(config, tmp_path / "run")
    assert (result.step, result.metrics["images"]) == (steps, 18)
    assert result.metrics["auc"] > 0.95
    training = read_training(tmp_path / "run/last")
    assert (training["step"], training["backbone_start"]) == (steps, "random")


def test_resumed_after_ctrl_c_equals_never_stopped_bit_for_bit(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gram-Net tosses coins: it has dropout."""
    config = toy_config(toy, "gramnet", steps=4)
    run(config, tmp_path / "whole")
    step = apn.step.classification_step

    def interrupted(*arguments: Any) -> Any:
        if arguments[-1] == 1:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(apn.step, "classification_step", interrupted)
        assert run(config, tmp_path / "parts").step == 2
    run(config, tmp_path / "parts", resume=tmp_path / "parts")
    weights, expected = (load_file(tmp_path / name / "last/model.safetensors") for name in ("parts", "whole"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    states = [load_state(tmp_path / name / "last") for name in ("parts", "whole")]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_a_backbone_may_have_a_rate_of_its_own_and_frozen_parts_none(toy: Path) -> None:
    for architecture, backbone in {"npr": 1e-5, "univfd": None}.items():
        config = toy_config(toy, architecture, steps=1, backbone_learning_rate=1e-5)
        trainee = apn.step.build_trainee(config)
        rates = {id(p): group["lr"] for group in trainee.model_optimizer.param_groups for p in group["params"]}
        for name, parameter in trainee.model.named_parameters():
            assert rates.get(id(parameter)) == (backbone if name.startswith("backbone.") else 1e-3), name
        assert trainee.club_optimizer is None


# Checkpoints, the detector, export -----------------------------------------------------------------------------------


def saved(folder: Path, architecture: str) -> Config:
    """A checkpoint with weights and batch norm statistics that are not those of a fresh network."""
    config = toy_config(folder, architecture, steps=1)
    torch.manual_seed(0)
    model = build_network(config.model).train()
    with torch.no_grad():
        for seed in range(3):
            model(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
    save_checkpoint(folder, model, config, {"step": 1})
    return config


@pytest.mark.parametrize("architecture", SMALL)
def test_the_detector_scores_a_baselines_checkpoint(architecture: str, toy: Path, tmp_path: Path) -> None:
    config = saved(tmp_path / "last", architecture)
    detector = apn.load(tmp_path / "last", backend="torch")
    assert detector.crop_size == 64
    path = read_data(toy)[0].path
    row = detector.detect(path, stability=False)
    model = load_model(tmp_path / "last")
    assert type(model) is type(build_network(config.model))
    pixels = load_image(path).pixels
    crops = np.stack([pixels[tile.top : tile.top + 64, tile.left : tile.left + 64] for tile in row.tiles])
    with torch.inference_mode():
        logits = model(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255).logits
    assert row.logit == pytest.approx((logits[:, 1] - logits[:, 0]).mean().item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "architecture",
    ["spec", *(pytest.param(n, marks=pytest.mark.slow) for n in ("classifier", "gramnet", "univfd", "npr", "f3net"))],
)
def test_the_exported_graph_computes_the_same(architecture: str, tmp_path: Path) -> None:
    """`export_graph` compares the numbers itself and refuses a graph that differs by 1e-4."""
    saved(tmp_path / "last", architecture)
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    comparison = export_graph(tmp_path / "last", tmp_path / "last/model.onnx", crops)
    assert comparison.images == 3
    row = apn.load(tmp_path / "last", backend="onnx").detect(crops[0], stability=False)
    assert row.logit == pytest.approx(apn.load(tmp_path / "last", backend="torch").detect(crops[0]).logit, abs=1e-4)


def test_what_needs_more_than_a_forward_pass_has_no_graph(tmp_path: Path) -> None:
    saved(tmp_path / "last", "lgrad")
    with pytest.raises(ValueError, match="no graph of LGrad: its input is a gradient"):
        export_graph(tmp_path / "last", tmp_path / "model.onnx", np.zeros((1, 64, 64, 3), np.uint8))
    assert not (tmp_path / "model.onnx").exists()


def test_loss_settings_of_apn_are_refused_for_a_baseline() -> None:
    with pytest.raises(ValueError, match=r"\[loss\] is APN's: npr learns by cross entropy alone"):
        validate(Config, {"model": {"architecture": "npr"}, "loss": {"information": 0}}, "some.toml")
