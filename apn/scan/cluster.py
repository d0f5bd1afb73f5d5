"""Workers as actors of a Ray cluster, fed by Ray Data: a row of its data set is a shard, in and out.

Ray Data keeps the pool of actors busy, replaces those that die, and gives their shards to others. Pixels never travel
through Ray: an actor reads the images of its shard and writes the part, where the sources and OUT can be reached.
"""

import logging
import os
import socket
import time
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from apn.scan.shards import POLL_S, follow
from apn.scan.tally import Tally
from apn.scan.worker import Outcome, Worker, WorkerPlan

LISTENS_WITHIN = 10.0  # seconds


class Pool(NamedTuple):
    """workers: at most this many actors, None for as many as fit. cores, gpus: of each."""

    workers: int | None = None
    cores: float = 1
    gpus: float = 0


def connect(address: str) -> None:
    """Joins a cluster: `auto` for the one of this machine or of RAY_ADDRESS, `local` to start one, or its address.

    Raises ValueError where there is no such cluster.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which a cluster started here would send
    try:
        _require_listener(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ValueError(
            f"no Ray cluster at {address!r}: expected one started with `ray start --head`, or --ray local ({error})"
        ) from error


def _require_listener(address: str) -> None:
    """ConnectionError where nothing listens at HOST:PORT or ray://HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), LISTENS_WITHIN).close()
    except OSError as error:
        raise ConnectionError(f"nothing listens there: {error}") from error


def run_on_ray(plan: WorkerPlan, done: frozenset[int], pool: Pool) -> Generator[Outcome, None, None]:
    """Outcomes of the shards that are not done, as they are done, in any order."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that progress is ours to tell
    most = pool.workers or workers_that_fit(pool)
    context = DataContext.get_current()
    context.target_max_block_size = 1  # byte: each shard on its way as soon as it is listed or done, not in company
    context.enable_progress_bars = False
    shards = ray.data.read_datasource(_Shards(plan, done), override_num_blocks=1, num_cpus=0)
    outcomes = shards.map_batches(
        _Actor,
        fn_constructor_args=(plan,),
        batch_size=1,
        # A pool that may shrink: an actor whose node is lost, and which fits nowhere, gets the place of an idle one. In
        # flight: the shard that an actor is at and the next, which wait with it if it has to be started again.
        compute=ActorPoolStrategy(min_size=1, initial_size=most, max_size=most, max_tasks_in_flight_per_actor=2),
        num_cpus=pool.cores,
        num_gpus=pool.gpus,
    )
    for row in outcomes.iter_rows():
        yield Outcome(int(row["number"]), Tally.model_validate_json(row["tally"]))


def workers_that_fit(pool: Pool) -> int:
    """Actors that the cluster has room for now, at least one."""
    there = ray.cluster_resources()
    rooms = [there.get("CPU", 0) / pool.cores] + ([there.get("GPU", 0) / pool.gpus] if pool.gpus else [])
    return max(1, int(min(rooms)))


class _Shards(Datasource):
    """Numbers of the shards to do, as they are listed: one task, which waits for the list to grow."""

    def __init__(self, plan: WorkerPlan, done: frozenset[int]) -> None:
        super().__init__()
        self._store, self._done = plan.store, done

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        store, done = self._store, self._done

        def read() -> Iterable[pa.Table]:
            for number in follow(store, done):
                if number is None:
                    time.sleep(POLL_S)
                else:
                    yield pa.table({"number": [number]})

        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(read, unknown)]


class _Actor:
    """A worker that Ray Data keeps."""

    def __init__(self, plan: WorkerPlan) -> None:
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._worker = Worker(plan, restarted=restarted)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        outcomes = [self._worker(int(number)) for number in batch["number"]]
        return {
            "number": [outcome.number for outcome in outcomes],
            "tally": [outcome.tally.model_dump_json() for outcome in outcomes],
        }
