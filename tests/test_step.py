"""The two halves of a training step leave each other alone; their learning rates are torch's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from tiny import noise
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toy import make_toy, toy_config

from apn.config import Config, TrainConfig
from apn.data.dataset import Batch
from apn.losses import information_pairs
from apn.optim import club_optimizer, model_optimizer, model_rate_factor, set_rates
from apn.step import Trainee, apn_half, build_trainee, club_half, follow, fresh_pairs, training_step


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


Halves = tuple[Fabric, Trainee, Config, Batch]


@pytest.fixture
def halves(toy: Path) -> Halves:
    torch.manual_seed(0)
    config = toy_config(toy)
    trainee = build_trainee(config)
    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimizer = fabric.setup(trainee.model, trainee.model_optimizer)
    batch = Batch(noise(4), torch.tensor([0, 1, 0, 1]), torch.arange(4))
    return fabric, trainee._replace(model=model, model_optimizer=optimizer), config, batch


def changed(module: nn.Module, act: Callable[[], object]) -> set[str]:
    """Names of the parameters and buffers that `act` changes."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    act()
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_the_apn_half_moves_the_network_and_not_club(halves: Halves) -> None:
    fabric, trainee, config, batch = halves
    assert changed(trainee.clubs, lambda: apn_half(fabric, trainee, batch, config, 0)) == set()
    assert all(parameter.grad is None for parameter in trainee.clubs.parameters())
    assert all(parameter.requires_grad for parameter in trainee.clubs.parameters())  # free again for its own half
    moved = changed(trainee.model, lambda: apn_half(fabric, trainee, batch, config, 1))
    still = trainee.model.state_dict().keys() - moved
    assert not [name for name in still if "confidence_head" not in name and not name.endswith(".prior")]


def test_the_club_half_moves_club_and_not_the_network(halves: Halves) -> None:
    """Nor its batch norm statistics: they count as moving."""
    fabric, trainee, config, batch = halves
    apn_half(fabric, trainee, batch, config, 0)

    def act() -> None:
        pairs = fresh_pairs(trainee.model, batch, config.loss.club_pairs)
        club_half(fabric, trainee, pairs, 0)

    gradients = [None if p.grad is None else p.grad.clone() for p in trainee.model.parameters()]
    assert changed(trainee.model, act) == set()
    for parameter, before in zip(trainee.model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (before is None)
        assert before is None or torch.equal(parameter.grad, before)
    assert changed(trainee.clubs, act) == set(trainee.clubs.state_dict())


def test_the_average_copies_statistics_that_are_averages_already() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False, momentum=None), nn.BatchNorm1d(2))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    follow(average, model)
    before = average.module.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    follow(average, model)
    for name, value in average.module.state_dict().items():
        if name.startswith("1."):
            torch.testing.assert_close(value, before[name] + 1)
        elif value.is_floating_point():
            torch.testing.assert_close(value, before[name] + 0.1)


def test_while_the_spatial_branch_learns_alone_nothing_else_moves(halves: Halves) -> None:
    fabric, trainee, config, batch = halves
    trainee.model.mark_forward_method("spatial_logits")  # type: ignore[operator]

    def act() -> None:
        training_step(fabric, trainee, batch, iter(()), config, 0, spatial_alone=True)

    assert changed(trainee.clubs, act) == set()
    moved = changed(trainee.model, act)
    assert {name.removeprefix("module.").split(".")[0] for name in moved} == {"spatial", "classifier"}


def test_fresh_pairs_come_from_the_resting_network(halves: Halves) -> None:
    _, trainee, config, batch = halves
    trainee.model.train()
    pairs = fresh_pairs(trainee.model, batch, config.loss.club_pairs)
    with torch.no_grad():
        expected = information_pairs(trainee.model.eval()(batch.image), config.loss.club_pairs)
    for found, wanted in zip(pairs[0], expected[0], strict=True):
        assert torch.equal(found, wanted)
        assert not found.requires_grad


def test_club_steps_tighten_club_on_a_resting_network(halves: Halves) -> None:
    fabric, trainee, config, batch = halves
    pairs = fresh_pairs(trainee.model, batch, config.loss.club_pairs)
    set_rates(trainee.club_optimizer, 100)
    losses = [club_half(fabric, trainee, pairs, step) for step in range(20)]
    assert losses[-1] < losses[0] - 1


def test_reported_terms_add_up_to_the_total(halves: Halves) -> None:
    fabric, trainee, config, batch = halves
    terms, _ = apn_half(fabric, trainee, batch, config, 0)
    assert terms.pop("total") == pytest.approx(sum(terms.values()))
    assert len(terms) == 6


# Rates ---------------------------------------------------------------------------------------------------------------


def test_rate_factor_is_torchs_linear_warm_up_times_step() -> None:
    config = TrainConfig(steps=120, schedule_steps=30)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedules = [
        torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=20),
        torch.optim.lr_scheduler.StepLR(optimizer, 30),
    ]
    for step in range(120):
        assert model_rate_factor(config, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        for schedule in schedules:
            schedule.step()


def test_cosine_ends_near_zero_and_halves_in_the_middle() -> None:
    config = TrainConfig(steps=100, schedule="cosine", warmup_steps=0)
    assert model_rate_factor(config, 0) == 1
    assert model_rate_factor(config, 50) == pytest.approx(0.5)
    assert model_rate_factor(config, 99) == pytest.approx(0.5 * (1 - np.cos(np.pi / 100)))


def test_bases_backbone_and_heads_have_rates_of_their_own(halves: Halves) -> None:
    _, trainee, _, _ = halves
    config = TrainConfig(learning_rate=1e-3, backbone_learning_rate=1e-5, head_learning_rate=1e-4, weight_decay=0.1)
    model = trainee.model.module
    optimizer = model_optimizer(model, config)
    set_rates(optimizer, 0.5)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(group_of) == len(list(model.parameters()))  # each once
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        basis, backbone = name.endswith("_basis"), name.startswith("spatial.backbone.")
        head = name.startswith(("spatial.head.", "classifier."))
        assert group["lr"] == 0.5 * (1e-7 if basis else 1e-5 if backbone else 1e-4 if head else 1e-3)
        assert group["weight_decay"] == (0 if basis else 0.1)
    assert club_optimizer(trainee.clubs, config).param_groups[0]["lr"] == 1e-5
