"""Load on a real server over loopback: is every answer the sender's own, how long does it take, does memory stay put?

    python tests/load_server.py --minutes 5            # the shipped weights
    python tests/load_server.py --minutes 1 --fake     # the test double, for the server alone

Threads send good pictures, several at once, and hostile uploads. Each good picture's answer is compared with the answer
it got before the load, alone. Ends with 1 where an answer is lost, wrong, or of an unexpected status.
"""

import argparse
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent / "server"))
from serving import part, picture, wait_until

SERVER = """
import sys, apn
from apn.server import ServerSettings, serve
serve(apn.load(weights=sys.argv[2], device="cpu"), ServerSettings(port=int(sys.argv[1]), queue_images=16, timeout_s=30))
"""
FAKE = str(Path(__file__).parent / "server" / "serving.py")


class Kind(NamedTuple):
    """A sort of request: how it is sent, and the statuses that are right for it (503 is always right under load)."""

    send: Callable[[httpx.Client, random.Random], tuple[httpx.Response, list[str]]]
    statuses: set[int]
    weight: int


class Load:
    """Sends requests until told to stop, from several threads, and keeps what came of them."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.pictures = {
            f"{red}-{side}.jpg": picture(red, (side, side), "JPEG") for red in (10, 128, 250) for side in (64, 300, 900)
        }
        self.expected: dict[str, float] = {}
        self.seconds: dict[int, list[float]] = {}
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self.stop = threading.Event()
        self.lock = threading.Lock()
        truncated = picture(128, (900, 900), "JPEG")[:2000]
        bomb = picture(0, (9000, 9000))  # 81 megapixels in a few kilobytes
        self.kinds = {
            "one": Kind(lambda client, dice: self.good(client, dice, 1), {200}, 8),
            "several": Kind(lambda client, dice: self.good(client, dice, dice.randint(2, 5)), {200}, 4),
            "not a picture": Kind(lambda client, dice: self.raw(client, [part(dice.randbytes(5000))]), {422}, 1),
            "truncated": Kind(lambda client, dice: self.raw(client, [part(truncated)]), {422}, 1),
            "too many pixels": Kind(lambda client, dice: self.raw(client, [part(bomb)]), {422}, 1),
            "too many files": Kind(lambda client, dice: self.raw(client, [part(b"x")] * 17), {413}, 1),
            "no multipart": Kind(lambda client, dice: (client.post("/v1/detect", json={}), []), {415}, 1),
            "leaves early": Kind(self.leave, {0}, 1),
        }

    def learn(self) -> None:
        """Each picture's answer, alone on an idle server."""
        with httpx.Client(base_url=self.base_url, timeout=60) as client:
            for name, content in self.pictures.items():
                answer = client.post("/v1/detect", files=[part(content, name)])
                answer.raise_for_status()
                self.expected[name] = answer.json()["detections"][0]["probability"]

    def good(self, client: httpx.Client, dice: random.Random, number: int) -> tuple[httpx.Response, list[str]]:
        names = dice.choices(list(self.pictures), k=number)
        return self.raw(client, [part(self.pictures[name], name) for name in names])[0], names

    def raw(self, client: httpx.Client, files: list[Any]) -> tuple[httpx.Response, list[str]]:
        return client.post("/v1/detect", files=files), []

    def leave(self, client: httpx.Client, dice: random.Random) -> tuple[httpx.Response, list[str]]:
        """Hang up in the middle of an upload; status 0."""
        url = httpx.URL(self.base_url)
        with socket.create_connection((url.host, url.port or 80)) as connection:
            connection.sendall(
                b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            )
        return httpx.Response(0), []

    def work(self, seed: int) -> None:
        dice = random.Random(seed)
        names, weights = list(self.kinds), [kind.weight for kind in self.kinds.values()]
        with httpx.Client(base_url=self.base_url, timeout=90) as client:
            while not self.stop.is_set():
                (name,) = dice.choices(names, weights)
                kind, begun = self.kinds[name], time.perf_counter()
                try:
                    answer, sent = kind.send(client, dice)
                except httpx.HTTPError as error:
                    with self.lock:
                        self.wrong.append(f"{name}: no answer ({type(error).__name__}: {error})")
                    continue
                self.record(name, kind, answer, sent, time.perf_counter() - begun)
                if answer.status_code == 503:
                    self.stop.wait(float(answer.headers["retry-after"]) * dice.random())

    def record(self, name: str, kind: Kind, answer: httpx.Response, sent: list[str], seconds: float) -> None:
        status = answer.status_code
        with self.lock:
            self.statuses[name, status] += 1
            self.seconds.setdefault(status, []).append(seconds)
            if status not in kind.statuses | {503}:
                self.wrong.append(f"{name}: {status} {answer.text[:200]}")
            elif status == 200:
                rows = answer.json()["detections"]
                if [row["path"] for row in rows] != sent:
                    self.wrong.append(f"{name}: sent {sent}, answered {[row['path'] for row in rows]}")
                for row in rows:
                    # Another batch size may round the last digits of a float32 otherwise.
                    if abs(row["probability"] - self.expected[row["path"]]) > 1e-4:
                        self.wrong.append(f"{row['path']}: {row['probability']}, alone {self.expected[row['path']]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--weights", default="apn-mini")
    parser.add_argument("--fake", action="store_true", help="the test double instead of weights")
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    program = [FAKE, port, "0.02"] if options.fake else ["-c", SERVER, port, options.weights]
    with subprocess.Popen([sys.executable, *program], stderr=subprocess.PIPE, text=True) as server:
        log: list[str] = []
        assert server.stderr is not None
        reader = threading.Thread(target=log.extend, args=[server.stderr])
        reader.start()
        try:
            wait_until(lambda: server.poll() is not None or healthy(port), 60)
            if server.poll() is not None:
                reader.join()
                print(f"the server did not start; are the weights {options.weights!r} there? It says:", *log[-5:])
                return 1
            return report(Load(f"http://127.0.0.1:{port}"), options, psutil.Process(server.pid))
        finally:
            server.terminate()
            reader.join()
            failures = sum("Traceback" in line for line in log)
            print(f"graceful stop: exit {server.wait()}, {failures} tracebacks in the log")


def healthy(port: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.ConnectError:
        return False


def report(load: Load, options: argparse.Namespace, process: psutil.Process) -> int:
    """Run the load, print what came of it, return the exit code."""
    load.learn()
    memory = [process.memory_info().rss]
    threads = [threading.Thread(target=load.work, args=[seed]) for seed in range(options.threads)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    while (elapsed := time.perf_counter() - begun) < 60 * options.minutes:
        time.sleep(min(5.0, 60 * options.minutes - elapsed))
        memory.append(process.memory_info().rss)
    load.stop.set()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begun
    print(f"{sum(load.statuses.values())} requests in {elapsed:.0f} s from {options.threads} threads")
    for status, seconds in sorted(load.seconds.items()):
        p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
        name = status or "left"
        print(f"{name}: {len(seconds) / elapsed:.1f}/s, p50 {p50:.3f} s, p95 {p95:.3f} s, p99 {p99:.3f} s")
    print(
        "by kind:", ", ".join(f"{name} {status or 'left'}: {n}" for (name, status), n in sorted(load.statuses.items()))
    )
    scrape = httpx.get(f"{load.base_url}/metrics").text.splitlines()
    print("metrics:", ", ".join(line for line in scrape if line.startswith(("apn_queue_images", "apn_held_bytes "))))
    first, last, most = (value / 2**20 for value in (memory[0], memory[-1], max(memory)))
    print(f"RSS: {first:.0f} MB after the first images, {last:.0f} MB at the end, {most:.0f} MB at most")
    print(f"wrong or lost answers: {len(load.wrong)}", *load.wrong[:10], sep="\n  ")
    return 1 if load.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
