"""`APN.detect_only` gives the logits of the network that it was made from, without what inference does not need."""

from typing import Any

import pytest
import torch
from tiny import LOOKS, noise, tiny_model
from torch import Tensor, nn

from apn.models.apn import APN
from apn.models.detect import DetectOnly
from apn.models.folding import folded, frozen_copy
from apn.models.joint_proposers import JointProposers, side_by_side

SETTINGS: dict[str, dict[str, Any]] = {
    "hard": {"bands": "hard", "spatial_backbone": "resnet18"},
    "many soft bands": {"bands": "soft", "band_count": 16},
    "every switch": {
        "bands": "straight-through",
        "band_rows": "symmetric",
        "band_suppression": True,
        "view": "residual",
        "spatial_normalize": True,
        "band_normalize": True,
        "channel_order": "bgr",
    },
    "compared": {"view": "residual", "spatial_reference": "median", "spatial_backbone": "resnet18"},
    "more looks": {
        "spatial_backbone": "resnet18",
        "further_looks": LOOKS,
    },
    "light bands": {"spatial_backbone": "resnet18", "frequency_weight": 0.2},
    "convnext": {"spatial_backbone": "test_convnext", "band_encoder": "resnet18"},
    "lite": {"spatial_backbone": "tf_efficientnet_lite0"},
}


def lively_model(**changes: Any) -> APN:
    """As if it was trained: batch norms with statistics of their own, layer scales that let something through."""
    model = tiny_model(embedding_dim=240, **changes)  # ten units before the logits, not two: some are alive
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("running_var", "gamma")):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(std=0.1)
        for layer in model.classifier[::2]:
            layer.weight *= 3
            layer.bias.abs_()  # so that not all of a layer ends at ReLU's zero
    return model.eval()


def batch_norms(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)]


@torch.inference_mode()
@pytest.mark.parametrize("name", SETTINGS)
def test_the_logits_are_those_of_the_whole_network(name: str) -> None:
    model, image = lively_model(**SETTINGS[name]), noise(3) * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1, 1)
    expected = model(image).logits
    network = model.detect_only()
    torch.testing.assert_close(network(image), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(DetectOnly(model, images_at_once=2)(image), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(network.together(image), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(DetectOnly(model, plain=True)(image), expected, atol=1e-4, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 1e-3  # images do differ
    assert network(image[:0]).shape == (0, 2)


@torch.inference_mode()
def test_the_bands_are_those_of_the_four_proposers() -> None:
    branch = lively_model(band_count=7).frequency
    spectrum = branch.fourier(noise(2))
    found = JointProposers(branch.amplitude_proposer, branch.phase_proposer)(spectrum)
    for axis, expected in zip(found.axes(), branch.propose(spectrum).axes(), strict=True):
        for edge, wanted in zip(axis, expected, strict=True):
            torch.testing.assert_close(edge, wanted, atol=1e-5, rtol=0)
    assert found.amplitude.rows.start.std() > 0.01


@pytest.mark.parametrize("name", ["convnext", "lite"])
def test_what_inference_does_not_need_is_gone_and_the_network_as_it_was(name: str) -> None:
    model = lively_model(**SETTINGS[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = {key: part.training for key, part in model.named_modules()}
    network = model.detect_only(dtype=torch.bfloat16)
    names = [key for key, _ in [*network.named_parameters(), *network.named_buffers()]]
    assert not any("irrelevant" in key or key.endswith("gamma") for key in names)
    assert not batch_norms(network.band_trunk)
    assert not any(batch_norms(look) for look in network.looks)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert modes == {key: part.training for key, part in model.named_modules()}
    for key, value in model.state_dict().items():
        assert value.dtype == before[key].dtype
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_weights_that_do_not_change_are_shared() -> None:
    model = tiny_model().eval()
    network = model.detect_only()
    assert network.classifier[0].weight.data_ptr() == model.classifier[0].weight.data_ptr()
    copied = frozen_copy(model.classifier)
    assert not copied[0].weight.requires_grad
    assert model.classifier[0].weight.requires_grad


@torch.inference_mode()
def test_in_bfloat16_the_trunks_round_and_nothing_else() -> None:
    model, image = lively_model(**SETTINGS["more looks"]), noise(3) * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1, 1)
    exact, rounded = model.detect_only(), model.detect_only(dtype=torch.bfloat16)
    torch.testing.assert_close(rounded.purified(image), exact.purified(image), rtol=0, atol=0)
    for trunk in (rounded.band_trunk, *(look.trunk for look in rounded.looks)):
        assert {value.dtype for value in trunk.parameters()} == {torch.bfloat16}
    expected, found = exact(image), rounded(image)
    assert found.dtype == torch.float32
    gap = (found - expected).abs().max()
    assert 0 < gap < 0.1 * (expected[0] - expected[2]).abs().max()


def test_another_shape_is_quoted() -> None:
    with pytest.raises(ValueError, match=r"expected images \(B, 3, 64, 64\), found \(1, 3, 65, 64\)"):
        tiny_model().detect_only()(torch.zeros(1, 3, 65, 64))


class Shared(nn.Module):
    """One convolution for two norms, then one that branches on values."""

    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.branches = branches
        self.conv = nn.Conv2d(3, 3, 3)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, image: Tensor) -> Tensor:
        if self.branches and image.mean() > 0:
            return self.first(self.conv(image))
        return self.first(self.conv(image)) + self.second(self.conv(image.flip(-1)))


@pytest.mark.parametrize("branches", [False, True])
def test_norms_that_cannot_be_folded_stay(branches: bool) -> None:
    module, image = Shared(branches).eval(), noise(1)
    copied = folded(module)
    assert batch_norms(copied) == ["first", "second"]
    torch.testing.assert_close(copied(image), module(image))


@pytest.mark.parametrize(("groups", "kernel"), [(1, 1), (3, 3)])
def test_side_by_side_each_convolution_sees_its_own_channels(groups: int, kernel: int) -> None:
    convolutions = [nn.Conv2d(3, 3, kernel, padding=kernel // 2, groups=groups) for _ in range(4)]
    image = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    apart = [convolution(part) for convolution, part in zip(convolutions, image.chunk(4, dim=1), strict=True)]
    torch.testing.assert_close(side_by_side(convolutions)(image), torch.cat(apart, dim=1))
