"""Work on files in threads: reading and decoding let go of the interpreter."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, most: int | None = None
) -> Iterator[Result]:
    """map(function, items) in order, computed at most `most` items ahead (8 for each worker by default).

    Memory does not grow with the number of items. Where `items` raises, the results of those before come out first.
    """
    most = 8 * workers if most is None else most
    given, failure = iter(items), None
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[Result]] = deque()
        try:
            while failure is None:
                try:
                    item = next(given)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - raised again below, once what was begun has come out
                    failure = error
                else:
                    running.append(pool.submit(function, item))
                    if len(running) > most:
                        yield running.popleft().result()
            while running:
                yield running.popleft().result()
            if failure is not None:
                raise failure
        finally:  # a caller that stops early need not wait for what it will not see
            for future in running:
                future.cancel()
