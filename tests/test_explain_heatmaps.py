"""LayerCAM against numbers worked out by hand, for every kind of backbone; the network is left as it was."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import efficientnet_lite0
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from tiny import LOOKS, noise, tiny_model
from torch import Tensor, nn

from apn.heatmaps import CELLS, cam_site, coarsen, enlarge, normalize, smoothed, stitch, summed, tile_maps
from apn.models.apn import APN
from apn.models.backbones import build_backbone
from apn.models.statistics import StageStatistics, statistics

BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "convnext": lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 16, 24), num_classes=0),
    "resnet": lambda: ResNet(BasicBlock, (1, 1, 1, 1), channels=(8, 8, 16, 24), num_classes=0),
    "efficientnet": lambda: efficientnet_lite0(num_classes=0),
    "swin": lambda: SwinTransformer(
        img_size=64, window_size=4, embed_dim=16, depths=(1, 1, 1), num_heads=(2, 2, 2), num_classes=0
    ),
}


class Weights(nn.Module):
    """Band weights that do not depend on the features: 0.3, 0.7 and so on."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.linspace(0.3, 0.7, features.shape[1]).expand(len(features), -1)[..., None]


def model_with(backbone: nn.Module, **changes: Any) -> APN:
    """A tiny APN that looks at the image with this backbone, and whose heads are linear."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = tiny_model(**changes)
        model.spatial.backbone = backbone
        model.spatial.head = nn.Sequential(nn.Linear(backbone.num_features, 48))  # type: ignore[arg-type]
        model.classifier = nn.Sequential(nn.Linear(48, 2))
        model.frequency.band_weights = Weights()  # type: ignore[assignment]
    return model.eval()


def state(model: nn.Module) -> tuple[int, list[bool], bool]:
    hooks = sum(len(part._forward_hooks) + len(part._backward_hooks) for part in model.modules())
    learns = [parameter.requires_grad for parameter in model.parameters()]
    return hooks, learns, all(parameter.grad is None for parameter in model.parameters())


def test_fine_maps_become_the_means_of_blocks_and_coarse_ones_stay() -> None:
    fine = np.random.default_rng(0).random((2, 3 * CELLS, 2 * CELLS), np.float32)
    blocks = fine.reshape(2, CELLS, 3, CELLS, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(coarsen(fine), blocks, rtol=1e-5)
    np.testing.assert_array_equal(coarsen(fine[:, :7, :7]), fine[:, :7, :7])


def test_smoothing_keeps_the_mean_and_spreads_a_place_as_a_gaussian_does() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 20, 7)).astype(np.float32)
    np.testing.assert_allclose(smoothed(maps).mean(axis=(1, 2)), maps.mean(axis=(1, 2)), atol=1e-6)
    place = np.zeros((1, 41, 41), np.float32)
    place[0, 20, 20] = 1
    rows, columns = np.mgrid[-20:21, -20:21]
    bell = np.exp(-(rows**2 + columns**2) / (2 * (0.05 * 41) ** 2))
    np.testing.assert_allclose(smoothed(place, 0.05)[0], bell / bell.sum(), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("reference", [None, "median", "jpeg"])
def test_all_maps_equal_the_closed_form(reference: str | None) -> None:
    """With linear heads the gradient at a pooled feature is its weight over the number of places.

    Evidence counts the reference's features too, which are taken away.
    """
    model, tiles = model_with(tiny_model().spatial.backbone, spatial_reference=reference), noise(2)
    towards = (model.classifier[0].weight[1] - model.classifier[0].weight[0]) / 2  # (D,), the mean of two branches
    found = tile_maps(model, tiles)

    features = model.spatial.backbone.blocks(model.spatial.backbone.stem(tiles))  # (2, F, h, w)
    basis = model.spatial.artifact_basis
    slope = model.spatial.head[0].weight.T @ (basis.T @ (basis @ towards)) / features[0, 0].numel()  # (F,)
    expected = (slope.relu()[:, None, None] * features).sum(dim=1).relu()
    np.testing.assert_allclose(found.spatial, expected, rtol=1e-4, atol=1e-8)
    assert expected.max() > 0
    looks = model.seen(tiles).spatial[0]  # (2, C, S, S), or (4, C, S, S) with the references
    seen, *references = model.spatial.backbone.blocks(model.spatial.backbone.stem(looks)).split(2)
    contrast = seen - references[0] if reference else seen
    evidence = (slope[:, None, None] * contrast).sum(dim=1) * features[0, 0].numel()

    encoder = model.frequency.artifact_encoder
    purified = model.frequency.split(tiles, residual=False)[0].flatten(0, 1)  # (2 K, C, S, S)
    features = encoder.trunk.blocks(encoder.trunk.stem(purified)).unflatten(0, (2, 2))  # (2, K, F, h, w)
    weights = torch.tensor([0.3, 0.7])
    slope = weights[:, None] * (encoder.project.weight.T @ towards) / features[0, 0, 0].numel()  # (K, F)
    by_band = (slope.relu()[..., None, None] * features).sum(dim=2).relu()  # (2, K, h, w)
    expected = (weights[:, None, None] * by_band).sum(dim=1) / weights.sum()
    np.testing.assert_allclose(found.frequency, expected, rtol=1e-4, atol=1e-8)
    assert expected.max() > 0

    evidence += (slope[..., None, None] * features).sum(dim=(1, 2)) * features[0, 0, 0].numel()

    logits = model(tiles).logits
    margin = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(found.logits, margin, atol=1e-6)
    evidence += (margin - evidence.mean(dim=(1, 2)))[:, None, None]
    np.testing.assert_allclose(found.evidence, smoothed(evidence.numpy()), rtol=1e-3, atol=1e-5)
    assert found.evidence.min() < found.evidence.mean() < found.evidence.max()


@pytest.mark.parametrize("looks", [[], LOOKS])
def test_the_mean_of_the_evidence_is_the_logit_whatever_the_target(looks: list[Any]) -> None:
    model, tiles = tiny_model(further_looks=looks).eval(), noise(3)
    for_generated, for_real = tile_maps(model, tiles), tile_maps(model, tiles, -1.0)
    np.testing.assert_allclose(for_generated.evidence.mean(axis=(1, 2)), for_generated.logits, atol=1e-5)
    np.testing.assert_allclose(for_generated.evidence, for_real.evidence, rtol=1e-4, atol=1e-5)


def test_a_map_of_two_signs_is_scaled_by_its_strongest_place_of_either() -> None:
    heat, peak = normalize(np.array([[-4.0, 2.0], [0.0, 1.0]], np.float32))
    np.testing.assert_array_equal(heat, [[-1, 0.5], [0, 0.25]])
    assert peak == 4


def test_maps_of_several_looks_add_up_over_the_finest_cells() -> None:
    fine, coarse = np.arange(16, dtype=np.float32).reshape(1, 4, 4), np.array([[[1, 2], [3, 4]]], np.float32)
    np.testing.assert_array_equal(summed([coarse, fine]), fine + coarse.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(summed([fine]), fine)


def test_the_map_of_the_spatial_branch_is_that_of_all_looks() -> None:
    backbone = tiny_model().spatial.backbone
    model, tiles = model_with(backbone, further_looks=LOOKS), noise(2)
    found = tile_maps(model, tiles).spatial
    expected = []
    for look, seen in zip(model.spatial.looks(), model.seen(tiles).spatial, strict=True):
        maps = look.backbone.blocks(look.backbone.stem(seen)).detach().requires_grad_()
        embedding = look.head(look.contrast(maps.mean((2, 3))))
        basis = model.spatial.artifact_basis
        margin = model.classifier(embedding @ basis.T @ basis / 6) @ torch.tensor([-1.0, 1.0])  # 3 looks, 2 branches
        (gradient,) = torch.autograd.grad(margin.sum(), maps)
        expected.append((gradient.relu() * maps).sum(dim=1).relu().detach()[:2].numpy())
    assert all(one.max() > 0 for one in expected)
    np.testing.assert_allclose(found, summed(expected), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_is_looked_at_where_it_still_has_places(kind: str) -> None:
    """Against timm's own cut between features with places and what follows them."""
    torch.manual_seed(0)
    backbone = BACKBONES[kind]().eval()
    model, tiles = model_with(backbone), noise(1, seed=1)
    found = tile_maps(model, tiles).spatial

    features = backbone.forward_features(tiles).detach().requires_grad_()  # type: ignore[operator]
    embedding = model.spatial.head(backbone.forward_head(features))  # type: ignore[operator]
    basis = model.spatial.artifact_basis
    logits = model.classifier(embedding @ basis.T @ basis / 2)
    (gradient,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], features)
    channels = -1 if kind == "swin" else 1
    expected = (gradient.relu() * features).sum(dim=channels).relu().detach()
    assert expected.ndim == 3
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)


def test_statistics_of_stages_are_looked_at_in_the_first_of_them() -> None:
    """All that the later ones tell has passed there: the gradient is that of all of them together."""
    backbone = build_backbone("tf_efficientnet_lite0_stats24").eval()
    assert isinstance(backbone, StageStatistics)
    model, tiles = model_with(backbone), noise(2, seed=1)
    found = tile_maps(model, tiles).spatial

    second = backbone.stages[1](backbone.stages[0](backbone.stem(tiles))).detach().requires_grad_()
    maps = [second, backbone.stages[3](backbone.stages[2](second))]
    embedding = model.spatial.head(backbone.standardize(torch.cat([statistics(one) for one in maps], dim=1)))
    basis = model.spatial.artifact_basis
    logits = model.classifier(embedding @ basis.T @ basis / 2)
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), second)
    expected = (gradient.relu() * second).sum(dim=1).relu().detach()
    assert expected.shape == (2, 16, 16)
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_the_network_is_left_as_it_was() -> None:
    model = tiny_model().eval()
    next(model.parameters()).requires_grad_(False)
    before = state(model)
    with torch.inference_mode():
        tile_maps(model, noise(3))
    assert state(model) == before
    model.spatial.backbone = VisionTransformer(
        img_size=64, embed_dim=24, depth=1, num_heads=2, num_classes=0, class_token=True
    ).eval()
    model.spatial.head = nn.Sequential(nn.Linear(24, 48))
    before = state(model)
    with pytest.raises(ValueError, match="4 dimensions"):
        tile_maps(model, noise(1))
    assert state(model) == before
    assert before[0] == 0


def test_a_backbone_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="no heat map for Linear"):
        cam_site(nn.Linear(2, 2))


def test_no_gradient_gives_an_empty_map() -> None:
    model = tiny_model().eval()
    for parameter in model.classifier.parameters():
        nn.init.zeros_(parameter)
    maps = tile_maps(model, noise(1))
    assert maps.spatial.shape[0] == maps.frequency.shape[0] == 1
    assert maps.spatial.max() == maps.frequency.max() == 0
    assert np.ptp(maps.evidence) == 0


def test_tiles_are_on_one_scale_whatever_their_company() -> None:
    model, tiles = tiny_model().eval(), noise(20, seed=2)
    together = tile_maps(model, tiles)
    alone = tile_maps(model, tiles[13:14])
    for name in ("evidence", "spatial", "frequency", "logits"):
        np.testing.assert_allclose(getattr(together, name)[13], getattr(alone, name)[0], rtol=1e-3, atol=1e-7)


def test_evidence_for_real_is_the_other_sign() -> None:
    model = tiny_model().eval()
    classifier = model.classifier[-1]
    assert isinstance(classifier, nn.Linear)
    real = tile_maps(model, noise(1), -1.0).spatial
    with torch.no_grad():
        classifier.weight.copy_(classifier.weight.flip(0))
    np.testing.assert_allclose(real, tile_maps(model, noise(1), 1.0).spatial, atol=1e-7)


def test_enlarging_keeps_a_constant_and_the_place_of_the_peak() -> None:
    np.testing.assert_allclose(enlarge(np.full((1, 3, 3), 2.0, np.float32), 9), 2)
    one = np.zeros((1, 3, 3), np.float32)
    one[0, 0, 2] = 1
    assert np.unravel_index(enlarge(one, 9)[0].argmax(), (9, 9)) == (0, 7)


def test_overlaps_are_averaged_and_what_lies_outside_is_said() -> None:
    laid, where = stitch(np.stack([np.full((4, 4), 1.0), np.full((4, 4), 3.0)]), [(0, 0), (0, 2)], 4, 8)
    np.testing.assert_allclose(laid[0], [1, 1, 2, 2, 3, 3, 0, 0])
    assert where[0].tolist() == [True] * 6 + [False] * 2


def test_a_repeated_picture_gets_the_mean_of_its_repeats() -> None:
    tile = np.arange(16.0).reshape(1, 4, 4)
    laid, where = stitch(tile, [(0, 0)], 2, 2)  # pixel (0, 0) is seen at (0, 0), (0, 2), (2, 0) and (2, 2)
    np.testing.assert_allclose(laid, [[5, 6], [9, 10]])
    assert where.all()


def test_a_reduced_map_is_the_mean_of_its_pixels() -> None:
    tiles = np.random.default_rng(0).random((1, 6, 6))
    full, _ = stitch(tiles, [(0, 0)], 6, 7)
    reduced, where = stitch(tiles, [(0, 0)], 6, 7, reduction=2)
    assert reduced.shape == (3, 4)
    np.testing.assert_allclose(reduced[:, :3], full[:, :6].reshape(3, 2, 3, 2).mean(axis=(1, 3)), atol=1e-6)
    assert where[0].tolist() == [True, True, True, False]


def test_normalizing_divides_by_the_peak_and_leaves_nothing_at_nothing() -> None:
    values, peak = normalize(np.array([[0.0, 0.2, 0.4]], np.float32))
    np.testing.assert_allclose(values, [[0, 0.5, 1]])
    assert peak == pytest.approx(0.4)
    values, peak = normalize(np.zeros((2, 2), np.float32))
    assert (values.max(), peak) == (0, 0)
