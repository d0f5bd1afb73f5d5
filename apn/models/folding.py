"""Networks that no longer learn, with fewer operations: batch norms and layer scales go into their neighbours' weights.

Every function returns a copy that computes the same within rounding and shares the weights that did not change.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import torch
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


def frozen_copy(module: Module) -> Module:
    """A copy in evaluation mode, without gradients, whose weights lie where the original's lie."""
    shared: dict[int, Tensor] = {
        id(one): nn.Parameter(one.detach(), requires_grad=False) for one in module.parameters()
    }
    shared |= {id(one): one for one in module.buffers()}
    return copy.deepcopy(module, shared).eval()


def folded(module: Module) -> Module:
    """`module` with every batch norm that follows a convolution, and ConvNeXt's layer scales, folded away.

    Weights are laid out channels last. A module that torch.fx cannot follow keeps its batch norms.
    """
    module = frozen_copy(module)
    for convolution, norm in list(_normed_convolutions(module)):
        _fold_norm(module, convolution, norm)
    for part in module.modules():
        if isinstance(part, ConvNeXtBlock):
            _fold_layer_scale(part)
    return module.to(memory_format=torch.channels_last)


class _Tracer(fx.Tracer):
    """Sees batch norms that are more than torch's, such as timm's with an activation inside, and timm's convolutions
    that pad by what they are given, as one step, like torch's own layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.Conv2d) or super().is_leaf_module(
            m, module_qualified_name
        )


def _normed_convolutions(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of each convolution whose output goes to a batch norm and nowhere else, and of that norm."""
    if not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return
    try:
        graph = _Tracer().trace(module)
    except fx.proxy.TraceError:  # it branches on values
        return
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(module.get_submodule(node.target), nn.BatchNorm2d):
            before = node.args[0]
            is_convolution = before.op == "call_module" and isinstance(module.get_submodule(before.target), nn.Conv2d)
            if is_convolution and len(before.users) == calls[before.target] == calls[node.target] == 1:
                yield before.target, node.target


def _fold_norm(module: nn.Module, convolution: str, norm: str) -> None:
    before, after = module.get_submodule(convolution), module.get_submodule(norm)
    assert isinstance(before, nn.Conv2d)
    assert isinstance(after, nn.BatchNorm2d)
    fused = fuse_conv_bn_eval(before, after)
    module.set_submodule(convolution, fused.requires_grad_(False))
    module.set_submodule(norm, getattr(after, "act", nn.Identity()))  # timm's norms may activate too


def _fold_layer_scale(block: ConvNeXtBlock) -> None:
    """gamma * (W x + b) = (gamma W) x + gamma b, W and b of the block's last layer."""
    last = block.mlp.fc2
    if block.gamma is None or not isinstance(last, nn.Linear | nn.Conv2d):
        return
    assert last.bias is not None
    gamma = block.gamma.detach()
    scaled = gamma.view(-1, *[1] * (last.weight.dim() - 1)) * last.weight
    last.weight = nn.Parameter(scaled, requires_grad=False)
    last.bias = nn.Parameter(gamma * last.bias, requires_grad=False)
    block.gamma = None
