"""bench/inference.py: its baseline is APN, its numbers are measured, a row that fails does not stop the others."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import LOOKS, noise, tiny_config, tiny_model

from apn.checkpoint import save_checkpoint
from apn.config import Config
from apn.data.transforms import align

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import graphs
import inference
import memory
from graphs import PARTS, write
from inference_rows import ROWS, Job
from made_images import JUDGED, RANGES, crops_for, made_crops
from networks import fit, prepare, set_linear
from restatement import Restatement


@torch.inference_mode()
@pytest.mark.parametrize(
    "changes",
    [
        {"channel_order": "bgr", "band_count": 4},
        {"bands": "straight-through", "band_rows": "symmetric", "spatial_normalize": True, "band_normalize": True},
        {"spatial_reference": "median", "view": "residual", "spatial_backbone": "resnet18"},
        {
            "spatial_backbone": "resnet18",
            "further_looks": LOOKS,
            "frequency_weight": 0.2,
        },
    ],
)
def test_the_restatement_is_the_network(changes: dict[str, Any]) -> None:
    model, image = (
        tiny_model(embedding_dim=240, **changes).eval(),
        noise(3) * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1, 1),
    )
    with torch.no_grad():
        for layer in model.classifier[::2]:
            layer.weight *= 3
    expected = model(image).logits
    torch.testing.assert_close(Restatement(model)(image), expected, atol=1e-5, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 1e-4


def test_what_the_official_code_has_not_has_no_baseline() -> None:
    with pytest.raises(ValueError, match="hard bands without suppression"):
        Restatement(tiny_model(bands="soft"))


@torch.no_grad()
def test_a_fitted_head_says_what_the_fit_says() -> None:
    rng = np.random.default_rng(0)
    embedding, labels = rng.normal(size=(40, 48)).astype(np.float32), np.arange(40) % 2
    embedding[labels == 1, 3] += 3
    weight, bias = fit(embedding, labels)
    classifier = tiny_model().classifier
    set_linear(classifier, weight, bias)
    logits = classifier(torch.from_numpy(embedding))
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], torch.from_numpy(embedding) @ weight + bias)
    assert ((logits[:, 1] > logits[:, 0]).numpy() == (labels == 1)).mean() > 0.9


def test_made_crops_are_of_two_kinds_and_the_seeds_own() -> None:
    crops, labels = made_crops(8, size=64)
    assert crops.shape == (8, 64, 64, 3)
    assert labels.tolist() == [0, 1] * 4
    assert np.array_equal(crops, made_crops(8, size=64)[0])
    assert not np.array_equal(crops, made_crops(8, seed=1, size=64)[0])
    steps = np.abs(np.diff(crops.astype(float), axis=2)).mean((1, 3))  # (N, 63): from one column to the next
    inside = steps[:, ::2].mean(1) / steps[:, 1::2].mean(1)  # doubled pixels are alike
    assert inside[labels == 1].max() < 0.8 < inside[labels == 0].min()


def test_given_crops_are_centres_and_ranges_come_from_others(tmp_path: Path) -> None:
    rows, pixels = [], {}
    for i in range(8):
        path = tmp_path / f"{i}.png"
        pixels[i] = np.random.default_rng(i).integers(0, 256, (70, 80, 3), np.uint8)
        Image.fromarray(pixels[i]).save(path)
        rows.append(json.dumps({"path": path.name, "label": i % 2}))
    data = tmp_path / "manifest.jsonl"
    data.write_text("\n".join(rows), encoding="utf-8")
    judged, ranges = (crops_for(seed, 4, 64, str(data)) for seed in (JUDGED, RANGES))
    known = [align(one, 64).tobytes() for one in pixels.values()]
    assert sorted(crop.tobytes() for crop in (*judged, *ranges)) == sorted(known)  # all eight, each once
    assert np.array_equal(crops_for(JUDGED, 2, 64, str(data)), judged[:2])
    assert np.array_equal(crops_for(JUDGED, 1, 64, str(data), after=3), judged[3:])
    assert np.array_equal(crops_for(JUDGED, 2, 64, None, after=1), crops_for(JUDGED, 3, 64, None)[1:])
    with pytest.raises(ValueError, match=r"expected at least 10 images in .*, found 8"):
        crops_for(RANGES, 2, 64, str(data), after=3)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A checkpoint `tiny`, and what is expected of it."""
    save_checkpoint(tmp_path / "tiny", tiny_model().eval(), Config(name="tiny", model=tiny_config()), {})
    prepare("tiny", tmp_path / "tiny", tmp_path, count=6)
    return tmp_path


@pytest.mark.slow
def test_crops_are_as_large_as_the_network_takes_them(work: Path, tmp_path: Path) -> None:
    with np.load(work / "tiny-expected.npz") as expected:
        np.testing.assert_array_equal(expected["crops"], made_crops(6, seed=1, size=64)[0])
    write(work / "tiny", tmp_path / "graphs", "openvino", range_images=2)  # runs each part on such a crop
    written = {path.stem for path in (tmp_path / "graphs" / "openvino").glob("*.xml")}
    assert written == set(PARTS)


def measure(row: str, work: Path, **changes: Any) -> inference.Measured:
    options = argparse.Namespace(**{"batch": 4, "repeats": 2, "verdicts": True} | changes)
    return inference.measure(row, "tiny", Job(work / "tiny", work, torch.get_num_threads()), work, options)


def test_rows_of_torch_give_the_logits_and_are_timed(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_timed", lambda run, batch: run(batch)[0, 0] * 0 + 0.5)
    for row in ("baseline", "eager", "detect_only"):
        found = measure(row, work)
        assert found.images_per_second == 4 / 0.5
        assert found.difference < 1e-5
        assert found.verdicts is None  # nothing may differ there
    rounded = measure("bf16", work)
    assert 0 < rounded.difference < 0.1
    assert rounded.verdicts is not None
    assert 0 <= rounded.verdicts <= 1


def test_an_exact_row_that_is_wrong_is_marked(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "eager", ROWS["eager"]._replace(open=lambda job: lambda crops: np.ones((len(crops), 2))))
    found = measure("eager", work)
    assert found.difference > 0.1
    assert "above 0.0001**" in inference.cells("eager", found, None)
    assert "above" not in inference.cells("bf16", found, None)  # it may round
    assert "above" in inference.cells("eager", found._replace(difference=float("nan")), None)


def test_a_row_that_fails_is_a_line_and_the_next_has_its_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    class Bench:
        options = argparse.Namespace(verdict_images=0)

        def prepare(self, model: str) -> None:
            pass

        def run(self, model: str, row: str, batch: int, verdicts: bool) -> inference.Measured:
            if row == "compiled":
                raise ValueError("no compiler")
            return inference.Measured(
                {"baseline": 2.0, "bf16": 9.0}[row], {"baseline": 800, "bf16": 300}[row], 0.001, 1.0
            )

    inference.table(Bench(), ["base"], ["baseline", "compiled", "bf16"], [4])  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("| base | compiled | 4 | not run: no compiler |")
    assert lines[-1] == "| base | bf16 | 4 | 9.00 | 4.50 x | 300 | 38% | 0.001 | 100.0% |"
    assert len({line.count("|") for line in lines}) == 1


def test_a_script_that_fails_is_quoted() -> None:
    with pytest.raises(ValueError, match=r"can't open file .*no-such-script\.py"):
        inference.call("no-such-script.py", threads=1)


@pytest.mark.skipif(not memory.FORGET.exists(), reason="needs Linux")
def test_a_peak_is_seen_and_forgotten() -> None:
    before = memory.resident()
    block = bytearray(64 << 20)
    assert memory.resident() > before + 60
    del block
    assert memory.peak() > before + 60
    memory.forget_peak()
    assert memory.peak() < before + 60


@pytest.mark.parametrize("words", [[], ["run", "out", "int9.onnx", "4"]])
def test_graphs_says_what_it_takes(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["graphs.py", *words])
    with pytest.raises(SystemExit) as ended:
        graphs.main()
    assert ended.value.code == 2
    assert "checkpoint out {model.onnx,int8.onnx,openvino,openvino-int8}" in " ".join(capsys.readouterr().err.split())
