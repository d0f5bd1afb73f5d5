"""Time of `apn explain` for the images of demo/: what the start costs, then seconds an image with figure and parts.

python bench/explain.py [--weights WEIGHTS] [--rounds 3]
python bench/explain.py --untrained configs/apn-base.toml    # weights as drawn, which take as long
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path


def save_untrained(settings: Path, folder: Path) -> None:
    """A checkpoint of the network, which asks no model hub for anything."""
    import torch

    from apn.checkpoint import save_checkpoint
    from apn.config import read_config
    from apn.models.build import build_network

    config = read_config(
        settings, ("model.pretrained=false", "model.pretrained_artifact=false", "model.pretrained_irrelevant=false")
    )
    torch.manual_seed(0)
    save_checkpoint(folder, build_network(config.model), config, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="apn-mini")
    parser.add_argument("--untrained", type=Path, help="settings of a network, in place of weights")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    begun = time.perf_counter()
    import apn
    from apn.explain_files import Format, write_explanation
    from apn.explanations import explain

    images = sorted((Path(__file__).parents[1] / "demo" / "images").iterdir())
    explaining, writing, processor = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights
        if options.untrained:
            save_untrained(options.untrained, weights := Path(folder) / "weights")
        model, detector = apn.load_model(weights), apn.load(weights)
        found = explain(model, images[0], detector=detector)  # PyTorch loads and plans, Matplotlib looks for fonts
        write_explanation(found, Path(folder), "first", {Format.PNG}, detector, stability=True)
        print(f"start: {time.perf_counter() - begun:.1f} s; load average {os.getloadavg()[0]:.1f}")
        for image in images * options.rounds:
            first, used = time.perf_counter(), time.process_time()
            found = explain(model, image, detector=detector)
            second = time.perf_counter()
            write_explanation(found, Path(folder), image.stem, {Format.PNG}, detector, stability=True)
            explaining.append(second - first)
            writing.append(time.perf_counter() - second)
            processor.append(time.process_time() - used)
    both = [sum(pair) for pair in zip(explaining, writing, strict=True)]
    for name, seconds in (("explain", explaining), ("write", writing), ("both", both), ("processor", processor)):
        print(f"{name}: median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s")
    print(f"{len(both)} images, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
