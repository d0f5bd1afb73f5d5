"""Batch norm over several processes, and batch norm that a second forward pass of the same batch leaves alone.

Dimensions: B batch, C channels, H x W pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from apn.distributed import mean_over_processes, world_size
from apn.models.statistics import Standardize


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm whose mean and variance are those of all processes' batches together, which must be of one size.

    torch.nn.SyncBatchNorm does the same on GPUs and refuses the CPU. `then` is what the layer did after normalising.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(self, name, buffer)
        # timm has layers that are batch norm, dropout and activation in one.
        self.then = nn.Sequential(*(layer for name in ("drop", "act") if (layer := getattr(norm, name, None))))
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        if not self.training:
            return self.then(super().forward(input))
        pixels = input.to(self.weight.dtype)  # half precision has too few digits for a variance
        mean = mean_over_processes(pixels.mean(dim=(0, 2, 3)))  # (C,)
        centred = pixels - mean[:, None, None]
        variance = mean_over_processes(centred.square().mean(dim=(0, 2, 3)))  # (C,)
        self._track(mean.detach(), variance.detach(), world_size() * input.numel() // self.num_features)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return self.then((centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype))

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Running statistics as torch keeps them, the variance that of a sample of `count`."""
        assert self.running_mean is not None, "batch norm without running statistics"
        assert self.running_var is not None, "batch norm without running statistics"
        assert self.num_batches_tracked is not None, "batch norm without running statistics"
        assert self.momentum is not None, "batch norm with a cumulative average"
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


def synchronize_batchnorm(model: nn.Module, device_type: str) -> None:
    """Every batch norm of feature maps in `model` will see all processes' batches as one. Parameters, buffers and their
    names stay. What standardises a frozen trunk's features goes on by each process's own part."""
    if device_type != "cpu":
        own = [(name, norm) for name, norm in model.named_modules() if isinstance(norm, Standardize)]
        convert_sync_batchnorm(model)
        for name, norm in own:
            model.set_submodule(name, norm)
        return
    norms = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    for name, layer in norms:
        model.set_submodule(name, GlobalBatchNorm(layer))


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """In here a forward pass in training mode leaves the running statistics of batch norm as they are."""
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # rather than none to update: the pass must save the same tensors as the first one
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked = layer.num_batches_tracked.clone()
    try:
        yield
    finally:
        for layer, (momentum, batches) in zip(norms, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, batches
