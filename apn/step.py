"""One step of training: APN and CLUB in turns, or a baseline alone.

Source: Meng et al., CVIU 2024 (docs/method.md). Dimensions: B batch, D embedding size.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from apn.batchnorm import synchronize_batchnorm
from apn.checkpoint import not_finite
from apn.config import Config, TrainConfig
from apn.data.dataset import Batch
from apn.distributed import average_gradients, mean_over_processes, world_size
from apn.losses import Pairs, build_clubs, club_learning_loss, information_pairs, loss_terms
from apn.model_config import ModelConfig
from apn.models.apn import APN
from apn.models.build import build_network
from apn.models.club import own_batch
from apn.models.soft_labels import SoftLabels
from apn.models.teacher import SemanticTeacher
from apn.optim import club_optimizer, model_optimizer
from apn.recompute import recompute_bands

Terms = dict[str, Tensor]
WHAT_HELPS = (
    "lower train.learning_rate, set train.gradient_clip, or use train.precision = '32-true'; a checkpoint, if there is "
    "one yet, is from before this step"
)


class NonFiniteLossError(ValueError):
    """A loss term, or a weight, stopped being a number; the message names it and the step."""


class Trainee(NamedTuple):
    """What learns, with what: the network and CLUB, each with its optimiser; the teacher never learns.

    A baseline has no CLUB: `clubs` is empty then, and `club_optimizer` None. `average`, if asked for, follows the
    network's weights as their exponential moving average, and is what gets validated and shipped. `soft_labels`, if
    asked for, are to be fitted before the first step.
    """

    model: nn.Module
    clubs: nn.ModuleList
    teacher: SemanticTeacher | None
    model_optimizer: Optimizer
    club_optimizer: Optimizer | None
    average: AveragedModel | None = None
    soft_labels: SoftLabels | None = None

    def target(self, batch: Batch) -> Tensor:
        """What the network should say: classes (B,), or their probabilities (B, 2)."""
        return batch.label if self.soft_labels is None else self.soft_labels(batch.image)

    @property
    def shipped(self) -> nn.Module:
        """The network whose weights a checkpoint holds."""
        return self.average.module if self.average else self.model


def build_trainee(config: Config, *, offline: bool = False) -> Trainee:
    """Network, CLUB and optimisers of a configuration; offline: the weights will come from a checkpoint."""
    model = build_network(config.model, offline=offline)
    clubs, teacher, soft_labels = nn.ModuleList(), None, None
    if isinstance(config.model, ModelConfig):
        average = mean_over_processes if config.train.club_negatives == "global" else own_batch
        clubs = build_clubs(config.loss, config.model.embedding_dim, average)
        if config.loss.semantic_teacher:
            teacher = SemanticTeacher(
                config.loss.semantic_teacher,
                config.model.embedding_dim,
                pretrained=config.loss.semantic_teacher_pretrained,
                seed=config.train.seed,
            )
        if config.loss.soft_labels:
            assert isinstance(model, APN), "ModelConfig is that of APN"
            soft_labels = SoftLabels(model)
    decay, follower = config.train.ema_decay, None
    if decay is not None:  # batch norm's statistics are averaged too: they belong to the weights
        follower = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    optimizers = model_optimizer(model, config.train), club_optimizer(clubs, config.train)
    return Trainee(model, clubs, teacher, *optimizers, follower, soft_labels)


def prepare(trainee: Trainee, config: TrainConfig, device_type: str) -> None:
    """What changes how the network computes in training, not what: batch norm over processes, activations not kept.

    After `build_trainee` and before Fabric's setup; the average is a copy without it.
    """
    if config.sync_batchnorm and world_size() > 1:
        synchronize_batchnorm(trainee.model, device_type)
    if config.recompute_bands and isinstance(trainee.model, APN):
        recompute_bands(trainee.model)


def club_steps(config: Config) -> int:
    """CLUB halves in a step; 0 for a baseline."""
    return config.train.club_steps if isinstance(config.model, ModelConfig) and config.loss.information else 0


def training_step(
    fabric: Fabric,
    trainee: Trainee,
    batch: Batch,
    club_batches: Iterator[Batch],
    config: Config,
    step: int,
    *,
    spatial_alone: bool = False,
) -> dict[str, float]:
    """Everything between two batches of the loop. Returns the loss terms by name.

    spatial_alone: APN's spatial branch and its classifier learn, the frequency branch and CLUB wait.
    """
    if spatial_alone or not isinstance(config.model, ModelConfig):
        return classification_step(fabric, trainee, batch, config, step)
    terms, pairs = apn_half(fabric, trainee, batch, config, step)
    for _ in range(club_steps(config)):
        if config.train.club_data == "fresh":
            pairs = fresh_pairs(trainee.model, next(club_batches), config.loss.club_pairs)
        terms["club_learning"] = club_half(fabric, trainee, pairs, step)
    return terms


def classification_step(fabric: Fabric, trainee: Trainee, batch: Batch, config: Config, step: int) -> dict[str, float]:
    """A baseline, or APN's spatial branch alone, learns by the cross entropy of its logits."""
    model: Any = trainee.model  # an APN, perhaps in Fabric's wrapping, or a baseline
    model.train()
    logits = model.spatial_logits(batch.image) if isinstance(config.model, ModelConfig) else model(batch.image).logits
    return _descend(
        fabric, trainee, {"classification": F.cross_entropy(logits.float(), trainee.target(batch))}, config, step
    )


def apn_half(
    fabric: Fabric, trainee: Trainee, batch: Batch, config: Config, step: int
) -> tuple[dict[str, float], Pairs]:
    """1. APN learns, CLUB holds still. Returns the loss terms and the detached pairs that CLUB may reuse."""
    model, clubs = trainee.model, trainee.clubs
    model.train()
    clubs.requires_grad_(False)
    output = model(batch.image)
    semantic = trainee.teacher(batch.image) if trainee.teacher else None
    terms = loss_terms(model, output, trainee.target(batch), clubs, config.loss, semantic)  # type: ignore[arg-type]
    values = _descend(fabric, trainee, terms, config, step)
    clubs.requires_grad_(True)
    pairs = [(a.detach(), i.detach()) for a, i in information_pairs(output, config.loss.club_pairs)]
    return values, pairs


def club_half(fabric: Fabric, trainee: Trainee, pairs: Pairs, step: int) -> float:
    """2. CLUB learns, APN holds still: it only gave the pairs, without gradient. Returns CLUB's own loss."""
    assert trainee.club_optimizer is not None, "a baseline has no CLUB half"
    loss = club_learning_loss(trainee.clubs, pairs)
    value = _finite({"club_learning": loss}, step)["club_learning"]
    trainee.club_optimizer.zero_grad()
    fabric.backward(loss)
    average_gradients(trainee.clubs)  # too small to be worth DDP's wrapping, and frozen half of the time
    trainee.club_optimizer.step()
    return value


@torch.no_grad()
def fresh_pairs(model: nn.Module, batch: Batch, club_pairs: str) -> Pairs:
    """Embeddings of a batch of its own from the resting network: evaluation mode, batch norm statistics included."""
    model.eval()
    return information_pairs(model(batch.image), club_pairs)


def _descend(fabric: Fabric, trainee: Trainee, terms: Terms, config: Config, step: int) -> dict[str, float]:
    """One step of the network's optimiser down the sum of the terms, which are returned as numbers, with their sum."""
    total = torch.stack(list(terms.values())).sum()
    values = _finite(terms, step)
    trainee.model_optimizer.zero_grad()
    fabric.backward(total)
    if config.train.gradient_clip is not None:
        clip_grad_norm_(trainee.model.parameters(), config.train.gradient_clip)
    trainee.model_optimizer.step()
    if trainee.average:
        follow(trainee.average, trainee.model)
    return {"total": math.fsum(values.values()), **values}


@torch.no_grad()
def follow(average: AveragedModel, model: nn.Module) -> None:
    """The average takes in the network's weights and statistics.

    A norm without momentum has the mean over all batches already, which is copied: in a branch that learns late, an
    average of it would still have much of the variance 1 that a new norm starts with.
    """
    average.update_parameters(model)
    followers, norms = (
        [part for part in whole.modules() if isinstance(part, nn.BatchNorm1d) and part.momentum is None]
        for whole in (average, model)
    )
    for follower, norm in zip(followers, norms, strict=True):
        follower.load_state_dict(norm.state_dict())


def _finite(terms: Terms, step: int) -> dict[str, float]:
    """The terms as numbers, each the mean over all processes, which so find a bad one together."""
    means = mean_over_processes(torch.stack([term.detach().float() for term in terms.values()]))
    values = dict(zip(terms, means.tolist(), strict=True))
    if bad := [name for name, value in values.items() if not math.isfinite(value)]:
        raise NonFiniteLossError(f"loss term {', '.join(bad)} is not finite at step {step}: {WHAT_HELPS}")
    return values


def require_finite_weights(trainee: Trainee, step: int) -> None:
    """NonFiniteLossError where `step` has spoilt the network or CLUB: its loss was finite, a gradient was not.

    For before they are saved, over a checkpoint that was good.
    """
    for learner in (trainee.model, trainee.clubs):
        if bad := not_finite(learner.state_dict()):
            raise NonFiniteLossError(
                f"{len(bad)} tensors of weights, the first {bad[0]}, are not finite after step {step}: {WHAT_HELPS}"
            )
