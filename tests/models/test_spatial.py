"""The spatial branch splits one embedding into two orthogonal parts that add up to it."""

import torch
from tiny import noise, tiny_config
from torch import Tensor, nn

from apn.models.backbones import num_features
from apn.models.spatial import Contrast, SpatialBranch, project


def orthonormal_rows(seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(48, 48, generator=torch.Generator().manual_seed(seed))).Q


def branch(**changes: object) -> SpatialBranch:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SpatialBranch(tiny_config(**changes)).eval()


def test_projection_onto_orthonormal_rows() -> None:
    rows = orthonormal_rows()
    artifact, irrelevant = rows[:24], rows[24:]
    embedding = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
    part = project(embedding, artifact)
    torch.testing.assert_close(project(part, artifact), part, atol=1e-5, rtol=0)  # twice is once
    torch.testing.assert_close(project(part, irrelevant), torch.zeros(5, 48), atol=1e-5, rtol=0)
    torch.testing.assert_close(part + project(embedding, irrelevant), embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(part @ artifact.T, embedding @ artifact.T, atol=1e-5, rtol=0)  # coordinates are kept


@torch.inference_mode()
def test_bases_start_as_the_halves_of_the_embedding() -> None:
    model, image = branch(), noise(3)
    embedding, output = model.embed(image), model([image])
    zeros = torch.zeros(3, 24)
    torch.testing.assert_close(output.irrelevant, torch.cat([embedding[:, :24], zeros], dim=1))
    torch.testing.assert_close(output.artifact, torch.cat([zeros, embedding[:, 24:]], dim=1))
    assert embedding.std() > 1e-3


@torch.inference_mode()
def test_normalization_is_the_imagenet_one_of_the_backbone() -> None:
    plain, normalized = (branch(spatial_backbone="resnet18", spatial_normalize=on) for on in (False, True))
    image = noise(2)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(normalized.embed(image), plain.embed((image - mean) / std))
    assert plain.state_dict().keys() == normalized.state_dict().keys()  # a setting, not weights


def test_compared_features_are_differences_in_units_of_their_spread() -> None:
    contrast, (image, reference) = Contrast(5), torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    both = 1e-2 * torch.cat([image, reference])
    found = contrast(both)
    torch.testing.assert_close(found.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(5), atol=1e-3, rtol=0)
    differences = 1e-2 * (image - reference)
    torch.testing.assert_close(contrast.standardize.running_mean, differences.mean(0))
    torch.testing.assert_close(contrast.standardize.running_var, differences.var(0))  # nothing of a new norm's 1
    contrast.eval()
    contrast.standardize.running_mean.fill_(0.5)
    contrast.standardize.running_var.fill_(4.0)
    torch.testing.assert_close(contrast(both), (differences - 0.5) / 2)


@torch.inference_mode()
def test_what_a_picture_shares_with_its_reference_does_not_count() -> None:
    model, (image, other, reference) = branch(spatial_reference="median"), noise(6).chunk(3)

    def embed(image: Tensor, reference: Tensor) -> Tensor:
        return model.embed(torch.cat([image, reference]))

    torch.testing.assert_close(embed(image, image), embed(other, other), atol=1e-5, rtol=1e-4)
    features = model.backbone(image) - model.backbone(reference)
    torch.testing.assert_close(embed(image, reference), model.head(features), atol=1e-5, rtol=1e-4)
    assert (embed(image, reference) - embed(other, reference)).abs().max() > 1e-3


@torch.inference_mode()
def test_looks_are_averaged() -> None:
    looks = [{"backbone": "resnet18", "reference": "median"}, {"backbone": "resnet10_narrow", "scale": 2}]
    model, (image, other, reference) = branch(further_looks=looks), noise(6).chunk(3)
    seen = [image, torch.cat([other, reference]), noise(2, size=32)]
    expected = sum(look.embed(one) for look, one in zip(model.looks(), seen, strict=True)) / 3
    assert len({len(look.state_dict()) for look in model.further}) == 2  # each has a trunk of its own
    torch.testing.assert_close(model.joined(seen), expected)
    artifact, irrelevant = model(seen)
    torch.testing.assert_close(artifact + irrelevant, expected)  # the halves of the identity


def test_a_transformer_is_made_for_the_crops_it_sees() -> None:
    swin = branch(image_size=96, spatial_backbone="swin_tiny_patch4_window7_224")
    with torch.inference_mode():
        assert swin([noise(1, size=96)]).artifact.shape == (1, 48)


def test_head_is_linear_relu_linear() -> None:
    model = branch()
    assert [type(layer) for layer in model.head] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(layer.weight.shape) for layer in model.head if isinstance(layer, nn.Linear)] == [
        (48, num_features(model.backbone)),
        (48, 48),
    ]
