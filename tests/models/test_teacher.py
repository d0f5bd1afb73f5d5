"""The semantic teacher never learns, and its projection keeps what a linear map can keep."""

import pytest
import torch
from tiny import noise

from apn.models.teacher import SemanticTeacher


def teacher(dim: int = 48, seed: int = 0) -> SemanticTeacher:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SemanticTeacher("resnet10_narrow", dim, pretrained=False, seed=seed)


def test_train_mode_and_forward_change_nothing() -> None:
    model, image = teacher(), noise(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    embedding = model(image)
    assert model.train() is model
    again = model(image)
    torch.testing.assert_close(again, embedding, rtol=0, atol=0)  # batch norm still uses its stored statistics
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_gives_and_takes_no_gradient() -> None:
    model, image = teacher(), noise(2).requires_grad_()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model(image).requires_grad


@pytest.mark.parametrize("dim", [48, 128, 200])
def test_projection_is_orthonormal(dim: int) -> None:
    projection = teacher(dim).projection
    assert projection.shape == (128, dim)
    smaller = projection.T @ projection if dim <= 128 else projection @ projection.T
    torch.testing.assert_close(smaller, torch.eye(min(dim, 128)), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_more_dimensions_than_features_keep_every_distance() -> None:
    model, image = teacher(200), noise(6)
    features = model.backbone((image - model.mean) / model.std)
    torch.testing.assert_close(torch.pdist(model(image)), torch.pdist(features), rtol=1e-4, atol=1e-5)


def test_projection_is_the_seeds() -> None:
    torch.testing.assert_close(teacher(seed=3).projection, teacher(seed=3).projection, rtol=0, atol=0)
    assert not torch.allclose(teacher(seed=3).projection, teacher(seed=4).projection)
