"""Activations computed again in the backward pass instead of kept: a third more arithmetic, far less memory.

The band encoders see K images for every picture, which makes their activations the largest part of a training step.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from apn.batchnorm import statistics_kept
from apn.models.apn import APN


def recompute_bands(model: APN) -> None:
    """From now on both band encoders of this network keep only their input for the backward pass.

    The network's results, gradients and state dict stay the same. Copies of `model` that exist are left alone; none may
    be made afterwards, a copy would call this network's encoders.
    """
    for encoder in (model.frequency.artifact_encoder, model.frequency.irrelevant_encoder):
        # On the instance: a wrapping module would rename every weight.
        encoder.forward = partial(_recomputed, encoder, encoder.forward)  # type: ignore[method-assign]


def _recomputed(module: nn.Module, forward: Callable[..., Any], *arguments: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), statistics_kept(module)  # the statistics of batch norm have seen this batch already

    return checkpoint(forward, *arguments, use_reentrant=False, context_fn=contexts)
