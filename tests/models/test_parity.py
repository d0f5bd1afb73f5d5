"""The network, with official weights, computes what the public code computed."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from golden_rule import error, golden_arrays, golden_images, official_state

from apn.models.apn import APN, APNOutput
from apn.official import import_official

FIELDS = {
    "logits": "logits",
    "logits_frequency": "logits_f",
    "logits_spatial": "logits_s",
    "artifact_frequency": "generative_feature_frequency",
    "irrelevant_frequency": "semantic_feature_frequency",
    "artifact_spatial": "generative_feature_spital",
    "irrelevant_spatial": "semantic_feature_spital",
    "band_weights": "proposal_p",
}
AXES = {"rows": "x", "columns": "y"}
EDGES = {"confidence": "p", "start": "c_1", "end": "c_2"}


@pytest.fixture(scope="module")
def golden() -> Mapping[str, np.ndarray]:
    return golden_arrays("official_forward.npz")


@pytest.fixture(scope="module", params=["convnext_base", "resnet50", "resnet18"])
def official(request: pytest.FixtureRequest) -> tuple[str, APN]:
    return request.param, import_official(official_state(request.param))


@torch.inference_mode()
def test_outputs_and_bands_are_the_official_ones(official: tuple[str, APN], golden: Mapping[str, np.ndarray]) -> None:
    name, model = official
    output: APNOutput = model(golden_images().flip(1))  # the model takes RGB and turns it
    errors = {ours: error(getattr(output, ours), golden[f"{name}.{theirs}"]) for ours, theirs in FIELDS.items()}
    assert max(errors.values()) < 1e-5, errors
    edges = {
        f"{component}.{axis}.{edge}": error(
            getattr(getattr(getattr(output.proposals, component), axis), edge), golden[f"{component}.{x}.{p}"]
        )
        for component in ("amplitude", "phase")
        for axis, x in AXES.items()
        for edge, p in EDGES.items()
    }
    assert max(edges.values()) < 1e-4, edges
    assert output.proposals.amplitude.rows.end.max() > 1  # as emitted: not yet clamped or voided


@torch.inference_mode()
def test_purified_and_residual_images_are_the_official_ones(
    official: tuple[str, APN], golden: Mapping[str, np.ndarray]
) -> None:
    _, model = official
    purified, residual, _ = model.frequency.split(golden_images())  # below APN, so in the official order
    assert residual is not None
    assert error(purified[:, [0, 5, 10], :, :16, :16], golden["purified"]) < 1e-6
    for part, images in {"purified": purified, "residual": residual}.items():
        assert error(images.mean((-1, -2)), golden[f"{part}_mean"]) < 1e-6
        assert error(images.std((-1, -2), correction=0), golden[f"{part}_std"]) < 1e-6
