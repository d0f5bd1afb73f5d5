"""An exported graph computes what the checkpoint computes, at any batch size, or is not written."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny import LOOKS, tiny_config
from torch import nn

import apn.export
from apn.backends import find_weights, onnx_backend, onnx_batch_backend, to_input
from apn.checkpoint import load_model, save_checkpoint, sha256
from apn.config import Config
from apn.export import Comparison, ExportMismatchError, compare, comparison_crops, export_graph
from apn.metrics import probabilities
from apn.models.apn import APN
from apn.quantize import quantize

SETTINGS = {
    "soft": tiny_config(bands="soft", band_count=16),
    # All else in one network, with both references: each further network is half a minute of export.
    "hard": tiny_config(
        spatial_backbone="resnet18",
        spatial_reference="jpeg",
        further_looks=[
            *LOOKS,
            {"view": "residual", "backbone": "tf_efficientnet_lite0_logstats1"},
            {"view": "pixels", "backbone": "cosines_colour", "reference": "jpeg"},
        ],
        bands="straight-through",
        band_rows="symmetric",
        band_suppression=True,
        view="residual",
        spatial_normalize=True,
        band_normalize=True,
        channel_order="bgr",
    ),
}


def crops(count: int, seed: int = 0) -> np.ndarray:
    """(N, 64, 64, 3) uint8: noise over a slope, so that amplitudes span orders of magnitude as in pictures."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 150, 64)[:, None, None]
    return (slope * rng.random((count, 1, 1, 3)) + rng.uniform(0, 100, (count, 64, 64, 3))).astype(np.uint8)


def checkpoint(folder: Path, name: str) -> Path:
    """A network whose logits differ between pictures: normalised for them, and with a steep classifier."""
    torch.manual_seed(0)
    model = APN(SETTINGS[name]).train()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # statistics of the pictures below, at once
        model(torch.from_numpy(to_input(crops(8, seed=1))))
        for layer in model.classifier[::2]:
            layer.weight *= 4
    save_checkpoint(folder / name, model, Config(name=name, model=SETTINGS[name]), {})
    return folder / name


def expected_logits(folder: Path, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return load_model(folder)(torch.from_numpy(to_input(images))).logits.numpy()


def assert_equal_numbers(run: Callable[[np.ndarray], np.ndarray], folder: Path) -> None:
    for batch in (1, 3, 8):
        images = crops(batch, seed=batch)
        expected, found = expected_logits(folder, images), run(images)
        assert found.shape == (batch, 2)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1)
        assert np.abs(probabilities(found) - probabilities(expected)).max() < 1e-4
    assert expected[:, 1].std() > 0.01  # pictures do differ


@pytest.fixture(scope="module", params=SETTINGS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and its ONNX graph."""
    folder = checkpoint(tmp_path_factory.mktemp("export"), request.param)
    out = folder.parent / "graphs" / "model.onnx"
    comparison = export_graph(folder, out, crops(2))
    assert comparison.images == 2
    assert 0 < max(comparison.probability, comparison.logit) < 1e-4
    return folder, out


def test_onnx_equals_pytorch_at_any_batch_size(exported: tuple[Path, Path]) -> None:
    folder, out = exported
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]  # weights inside
    props = [(one.key, one.value) for one in onnx.load(out).metadata_props]
    assert props == [("weights_sha256", sha256(folder / "model.safetensors"))]
    assert_equal_numbers(onnx_batch_backend(out), folder)
    assert_equal_numbers(onnx_backend(out, threads=2), folder)


def test_weights_of_another_checkpoint_are_not_exported(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "soft")
    recorded = sha256(folder / "model.safetensors")
    save_checkpoint(tmp_path / "others", APN(SETTINGS["soft"]), Config(name="others", model=SETTINGS["soft"]), {})
    shutil.copy(tmp_path / "others" / "model.safetensors", folder)
    found = sha256(folder / "model.safetensors")
    told = rf"model\.safetensors the weights that training\.json is of \(sha256 {recorded}\), found others \({found}\)"
    for export in (lambda out: export_graph(folder, out, crops(1)), lambda out: quantize(folder, out, str(tmp_path))):
        with pytest.raises(ValueError, match=told):
            export(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("exported", ["soft"], indirect=True)
def test_openvino_equals_pytorch_at_any_batch_size(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    folder, onnx = exported
    out = tmp_path / "model.xml"
    monkeypatch.setattr(apn.export, "write_onnx", lambda graph, path: shutil.copy(onnx, path))  # made once above
    export_graph(folder, out, crops(2), file_format="openvino")
    assert {path.name for path in tmp_path.iterdir()} == {"model.xml", "model.bin"}
    graph = openvino.compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_equal_numbers(lambda images: graph(to_input(images))[0], folder)
    with pytest.raises(ValueError, match=r"expected an .xml file for OpenVINO .*, found .*model.onnx"):
        export_graph(folder, tmp_path / "model.onnx", crops(2), file_format="openvino")


def test_the_shipped_weights_are_the_same_in_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of their looks rounds: at halves, which whole numbers often make, no runtime may come out on another side.

    And nobody is told of the conversion, as OpenVINO's own converter would tell its maker.
    """
    pytest.importorskip("openvino")
    sent: list[object] = []
    telemetry = pytest.importorskip("openvino_telemetry").Telemetry
    monkeypatch.setattr(telemetry, "send_event", lambda self, *event, **fields: sent.append(event))
    weights = find_weights("apn-mini")
    monkeypatch.setattr(apn.export, "write_onnx", lambda graph, path: shutil.copy(weights / "model.onnx", path))
    found = export_graph(weights, tmp_path / "model.xml", comparison_crops(weights), file_format="openvino")
    assert found.logit < 1e-5
    assert sent == []


def test_nobody_is_told_that_openvino_is_imported() -> None:
    """In a process of its own, since it tells its maker once, where it is imported first."""
    pytest.importorskip("openvino")
    telling = "import openvino_telemetry as t; t.Telemetry.send_event = lambda self, *event, **fields: print(event)"
    importing = "from apn.backends import import_openvino; print(import_openvino().__name__); import openvino_telemetry"
    done = subprocess.run([sys.executable, "-c", f"{telling}\n{importing}"], capture_output=True, text=True, check=True)
    assert done.stdout == "openvino\n"


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_graph_that_differs_is_refused_and_not_written(
    wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that answers a little wrong, or nothing, for batches of more than one."""
    folder = checkpoint(tmp_path, "hard")

    def off(graph: Path) -> Callable[[np.ndarray], np.ndarray]:
        assert graph.is_file()
        return lambda images: expected_logits(folder, images) + np.float32(wrong if len(images) > 1 else 0)

    monkeypatch.setattr(apn.export, "write_onnx", lambda graph, path: path.touch())
    monkeypatch.setattr(apn.export, "onnx_batch_backend", off)
    with pytest.raises(ExportMismatchError, match=r"the onnx graph of .*hard differs from PyTorch by .* nothing was"):
        export_graph(folder, tmp_path / "out" / "model.onnx", crops(3))
    assert not (tmp_path / "out").exists()


def test_a_graph_replaces_no_checkpoint(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"expected an .onnx file, found .*model.safetensors"):
        export_graph(tmp_path, weights, crops(1))
    with pytest.raises(ValueError, match=r"expected an .onnx file, found .*model.safetensors"):
        quantize(tmp_path, weights, str(tmp_path))
    assert weights.read_bytes() == b"weights"


def test_comparison_runs_crops_together_and_alone() -> None:
    """Values by hand: right together; alone the second crop gets the logits of the first."""
    expected = np.array([[0, 2], [-4, 4]], np.float32)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    found = compare(lambda crops: expected[: len(crops)], images, expected)
    assert found.images == 2
    assert found.logit == pytest.approx(4 / 4)  # |0 - -4|, over the largest logit
    assert found.probability == pytest.approx(1 / (1 + np.exp(-8)) - 1 / (1 + np.exp(-2)))
    assert compare(lambda crops: expected[:1], images[:1], expected[:1]) == Comparison(1, 0.0, 0.0)


def test_the_shipped_graph_names_no_file_of_the_machine_that_made_it() -> None:
    model = onnx.load(Path(apn.export.__file__).parent / "weights/apn-mini/model.onnx")
    for tensor in model.graph.initializer:  # among millions of weights any three bytes are there
        tensor.ClearField("raw_data")
    graph = model.SerializeToString()
    assert len(model.graph.node) > 100
    assert b".py" not in graph
    assert b"stack_trace" not in graph
