"""Activations computed again: the same results, gradients and batch norm statistics, for less memory."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from tiny import noise, tiny_model
from torch import nn

from apn.batchnorm import GlobalBatchNorm, statistics_kept, synchronize_batchnorm
from apn.models.apn import APN
from apn.models.statistics import Standardize
from apn.recompute import recompute_bands


def one_pass(model: APN) -> dict[str, torch.Tensor]:
    """Everything that a training step reads or leaves behind."""
    output = model.train()(noise(3))
    assert output.irrelevant_frequency is not None
    loss = output.logits.square().sum() + output.irrelevant_frequency.sum() * output.band_weights.sum()
    loss.backward()
    gradients = {f"{name} gradient": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **dict(model.named_buffers())}


@pytest.mark.parametrize("bands", ["hard", "straight-through"])
def test_recomputed_bands_give_the_same_gradients_and_statistics_bit_for_bit(bands: str) -> None:
    kept, recomputed = tiny_model(bands=bands), tiny_model(bands=bands)
    recompute_bands(recomputed)
    for _ in range(2):  # the second pass reads what the first one left
        expected, found = one_pass(kept), one_pass(recomputed)
        assert found.keys() == expected.keys()
        assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert recomputed.state_dict().keys() == kept.state_dict().keys()
    assert int(recomputed.frequency.artifact_encoder.trunk.stem[1].num_batches_tracked) == 2


def test_a_recomputed_encoder_keeps_only_its_input() -> None:
    def held(model: APN, images: torch.Tensor) -> int:
        """Bytes that autograd keeps, each storage once."""
        seen: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            seen[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            features, embeddings = model.frequency.artifact_encoder.train()(images)
        assert features.requires_grad
        assert embeddings.requires_grad
        return sum(seen.values())

    model, images = tiny_model(), torch.rand(3, 2, 3, 64, 64)
    assert held(model, images) > 5 * images.nbytes
    recompute_bands(model)
    assert held(model, images) == images.nbytes  # the input


def test_dropout_falls_on_the_same_places_again() -> None:
    expected, found = [], []
    for results, again in ((expected, False), (found, True)):
        model = tiny_model()
        for encoder in (model.frequency.artifact_encoder, model.frequency.irrelevant_encoder):
            encoder.trunk.blocks.insert(1, nn.Dropout(0.5))
        if again:
            recompute_bands(model)
        torch.manual_seed(3)
        results.extend(one_pass(model).values())
        results.append(torch.rand(1))  # and the numbers after it
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_without_gradient_nothing_changes() -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        expected = model(noise(2)).logits
        recompute_bands(model)
        assert torch.equal(model(noise(2)).logits, expected)


# Batch norm ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_kept_are_those_of_before(momentum: float | None) -> None:
    norm = nn.BatchNorm2d(3, momentum=momentum)
    norm(noise(2))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    expected = norm.weight[:, None, None] * 0 + nn.functional.batch_norm(noise(4), None, None, training=True)
    with statistics_kept(norm):
        torch.testing.assert_close(norm(noise(4)), expected)
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())
    assert norm.momentum == momentum
    norm(noise(4))
    assert int(norm.num_batches_tracked) == 2


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_over_one_process_is_torchs(training: bool) -> None:
    """timm's layer that is batch norm and activation in one included; in double precision, so that only rounding is
    left."""

    def network() -> nn.Sequential:
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            BatchNormAct2d(6, act_layer=nn.SiLU),
            nn.Conv2d(6, 2, 3),
        )
        return nn.Sequential(*layers).double().train(training)

    plain, synchronized = network(), network()
    synchronize_batchnorm(synchronized, "cpu")
    assert sum(isinstance(layer, GlobalBatchNorm) for layer in synchronized) == 2
    assert synchronized.state_dict().keys() == plain.state_dict().keys()
    for model in (plain, synchronized):
        model(noise(4).double()).square().sum().backward()
    for (key, expected), found in zip(plain.named_parameters(), synchronized.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=1e-9, msg=key)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(synchronized.state_dict()[key], value, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_what_standardises_features_stays_what_it_is(device_type: str) -> None:
    """The average of weights must find it, and what is fixed would follow the data as another norm."""
    fixed, follows = Standardize(3), Standardize(3)
    fixed.fix()
    model = nn.Sequential(nn.BatchNorm2d(3), fixed, follows)
    synchronize_batchnorm(model, device_type)
    norm = {"cpu": GlobalBatchNorm, "cuda": nn.SyncBatchNorm}[device_type]
    assert [type(layer) for layer in model] == [norm, Standardize, Standardize]
    assert list(model)[1:] == [fixed, follows]
    assert not model.train()[1].training
