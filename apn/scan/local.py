"""Workers as processes of this machine. A thread looks after each: gives it shards, and starts it again if it dies."""

import multiprocessing
import queue
import signal
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from apn.scan.shards import POLL_S, follow
from apn.scan.worker import Outcome, Worker, WorkerPlan

_CONTEXT = multiprocessing.get_context("spawn")  # a fork would share the threads' locks of what is imported here
_END = -1
_READY, _DONE, _FAILED = "ready", "done", "failed"
MOST_STARTS = 3  # of a worker that dies each time before it is ready


class WorkerError(ValueError):
    """A worker cannot work; the message holds what it said."""


def run_local(plan: WorkerPlan, done: frozenset[int], workers: int) -> Generator[Outcome, None, None]:
    """Outcomes of the shards that are not done, as they are done, in any order.

    A worker that dies is replaced, and its shard begun again. Raises WorkerError where one cannot start, or fails other
    than by dying. The processes are gone when the iterator is closed, and end by themselves when this process does.
    """
    outcomes: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
    shared = _Shared(follow(plan.store, done))
    keepers = [_Keeper(plan, shared, outcomes) for _ in range(workers)]
    try:
        for keeper in keepers:
            keeper.start()
        ended = 0
        while ended < workers:
            outcome = outcomes.get()
            if isinstance(outcome, BaseException):
                raise outcome
            ended += outcome is None
            if outcome is not None:
                yield outcome
    finally:
        shared.close()
        for keeper in keepers:
            keeper.kill()
        for keeper in keepers:
            keeper.join()


class _Shared:
    """Shards that several threads take from, each as soon as it is listed; none any more once it is closed."""

    def __init__(self, numbers: Iterator[int | None]) -> None:
        self._numbers, self._lock, self._closed = numbers, threading.Lock(), False

    def __iter__(self) -> Iterator[int]:
        while not self._closed:
            with self._lock:
                number = next(self._numbers, _END)
            if number is None:
                time.sleep(POLL_S)
            elif number == _END:
                return
            else:
                yield number

    def close(self) -> None:
        self._closed = True


class _Keeper(threading.Thread):
    """Looks after one worker process."""

    def __init__(self, plan: WorkerPlan, shards: _Shared, outcomes: "queue.SimpleQueue[Any]") -> None:
        super().__init__(name="apn-keeper", daemon=True)
        self._plan, self._shards, self._outcomes = plan, shards, outcomes
        self._process: Any = None
        self._pipe: Connection | None = None
        self._killed = False

    def run(self) -> None:
        try:
            for number in self._shards:
                self._outcomes.put(self._finish(number))
            self._outcomes.put(None)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that takes outcomes
            self._outcomes.put(error)
        finally:
            self._stop()

    def kill(self) -> None:
        """Ends the process now, from another thread, whatever it is doing."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def _finish(self, number: int) -> Outcome:
        """The outcome of a shard, however many workers it takes."""
        while not self._killed:
            if self._pipe is None:
                self._start()
            try:
                return self._ask(number)
            except (EOFError, OSError):  # it has died
                self._stop()
        raise WorkerError("stopped")

    def _ask(self, number: int) -> Outcome:
        assert self._pipe is not None
        self._pipe.send(number)
        kind, answer = self._pipe.recv()
        if kind == _FAILED:
            raise WorkerError(answer)
        outcome: Outcome = answer
        return outcome

    def _start(self) -> None:
        restarted = self._process is not None
        for _ in range(MOST_STARTS):
            if self._killed:
                raise WorkerError("stopped")
            self._pipe, other_end = _CONTEXT.Pipe()
            self._process = _CONTEXT.Process(
                target=_work, args=(self._plan, other_end, restarted), name="apn-worker", daemon=True
            )
            self._process.start()
            other_end.close()  # so that reading ends when the process does
            try:
                kind, answer = self._pipe.recv()
            except (EOFError, OSError):
                self._stop()
                continue
            if kind == _FAILED:
                raise WorkerError(answer)
            return
        raise WorkerError(f"a worker process died {MOST_STARTS} times before it was ready: is there enough memory?")

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            self._process.join(timeout=5)
            self._process.kill()
            self._process.join()


def _work(plan: WorkerPlan, pipe: Connection, restarted: bool) -> None:
    """What a worker process does until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver too, which ends this process
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the driver is gone, or wants no more
        try:
            worker = Worker(plan, restarted=restarted)
        except Exception as error:  # noqa: BLE001 - the driver raises it again
            pipe.send((_FAILED, _told(error)))
            return
        pipe.send((_READY, None))
        while True:
            number = pipe.recv()
            answer: tuple[str, Any]
            try:
                answer = _DONE, worker(number)
            except Exception as error:  # noqa: BLE001 - the driver raises it again
                answer = _FAILED, _told(error)
            pipe.send(answer)


def _told(error: Exception) -> str:
    """Errors of ours say what is wrong; of others, where they come from helps."""
    return str(error) if type(error) is ValueError else "".join(traceback.format_exception(error))
