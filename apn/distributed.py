"""Several processes that train one network together (`torchrun ... -m apn train`), one process as the same code.

Every function here is a plain pass-through in a run of one process. Processes are numbered by rank, from 0; the first
one writes. Dimensions: W processes.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from apn.precision import precision_options

T = TypeVar("T")

# What gloo says where the other side is gone; NCCL and the store have exception classes of their own.
_LOST = re.compile(r"gloo|connection (closed|reset|refused)|broken pipe|peer|timed out", re.IGNORECASE)


class LostProcessError(ValueError):
    """Another process of the run is gone; the message says how to go on."""


def launched_rank() -> int:
    """This process's number before and after it is connected to the others."""
    return int(os.environ.get("RANK", 0)) if dist.is_torchelastic_launched() else 0


def launched_with() -> list[str]:
    """The words before those of an `apn` command that start as many processes as there are now, without the addresses
    that several machines need."""
    world = int(os.environ.get("WORLD_SIZE", 1)) if dist.is_torchelastic_launched() else 1
    if world == 1:
        return ["apn"]
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    machines = ["--nnodes", str(world // local)] if world > local else []
    return ["torchrun", *machines, "--nproc-per-node", str(local), "-m", "apn"]


def launched_processes() -> dict[str, Any]:
    """Fabric's options for the processes that torchrun started; those of a single process without torchrun.

    A parameter may be without gradient (the confidence of hard bands, what only a loss term of weight 0 needs), so DDP
    looks for unused ones. It warns that it finds none, since the network's output does depend on them.
    """
    world = int(os.environ.get("WORLD_SIZE", 1)) if dist.is_torchelastic_launched() else 1
    if world == 1:
        return {"devices": 1}
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    strategy = DDPStrategy(find_unused_parameters=True)
    return {"devices": local, "num_nodes": world // local, "strategy": strategy}


def require_one_process(what: str) -> None:
    """ValueError in a process that torchrun started beside others: each would write the same files."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and dist.is_torchelastic_launched():
        raise ValueError(
            f"{what} runs in one process: expected no torchrun, found {os.environ['WORLD_SIZE']} processes"
        )


def start(accelerator: str, precision: str) -> Fabric:
    """Fabric on this device, connected to the other processes where there are any."""
    options = precision_options(precision, device_type(accelerator))
    fabric = Fabric(accelerator=accelerator, **options, **launched_processes())
    fabric.launch()
    return fabric


def device_type(accelerator: str) -> str:
    """ "cpu", "cuda" or "mps": what Fabric chooses for an accelerator, "auto" included."""
    return Fabric(accelerator=accelerator, **launched_processes()).device.type


def world_size() -> int:
    """W, how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, 0 .. W - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


class _Mean(torch.autograd.Function):
    """The mean of W tensors is the same everywhere, so each of them gets the mean of the W gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _all_mean(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _all_mean(gradients[0])


def _all_mean(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Mean of the tensor over all processes, of the same shape everywhere; differentiable in every process's part.

    With W processes that each descend the mean of their own losses and average their gradients, as DDP does, the
    result is the gradient of the mean loss, what one process has of another included.
    """
    return _Mean.apply(tensor) if world_size() > 1 else tensor


@torch.no_grad()
def average_gradients(module: nn.Module) -> None:
    """Gradients of a small module that DDP does not wrap: each becomes the mean over the processes."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = _all_mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """The first process's buffers (batch norm statistics) become everybody's."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def gather(value: T) -> list[T]:
    """Every process's value, in the order of their ranks, on each of them. A picklable one."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def agree(share: float, stop: bool, device: torch.device) -> tuple[float, bool]:
    """The first process's share of the run that is over, and whether any process was told to stop.

    Clocks differ: each process for itself would learn at rates of its own and end at a step of its own, and those left
    would wait for ever.
    """
    if world_size() == 1:
        return share, stop
    facts = torch.tensor([share if rank() == 0 else 0.0, float(stop)], dtype=torch.float64, device=device)
    dist.all_reduce(facts, op=dist.ReduceOp.MAX)
    agreed, stopped = facts.tolist()
    return agreed, bool(stopped)


@contextmanager
def lost_process_explained(how_to_go_on: str) -> Iterator[None]:
    """Turns the error of a collective whose other side is gone into a LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise LostProcessError(
            f"process {rank()} of {world_size()} lost another one, whose own last words, if it had any, are above: "
            f"{how_to_go_on}"
        ) from error


def leave() -> None:
    """Ends the connection to the other processes; the orderly end of a run."""
    if dist.is_initialized():
        dist.destroy_process_group()
