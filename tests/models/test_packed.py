"""Packed layers compute what PyTorch's do, and are taken only where there is what they need."""

import copy

import pytest
import torch
from timm.layers import Mlp
from torch import nn

from apn.models.packed import PackedConv2d, PackedLinear, can_pack, packed

CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="needs oneDNN and AVX")


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@needs_packing
@torch.inference_mode()
@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 8, 7, stride=2, padding=3),
        nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8, bias=False),
        nn.Conv2d(6, 4, 3, dilation=2, groups=2),
    ],
)
def test_packed_convolutions_are_convolutions(convolution: nn.Conv2d) -> None:
    image = normal(2, convolution.in_channels, 16, 12).to(memory_format=torch.channels_last)
    expected = convolution(image)
    (layer,) = packed(nn.Sequential(copy.deepcopy(convolution)))
    assert isinstance(layer, PackedConv2d)
    torch.testing.assert_close(layer(image), expected, atol=1e-5, rtol=1e-5)


@needs_packing
@torch.inference_mode()
@pytest.mark.parametrize(("activation", "fused"), [(nn.GELU, True), (nn.ReLU, False)])
def test_a_perceptron_keeps_its_activation(activation: type[nn.Module], fused: bool) -> None:
    layer, rows = Mlp(10, 24, act_layer=activation).eval(), 3 * normal(2, 5, 5, 10)
    expected = layer(rows)
    packed(layer)
    assert isinstance(layer.fc1, PackedLinear)
    assert isinstance(layer.act, nn.Identity) == fused
    torch.testing.assert_close(layer(rows), expected, atol=1e-5, rtol=1e-5)
    assert not [name for name, _ in layer.named_parameters() if name.endswith("weight")]


@needs_packing
def test_what_packing_does_not_know_stays() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 3, padding="same"), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))
    assert all(type(layer) is nn.Conv2d for layer in packed(module))


def test_packing_is_for_float_on_processors() -> None:
    assert not can_pack(torch.device("cuda"), torch.float32)
    assert not can_pack(CPU, torch.float64)
