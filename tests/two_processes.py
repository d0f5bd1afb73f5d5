"""One of two processes that train together, for tests: `python two_processes.py OUT TOY`, with torchrun's environment.

Saves what it computed on its half of a batch of 8 as OUT/<rank>.pt. Both halves as one batch: `step_of` in one process.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from tiny import noise
from torch import Tensor
from toy import toy_config

from apn.config import Config
from apn.data.dataset import Batch
from apn.distributed import agree, average_gradients, gather, leave, mean_over_processes, rank, share_buffers, start
from apn.losses import floored
from apn.models.club import CLUB, own_batch
from apn.resume import seed_process
from apn.step import apn_half, build_trainee, club_half, fresh_pairs, prepare, training_step

IMAGES, FRESH = noise(8, seed=1), noise(8, seed=2)
LABELS = torch.arange(8) % 2
FLOORS = (-1e-3, 1e-3)  # of CLUB's bound, beside that of the whole batch

# Settings under which two halves must give what one whole gives.
VARIANTS: dict[str, dict[str, Any]] = {
    "synchronized": {"sync_batchnorm": True},
    "reuse": {"sync_batchnorm": True, "club_data": "reuse", "gradient_clip": 0.5},
    "recomputed": {"sync_batchnorm": True, "recompute_bands": True},
    "hard": {"sync_batchnorm": True, "model": {"bands": "hard"}},
    "spatial branch alone": {"sync_batchnorm": True, "spatial_share": 0.5},
}


def step_of(config: Config, fabric: Fabric, part: slice) -> dict[str, Any]:
    """Loss terms, gradients and the state after one step on this part of the batch."""
    torch.manual_seed(0)
    trainee = build_trainee(config)
    prepare(trainee, config.train, "cpu")
    model, optimizer = fabric.setup(trainee.model, trainee.model_optimizer)
    model.mark_forward_method("spatial_logits")
    learner = trainee._replace(model=model, model_optimizer=optimizer)
    batch, pairs = Batch(IMAGES[part], LABELS[part], LABELS[part]), None
    if config.train.spatial_share:
        terms = training_step(fabric, learner, batch, iter(()), config, 0, spatial_alone=True)
    else:
        terms, pairs = apn_half(fabric, learner, batch, config, 0)
    gradients = {name: p.grad for name, p in trainee.model.named_parameters() if p.grad is not None}
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    if pairs is not None:
        if config.train.club_data == "fresh":
            batch = Batch(FRESH[part], LABELS[part], LABELS[part])
            pairs = fresh_pairs(learner.model, batch, config.loss.club_pairs)
        terms["club_learning"] = club_half(fabric, learner, pairs, 0)
    gradients |= {name: p.grad for name, p in trainee.clubs.named_parameters() if p.grad is not None}
    return {"terms": terms, "gradients": gradients, "buffers": dict(trainee.model.named_buffers())}


def club_of(average: Callable[[Tensor], Tensor], part: slice, above: float | None = None) -> dict[str, Tensor]:
    """CLUB's bound on this part of a batch, and its gradient with respect to both sides.

    above: floored at so much above the bound of the whole batch.
    """
    floor = None if above is None else club_of(own_batch, slice(0, 8))["bound"].item() + above
    torch.manual_seed(0)
    club = CLUB(16, 8, average)
    artifact, irrelevant = (torch.randn(2, 8, 16)[side, part].requires_grad_() for side in (0, 1))
    bound = floored(club(artifact, irrelevant), floor, average)
    bound.backward()
    assert artifact.grad is not None
    assert irrelevant.grad is not None
    return {"bound": bound.detach(), "artifact": artifact.grad, "irrelevant": irrelevant.grad}


def small_things() -> dict[str, Any]:
    """What the helpers of apn.distributed give this process."""
    linear = torch.nn.Linear(2, 1)
    linear.weight.grad, linear.bias.grad = torch.full((1, 2), 1.0 + rank()), torch.tensor([4.0 * rank()])
    average_gradients(linear)
    norm = torch.nn.BatchNorm1d(1)
    assert norm.running_mean is not None
    norm.running_mean += rank() + 5
    share_buffers(norm)
    torch.manual_seed(0)
    seed_process(0)
    return {
        "gathered": gather(("rank", rank())),
        "agreed": [agree(0.25 + rank(), rank() == stopped, torch.device("cpu")) for stopped in (0, 1, 2)],
        "gradients": [linear.weight.grad.tolist(), linear.bias.grad.tolist()],
        "running_mean": norm.running_mean.item(),
        "random": torch.rand(1).item(),
    }


def main(out: Path, toy: Path) -> None:
    torch.set_num_threads(1)
    fabric = start("cpu", "32-true")
    part = slice(4 * rank(), 4 * rank() + 4)
    result: dict[str, Any] = {name: step_of(toy_config(toy, **v), fabric, part) for name, v in VARIANTS.items()}
    result["club"] = {"global": club_of(mean_over_processes, part), "local": club_of(own_batch, part)}
    result["club"] |= {f"floor {above:+}": club_of(mean_over_processes, part, above) for above in FLOORS}
    result["small"] = small_things()
    torch.save(result, out / f"{rank()}.pt")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
