"""A budget of minutes: the clock of a run, and runs that end with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import interrupt_at, make_toy, run, toy_config

import apn.train
from apn.checkpoint import read_training
from apn.clock import Clock, is_finished
from apn.config import TrainConfig
from apn.train import TrainResult


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"))


class Time:
    """Stands in for time.perf_counter: every look takes a tenth of a second."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


def test_the_clock_counts_steps_and_minutes_and_stands_still_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    monkeypatch.setattr("apn.clock.time.perf_counter", time)
    clock = Clock(TrainConfig(steps=100, minutes=2), seconds=30)
    time.now += 30
    assert clock.share(0) == pytest.approx(0.5, abs=0.01)
    assert clock.share(75) == 0.75  # whichever is more
    with clock.stopped():
        time.now += 500
    assert clock.seconds == pytest.approx(60, abs=1)
    assert Clock(TrainConfig(steps=100), seconds=1e6).share(50) == 0.5


def test_a_run_ends_with_its_minutes_and_its_cosine_with_it(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, rates = Time(), []
    monkeypatch.setattr("apn.clock.time.perf_counter", time)
    step = apn.train.training_step

    def thirty_seconds(*arguments: Any, **options: Any) -> Any:
        time.now += 30
        rates.append(arguments[1].model_optimizer.param_groups[0]["lr"])
        return step(*arguments, **options)

    monkeypatch.setattr(apn.train, "training_step", thirty_seconds)
    config = toy_config(toy, steps=1000, minutes=2, schedule="cosine", warmup_steps=0, learning_rate=1e-3)
    whole = run(config, tmp_path / "run")
    assert whole == TrainResult(4, False, whole.metrics)
    expected = [1e-3 * 0.5 * (1 + np.cos(np.pi * share)) for share in (0, 0.25, 0.5, 0.75)]
    assert rates == pytest.approx(expected, abs=3e-5)  # looking at the clock takes time too
    assert is_finished(config.train, tmp_path / "run")
    assert read_training(tmp_path / "run/last")["seconds"] == pytest.approx(120, abs=10)
    again = run(config, tmp_path / "run", resume=tmp_path / "run")
    assert (again.step, len(rates)) == (4, 4)  # nothing left to do


def test_minutes_are_resumed_too(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    monkeypatch.setattr("apn.clock.time.perf_counter", time)
    step = apn.train.training_step

    def half_a_minute(*arguments: Any, **options: Any) -> Any:
        time.now += 30
        return step(*arguments, **options)

    monkeypatch.setattr(apn.train, "training_step", half_a_minute)
    config = toy_config(toy, steps=1000, minutes=2)
    with monkeypatch.context() as patch:
        interrupt_at(0, patch)
        assert run(config, tmp_path / "run").step == 1
    assert not is_finished(config.train, tmp_path / "run")
    assert run(config, tmp_path / "run", resume=tmp_path / "run").step == 4
