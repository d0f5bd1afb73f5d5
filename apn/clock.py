"""How much of a training run is over, in steps and in minutes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apn.checkpoint import read_training
from apn.config import TrainConfig


def share_done(config: TrainConfig, step: int, seconds: float) -> float:
    """How much of its steps or of its minutes a run has used, whichever is more; from 1 on it is over."""
    return max(step / config.steps, seconds / 60 / config.minutes if config.minutes else 0.0)


def is_finished(config: TrainConfig, run: Path) -> bool:
    """Whether the run folder holds a run that has come to its end under these settings."""
    if not (run / "last").is_dir():
        return False
    training = read_training(run / "last")
    return share_done(config, training["step"], training["seconds"]) >= 1


class Clock:
    """How much of a run is over. It stands still while the run validates or saves, so that those cost no training."""

    def __init__(self, config: TrainConfig, seconds: float = 0.0) -> None:
        self._config, self._before, self._began = config, seconds, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self._before + time.perf_counter() - self._began

    def share(self, step: int) -> float:
        """`share_done` by now."""
        return share_done(self._config, step, self.seconds)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Time in here does not count."""
        before = time.perf_counter()
        yield
        self._began += time.perf_counter() - before
