"""Where the time of `APN.detect_only` goes, and how far it is from its two trunks alone, as Markdown tables.

    python bench/inference_profile.py [--checkpoint DIR] [--repeats 3] [--threads N] [--operators 12]

One image at a time, as on every processor. Without a checkpoint the weights follow a rule, in apn-base's shapes.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from made_images import made_crops
from networks import golden_base
from torch.profiler import ProfilerActivity, profile

from apn.backends import to_input, usable_cores
from apn.checkpoint import load_model
from apn.models.apn import APN
from apn.models.bands import Spectrum, purify
from apn.models.detect import DetectOnly
from apn.models.frequency import band_mask


def milliseconds(step: Callable[[], Any], repeats: int) -> float:
    """Median of the repeats, after one call to warm up."""
    step()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        times.append((time.perf_counter() - started) * 1000)
    return median(times)


def stages(network: DetectOnly, image: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Each step of one image's way through the network, by name."""
    seen = network.views(image)
    spectrum = network.fourier(seen.frequency)
    bands = network.proposers(spectrum)
    masks = [band_mask(network.config, component, *spectrum.real.shape[-2:]) for component in bands]
    wide = Spectrum(*(part[:, None] for part in spectrum))
    pure = purify(wide, *masks)
    purified = network.fourier.inverse(pure)
    features = network.band_features(purified)
    spatial = network.spatial_features(seen.spatial)
    return {
        "forward transform": lambda: network.fourier(seen.frequency),
        "proposers, amplitude and phase": lambda: network.proposers(spectrum),
        "masks": lambda: [band_mask(network.config, one, *spectrum.real.shape[-2:]) for one in bands],
        "purified spectra": lambda: purify(wide, *masks),
        "inverse transforms": lambda: network.fourier.inverse(pure),
        "band trunk": lambda: network.band_features(purified),
        "spatial trunk": lambda: network.spatial_features(seen.spatial),
        "weights of bands, heads, classifier": lambda: network.judge(features, spatial),
    }


def print_stages(networks: dict[str, DetectOnly], image: torch.Tensor, repeats: int) -> None:
    found = {
        name: {stage: milliseconds(step, repeats) for stage, step in stages(network, image).items()}
        for name, network in networks.items()
    }
    whole = {name: milliseconds(lambda one=network: one(image), repeats) for name, network in networks.items()}  # type: ignore[misc]
    print(f"| ms an image | {' | '.join(networks)} |\n|---|{'---|' * len(networks)}")
    for stage in next(iter(found.values())):
        print(f"| {stage} | {' | '.join(f'{one[stage]:.1f}' for one in found.values())} |")
    print(f"| all in one call | {' | '.join(f'{one:.1f}' for one in whole.values())} |")
    floors = {name: one["band trunk"] + one["spatial trunk"] for name, one in found.items()}
    print(f"| that over the two trunks | {' | '.join(f'{whole[name] / floors[name]:.2f}' for name in found)} |\n")


def print_operators(network: DetectOnly, image: torch.Tensor, count: int) -> None:
    """The operators that take most time by themselves."""
    network(image)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        network(image)
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=count, max_name_column_width=40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--operators", type=int, default=0, help="list so many operators of torch.profiler too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.checkpoint) if options.checkpoint else golden_base()
    assert isinstance(model, APN)
    image = torch.from_numpy(to_input(made_crops(1, size=model.config.image_size)[0]))
    networks = {"float32": model.detect_only(), "bfloat16": model.detect_only(dtype=torch.bfloat16)}
    with torch.inference_mode():
        print_stages(networks, image, options.repeats)
        if options.operators:
            for name, network in networks.items():
                print(name)
                print_operators(network, image, options.operators)


if __name__ == "__main__":
    main()
