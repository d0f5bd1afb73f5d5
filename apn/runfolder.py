"""What a run leaves behind: log.jsonl, TensorBoard events, manifests of its data, checkpoints.

All processes call the same things; only the first one writes.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.tensorboard import SummaryWriter

from apn.checkpoint import save_checkpoint
from apn.config import Config
from apn.data.samples import write_manifest
from apn.distributed import gather
from apn.lock import alone
from apn.trainingdata import Splits

LOCK = ".lock"


class RunFolder:
    """The folder of a run; `writes` is whether this process writes to it."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self._writes = path, writes
        self._log = path / "log.jsonl"
        self._board: SummaryWriter | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other run writes to the folder in here; a ValueError in every process where one does.

        A run that ends before it has written anything leaves no folder that was not there.
        """
        with ExitStack() as held:
            refused = ""
            if self._writes:
                if not self.path.exists():
                    held.callback(self._remove_empty)  # once the lock is gone from it
                try:
                    held.enter_context(alone(self.path / LOCK, self.path))
                except ValueError as error:
                    refused = str(error)
            if first := gather(refused)[0]:
                raise ValueError(first)
            yield

    def _remove_empty(self) -> None:
        with suppress(OSError):  # it holds a run
            self.path.rmdir()

    def write_manifests(self, splits: Splits) -> None:
        """train.jsonl, validation.jsonl and test.jsonl; none for a part without samples."""
        if not self._writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for name, samples in zip(("train", "validation", "test"), splits[:3], strict=True):
            if samples:
                write_manifest(samples, self.path / f"{name}.jsonl")

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """The log is written in here, after `step`; what a killed run had written of later steps is dropped."""
        if not self._writes:
            yield
            return
        self._drop_after(step)
        with SummaryWriter(str(self.path / "tensorboard"), purge_step=step + 1) as self._board:
            yield

    def _drop_after(self, step: int) -> None:
        if not self._log.is_file():
            return
        lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [
            line
            for number, line in enumerate(lines, start=1)
            if line.endswith("\n") and self._step(line, number) <= step
        ]
        if len(kept) < len(lines):
            unfinished = self._log.with_name(".log.jsonl.unfinished")
            unfinished.write_text("".join(kept), encoding="utf-8")
            unfinished.replace(self._log)

    def _step(self, line: str, number: int) -> int:
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{self._log}, line {number}: expected JSON with a "step", found {line[:60]!r}: delete the line'
            ) from error

    def log(self, step: int, values: dict[str, float]) -> None:
        """A line of log.jsonl, and the same values for TensorBoard."""
        if not self._writes:
            return
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **{name: round(value, 6) for name, value in values.items()}}) + "\n")
        for name, value in values.items():
            if self._board is not None:
                self._board.add_scalar(name, value, step)

    def save(
        self, name: str, model: nn.Module, config: Config, facts: dict[str, Any], state: dict[str, Any] | None
    ) -> None:
        """A checkpoint, see `save_checkpoint`."""
        if self._writes:
            save_checkpoint(self.path / name, model, config, facts, state)
