"""Speed and memory of training, as Markdown tables.

    python bench/training.py steps [--network base mini] [--batch 24] [--steps 5] [--device cpu|cuda]
    python bench/training.py loader [--workers 0 1] [--images 256]
    python bench/training.py curves [--steps 200]

steps:  one step is APN's half and three of CLUB, on made tensors. Each row is a process of its own. The baseline is the
        step restated plainly (bench/plain_training.py) in 32 bits, every CLUB half on a batch of its own.
loader: images per second that reach the trainer, from JPEGs of 500 x 375 pixels, and where the time goes.
curves: the loss of the baseline and of ours over the same batches of apn-mini; noise is that of another seed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detect import make_images
from made_images import made_crops
from memory import forget_peak, peak
from plain_training import make_plain

from apn.config import Config, read_config
from apn.crops import random_crop
from apn.data.dataset import Batch, training_loader
from apn.data.samples import Sample
from apn.data.sampling import BalancedBatches
from apn.data.transforms import TrainTransform
from apn.distributed import start
from apn.heap import keep_freed_memory
from apn.image import load_image
from apn.step import build_trainee, prepare, training_step

CONFIGS = Path(__file__).parent.parent / "configs"


class Row(NamedTuple):
    """What a row of the table trains with."""

    precision: str
    club_data: str
    plain: bool = False
    recompute: bool = False
    keep: bool = False  # freed memory, as `apn train` does


ROWS = {
    "plain restatement, fp32, fresh CLUB batches": Row("32-true", "fresh", plain=True),
    "ours, fp32, fresh": Row("32-true", "fresh"),
    "ours, fp32, reuse": Row("32-true", "reuse"),
    "ours, fp32, reuse, freed memory kept": Row("32-true", "reuse", keep=True),
    "ours, bf16, fresh": Row("bf16-mixed", "fresh"),
    "ours, bf16, reuse": Row("bf16-mixed", "reuse"),
    "ours, bf16, reuse, bands recomputed": Row("bf16-mixed", "reuse", recompute=True),
    "plain restatement, bf16, fresh": Row("bf16-mixed", "fresh", plain=True),
}


def configure(network: str, row: Row, batch: int) -> Config:
    """apn-base or apn-mini without fetched weights, which change no time, and without soft labels, which need a fit."""
    model = ["model.pretrained=false", "model.pretrained_irrelevant=false"]
    model += ["model.head_start=he", "loss.soft_labels=false"]
    train = [f"train.batch_size={batch}", f"train.club_data={row.club_data}", f"train.precision={row.precision}"]
    train += ["train.club_steps=3", f"train.recompute_bands={str(row.recompute).lower()}"]
    return read_config(CONFIGS / f"apn-{network}.toml", (*model, *train))


def stepper(config: Config, plain: bool, device: str) -> Callable[[Batch, Iterator[Batch], int], dict[str, float]]:
    """A function that takes one step of a fresh network, seed 0."""
    torch.manual_seed(config.train.seed)
    fabric = start(device, config.train.precision)
    trainee = build_trainee(config)
    if plain:
        make_plain(trainee)
    prepare(trainee, config.train, device)
    model, optimizer = fabric.setup(trainee.model, trainee.model_optimizer)
    trainee.clubs.to(fabric.device)
    learner = trainee._replace(model=model, model_optimizer=optimizer)
    return lambda batch, club_batches, step: training_step(fabric, learner, batch, club_batches, config, step)


# Steps ---------------------------------------------------------------------------------------------------------------


def noise_batches(config: Config, device: str) -> Iterator[Batch]:
    """The same batch again and again: what is in it does not matter for the time."""
    size, side = config.train.batch_size, config.model.image_size
    image = torch.rand(size, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    label = torch.arange(size).to(device) % 2
    while True:
        yield Batch(image, label, label)


def measure(network: str, row: Row, batch: int, steps: int, device: str, clock: str) -> dict[str, float]:
    """Median seconds of a step and peak memory in MB, in this process. clock: "wall", or "cpu" for all its threads'."""
    now = time.perf_counter if clock == "wall" else time.process_time
    if row.keep:
        keep_freed_memory()
    config = configure(network, row, batch)
    step = stepper(config, row.plain, device)
    batches, seconds = noise_batches(config, device), []
    for number in range(steps + 1):
        if number == 1:  # the first one is there to warm up
            forget_peak()
        started = now()
        step(next(batches), batches, number)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(now() - started)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak()
    return {"seconds": float(np.median(seconds[1:])), "memory": memory}


def compare_steps(networks: list[str], batch: int, steps: int, device: str, clock: str, only: str) -> None:
    print(
        "| network | step | seconds a step | images/s | times the baseline | peak memory |\n|---|---|---|---|---|---|"
    )
    for network in networks:
        base = None
        for name in (name for name in ROWS if only in name or name == next(iter(ROWS))):
            command = [sys.executable, __file__, "one", network, name, str(batch), str(steps), device, clock]
            answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            found = json.loads(answer.splitlines()[-1])
            base = base or found["seconds"]
            ratio, rate = base / found["seconds"], batch / found["seconds"]
            row = f"{found['seconds']:.2f} | {rate:.2f} | {ratio:.2f} | {found['memory'] / 1024:.2f} GB"
            print(f"| apn-{network} | {name} | {row} |", flush=True)


# Loader --------------------------------------------------------------------------------------------------------------


def compare_loaders(workers: list[int], images: int, batch: int, clock: str) -> None:
    """Whole loaders, and one image's way through Pillow. With the clock of this process, workers are left out."""
    now = time.perf_counter if clock == "wall" else time.process_time
    with tempfile.TemporaryDirectory() as folder:
        paths = make_images(Path(folder), images)
        samples = [Sample(path, i % 2, "g" * (i % 2), "", "s", str(i)) for i, path in enumerate(paths)]
        print("| loader | images/s |\n|---|---|")
        for network in ("base", "mini"):
            config = configure(network, Row("32-true", "fresh"), batch)
            transform = TrainTransform(config.data.degradations, config.model.image_size)
            for count in workers if clock == "wall" else [0]:
                batches = BalancedBatches(samples, batch, images // batch, seed=0)
                loaded = training_loader(samples, transform, batches, num_workers=count)
                started = now()
                rate = sum(len(one.label) for one in loaded) / (now() - started)
                print(f"| degradations of apn-{network}, {count or 'no'} workers | {rate:.0f} |", flush=True)
        for name, act in ways_to_open().items():
            started = now()
            for path in paths:
                act(path)
            print(f"| {name}, one core | {len(paths) / (now() - started):.0f} |", flush=True)


def ways_to_open() -> dict[str, Callable[[Path], object]]:
    """What a crop costs. Pillow decodes no part of a JPEG, and its draft mode scales, which is no way to crop."""
    rng = np.random.default_rng(0)
    return {
        "file to pixels (`load_image`)": load_image,
        "file to pixels to a random crop": lambda path: random_crop(load_image(path).pixels, 224, rng),
    }


# Curves --------------------------------------------------------------------------------------------------------------


def curve(row: Row, seed: int, steps: int, batch: int, device: str) -> np.ndarray:
    """Total loss of each step of apn-mini on made crops, the same ones for a seed."""
    config = configure("mini", row, batch)
    config = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
    step = stepper(config, row.plain, device)
    crops, labels = made_crops(512, seed=7, size=config.model.image_size)

    def batches(stream: int) -> Iterator[Batch]:
        rng = np.random.default_rng((seed, stream))
        while True:
            chosen = rng.choice(len(crops), batch, replace=False)
            image = torch.from_numpy(crops[chosen]).permute(0, 3, 1, 2).float() / 255
            yield Batch(image.to(device), torch.from_numpy(labels[chosen]).to(device), torch.from_numpy(chosen))

    apn, club = batches(0), batches(1)
    return np.array([step(next(apn), club, number)["classification"] for number in range(steps)])


def compare_curves(steps: int, batch: int, device: str) -> None:
    base_name, base_row = next(iter(ROWS.items()))
    base = curve(base_row, 0, steps, batch, device)
    others: dict[str, Any] = {f"{base_name}, another seed": curve(base_row, 1, steps, batch, device)}
    for name in ("ours, fp32, fresh", "ours, fp32, reuse", "ours, bf16, fresh", "ours, bf16, reuse"):
        others[name] = curve(ROWS[name], 0, steps, batch, device)
    print("| run | classification loss, last quarter | RMS distance from the baseline's curve |\n|---|---|---|")
    for name, losses in {base_name: base, **others}.items():
        distance = float(np.sqrt(np.mean((losses - base) ** 2)))
        print(f"| {name} | {losses[-(steps // 4) :].mean():.4f} | {distance:.4f} |")


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        network, name, batch, steps, device, clock = sys.argv[2:]
        print(json.dumps(measure(network, ROWS[name], int(batch), int(steps), device, clock)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steps", "loader", "curves"))
    parser.add_argument("--network", nargs="+", default=["base", "mini"], choices=("base", "mini"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rows", default="", help="only rows of this text, beside the baseline")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help="cpu: where others use the machine")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    if options.what == "steps":
        compare_steps(options.network, options.batch, options.steps or 5, options.device, options.clock, options.rows)
    elif options.what == "loader":
        compare_loaders(options.workers, options.images, options.batch, options.clock)
    else:
        compare_curves(options.steps or 200, options.batch, options.device)


if __name__ == "__main__":
    main()
