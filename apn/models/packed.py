"""Convolutions and linear layers by oneDNN, with their weights laid out for it once instead of at every call.

On a processor PyTorch gives float32 linear layers to MKL, which keeps its fast path to Intel's processors: by oneDNN
they took less than half the time on an AMD EPYC (docs/performance.md). torch.compile calls the same operators.
"""

from typing import TypeVar

import torch
from timm.layers import Mlp
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch and processor have what packed layers need."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if "AVX" not in torch.backends.cpu.get_cpu_capability():  # measured on no other kind
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def packed(module: Module) -> Module:
    """`module`, changed in place: same numbers within rounding. It cannot be copied, moved, saved or exported then."""
    for part in module.modules():
        if isinstance(part, Mlp) and isinstance(part.fc1, nn.Linear) and _is_exact_gelu(part.act):
            part.set_submodule("fc1", PackedLinear(part.fc1, gelu=True))
            part.act = nn.Identity()
    for name, part in list(module.named_modules()):
        if type(part) is nn.Linear:
            module.set_submodule(name, PackedLinear(part))
        elif type(part) is nn.Conv2d and part.padding_mode == "zeros" and not isinstance(part.padding, str):
            module.set_submodule(name, PackedConv2d(part))
    return module


def _is_exact_gelu(layer: nn.Module) -> bool:
    probe = torch.linspace(-4, 4, 33)
    return torch.equal(layer(probe), nn.functional.gelu(probe))


class PackedLinear(nn.Module):
    """nn.Linear, and GELU after it if asked. The weight is no parameter: few operators know its layout."""

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias
        self.activation: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, image: Tensor) -> Tensor:  # (..., in) -> (..., out)
        return torch.ops.mkldnn._linear_pointwise(image, self.weight, self.bias, *self.activation)


class PackedConv2d(nn.Module):
    """nn.Conv2d. The weight is no parameter: few operators know its layout."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        one = convolution
        self.settings = (one.padding, one.stride, one.dilation, one.groups)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(one.weight.detach(), *self.settings)
        self.bias = one.bias

    def forward(self, image: Tensor) -> Tensor:  # (B, in, H, W) -> (B, out, H', W')
        return torch.ops.mkldnn._convolution_pointwise(image, self.weight, self.bias, *self.settings, "none", [], "")
