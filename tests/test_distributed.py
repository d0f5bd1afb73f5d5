"""Several processes: two halves of a batch give the gradients of the whole; one clock, one writer, one end.

Each process here is a real one, connected by gloo on the CPU.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from toy import logged, make_toy, run, toy_config
from two_processes import FLOORS, VARIANTS, club_of, step_of

from apn.checkpoint import load_state, read_checkpoint_config, read_training
from apn.config import Config
from apn.models.club import own_batch
from apn.train import _stop_between_steps

HERE = Path(__file__).parent
WHOLE = slice(0, 8)


def environment(**changes: str) -> dict[str, str]:
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **changes}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start_two(*command: str, log: Path) -> list[subprocess.Popen[bytes]]:
    """Two processes as torchrun starts them, but without its watch over them. Output goes to <log>.<rank>."""
    port, processes = str(free_port()), []
    for rank in ("0", "1"):
        env = environment(
            RANK=rank,
            LOCAL_RANK=rank,
            GROUP_RANK="0",
            WORLD_SIZE="2",
            LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            TORCHELASTIC_RUN_ID="test",
        )
        with Path(f"{log}.{rank}").open("wb") as out:
            processes.append(
                subprocess.Popen([sys.executable, *command], env=env, stdout=out, stderr=subprocess.STDOUT)
            )
    return processes


def wait_for(condition: Any, processes: list[subprocess.Popen[bytes]], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        assert all(process.poll() is None for process in processes), "a process ended early"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy"), 40)


@pytest.fixture(scope="module")
def halves(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the processes of two_processes.py computed, by rank."""
    out = tmp_path_factory.mktemp("halves")
    processes = start_two(str(HERE / "two_processes.py"), str(out), str(toy), log=out / "log")
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0, 0], "".join((out / f"log.{rank}").read_text() for rank in (0, 1))
    return [torch.load(out / f"{rank}.pt") for rank in (0, 1)]


# Gradients -----------------------------------------------------------------------------------------------------------


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_halves_give_the_gradients_of_the_whole(variant: str, toy: Path, halves: list[dict[str, Any]]) -> None:
    whole = step_of(toy_config(toy, **VARIANTS[variant]), Fabric(accelerator="cpu", devices=1), WHOLE)
    for half in (part[variant] for part in halves):
        # Information is a small difference of large likelihoods: rounding differs between processors.
        assert half["terms"] == pytest.approx(whole["terms"], rel=1e-5, abs=1e-7)
        assert half["gradients"].keys() == whole["gradients"].keys()  # none is zero that should be absent
        length = flat(whole["gradients"]).norm()
        assert (flat(half["gradients"]) - flat(whole["gradients"])).norm() < 1e-5 * length
        for name, expected in whole["gradients"].items():  # some are zero but for rounding: a scale before batch norm
            assert (half["gradients"][name] - expected).norm() < 1e-4 * expected.norm() + 1e-9 * length, name
        for name, expected in whole["buffers"].items():
            torch.testing.assert_close(half["buffers"][name], expected, rtol=1e-5, atol=1e-6, msg=name)


def test_club_over_all_processes_is_club_of_the_whole_batch(halves: list[dict[str, Any]]) -> None:
    whole = club_of(own_batch, WHOLE)
    parts = [part["club"]["global"] for part in halves]
    assert sum(part["bound"] for part in parts) / 2 == pytest.approx(whole["bound"].item(), rel=1e-6)
    for side in ("artifact", "irrelevant"):
        joined = torch.cat([part[side] for part in parts]) / 2  # DDP averages
        torch.testing.assert_close(joined, whole[side], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("above", FLOORS)
def test_a_floor_is_that_of_the_whole_batchs_bound(above: float, halves: list[dict[str, Any]]) -> None:
    """Of both parts one lies on its other side."""
    bound, whole = club_of(own_batch, WHOLE)["bound"].item(), club_of(own_batch, WHOLE, above)
    lower, upper = sorted(part["club"]["global"]["bound"].item() for part in halves)
    assert lower < bound + above < upper
    parts = [part["club"][f"floor {above:+}"] for part in halves]
    assert sum(part["bound"] for part in parts) / 2 == pytest.approx(max(bound, bound + above), rel=1e-6)
    for side in ("artifact", "irrelevant"):
        joined = torch.cat([part[side] for part in parts]) / 2
        torch.testing.assert_close(joined, whole[side], rtol=1e-5, atol=1e-7)
    assert bool(whole["artifact"].any()) == (above < 0)


def test_club_with_local_negatives_is_club_of_each_part(halves: list[dict[str, Any]]) -> None:
    for rank, part in enumerate(halves):
        torch.testing.assert_close(part["club"]["local"], club_of(own_batch, slice(4 * rank, 4 * rank + 4)))


def test_what_processes_tell_each_other(halves: list[dict[str, Any]]) -> None:
    one, other = (part["small"] for part in halves)
    assert one.pop("random") != other.pop("random")
    assert one == other
    assert one == {
        "gathered": [("rank", 0), ("rank", 1)],
        "agreed": [(0.25, True), (0.25, True), (0.25, False)],  # the first one's clock, anyone's stop
        "gradients": [[[1.5, 1.5]], [2.0]],
        "running_mean": 5.0,  # the first one's
    }


# Whole runs ----------------------------------------------------------------------------------------------------------


def long_config(toy: Path, **changes: Any) -> Config:
    """Whatever the number of processes, the same numbers: batch norm over all of them."""
    return toy_config(
        toy,
        sync_batchnorm=True,
        save_every=2,
        validate_every=2,
        ema_decay=0.5,
        batch_size=8,
        learning_rate=2e-4,
        **changes,
    )


def written(config: Config, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json())
    return str(folder / "config.json")


def steps_of(out: Path) -> list[int]:
    return [row["step"] for row in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "total" in row]


@pytest.fixture(scope="module")
def whole(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of one process, 8 steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(long_config(toy, steps=8), out)
    return out


def assert_same_curves(out: Path, whole: Path) -> None:
    assert steps_of(out) == steps_of(whole)
    for name in ("total", "classification", "information", "club_learning", "validation_auc"):
        assert logged(out, name) == pytest.approx(logged(whole, name), rel=2e-3, abs=1e-4), name


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_which_goes_on_in_one_process(toy: Path, whole: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "run", long_config(toy, steps=8)
    # It stops for good after step 3, where the test kills it.
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command = [sys.executable, *launcher, str(HERE / "stalling.py"), written(config, tmp_path / "config"), str(out)]
    with (tmp_path / "log").open("wb") as log:
        torchrun = subprocess.Popen(command, env=environment(STALL="3"), stdout=log, stderr=log)
    wait_for((out / "stalled.1").exists, [torchrun])
    assert (out / "last").is_dir()
    os.kill(int((out / "stalled.1").read_text()), signal.SIGKILL)
    assert torchrun.wait(timeout=120) != 0
    said = (tmp_path / "log").read_text()
    assert "apn: process 0 of 2 lost another one" in said, said
    assert f"go on from the last checkpoint with --resume {out}" in said
    assert "exitcode  : -9" in said  # torchrun names the culprit
    assert read_training(out / "last")["step"] == 2
    assert read_training(out / "last")["processes"] == 2
    assert len(load_state(out / "last")["rng"]) == 2
    assert read_checkpoint_config(out / "last") == config
    run(config, out, resume=out)
    assert_same_curves(out, whole)


def test_a_process_that_lost_another_outlives_the_launchers_signal_to_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apn.train.world_size", lambda: 2)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(RuntimeError, match="gloo"), _stop_between_steps():
            raise RuntimeError("gloo: connection closed by peer")
        os.kill(os.getpid(), signal.SIGTERM)  # as torchrun does, while the error is on its way to the terminal
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_two_and_stops_with_one_signal(toy: Path, whole: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "run", long_config(toy, steps=8)
    run(config.model_copy(update={"train": config.train.model_copy(update={"steps": 2})}), out)
    (out / "log.jsonl").rename(out / "first.jsonl")
    endless = config.model_copy(update={"train": config.train.model_copy(update={"steps": 100_000})})
    command = ["-m", "apn", "train", written(endless, tmp_path / "config"), "--out", str(out), "--resume", str(out)]
    processes = start_two(*command, "--device", "cpu", log=tmp_path / "log")
    wait_for(lambda: (out / "log.jsonl").exists() and steps_of(out)[-1:] >= [8], processes)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert [process.wait(timeout=120) for process in processes] == [130, 130]
    steps = steps_of(out)
    assert steps == list(range(3, steps[-1] + 1))  # each written once
    assert read_training(out / "last")["step"] == steps[-1]
    texts = [Path(f"{tmp_path / 'log'}.{rank}").read_text() for rank in (0, 1)]
    assert f"stopped after step {steps[-1]}; go on with: torchrun --nproc-per-node 2 -m apn train" in texts[0]
    for said in ("train: ", "validation", "stopped after"):  # one writer
        assert (said in texts[0], said in texts[1]) == (True, False)
    for name in ("total", "classification", "information", "club_learning"):
        assert logged(out, name)[:6] == pytest.approx(logged(whole, name)[2:8], rel=2e-3, abs=1e-4), name
    assert logged(out, "validation_auc")[:3] == pytest.approx(logged(whole, "validation_auc")[1:4])
