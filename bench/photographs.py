"""What apn-mini says of photographs that were saved otherwise than those of the corpus: a table of docs/results.md.

    python bench/photographs.py runs/leaveout/apn-mini

Nearly all photographs of the corpus were JPEGs, most with halved colour. Here those that each leave-out run never saw
are scaled to half, which takes that history away, or get noise before or after the JPEG of the aligned protocol;
generated images stay aligned. One crop an image. AUC: mean over the folds. Called generated: above the threshold that
5 % of the fold's aligned photographs reach. The folder holds a run a fold, as bench/compare.py leaves them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from apn.checkpoint import load_model
from apn.crops import Pixels, center_crop
from apn.data.samples import REAL, read_samples
from apn.data.transforms import align, resize
from apn.degradations import noise
from apn.image import load_image
from apn.metrics import auc

FALSE_ALARMS = 0.05
Saved = Callable[[Pixels, np.random.Generator], Pixels]


def halved(pixels: Pixels) -> Pixels:
    return resize(pixels, (round(pixels.shape[0] / 2), round(pixels.shape[1] / 2)))


SAVED: dict[str, Saved] = {
    "aligned": lambda pixels, _: align(pixels),
    "scaled to half, then aligned": lambda pixels, _: align(halved(pixels)),
    "noise of 2 grey values, then aligned": lambda pixels, rng: align(noise(pixels, 2, rng)),
    "noise of 5 grey values, then aligned": lambda pixels, rng: align(noise(pixels, 5, rng)),
    "aligned, then noise of 1 grey value": lambda pixels, rng: noise(align(pixels), 1, rng),
    "aligned, then noise of 2 grey values": lambda pixels, rng: noise(align(pixels), 2, rng),
}


@torch.inference_mode()
def logits(model: torch.nn.Module, pixels: Pixels, ways: list[Saved], size: int) -> list[float]:
    """Logit of generated less that of real of the centre of a picture, saved in each of these ways."""
    crops = np.stack([center_crop(way(pixels, np.random.default_rng(0)), size) for way in ways])
    found = model(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
    return (found[:, 1] - found[:, 0]).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the folds' runs")
    options = parser.parse_args()
    aucs, alarms = [], []
    for run in sorted(options.runs.glob("*/run")):
        model = load_model(run / "last").eval()
        network, size = model.detect_only(), model.config.image_size
        real, generated = [], []
        for sample in read_samples(run / "test.jsonl"):
            pixels = load_image(sample.path).pixels
            if sample.label == REAL:
                real.append(logits(network, pixels, list(SAVED.values()), size))
            else:
                generated += logits(network, pixels, [SAVED["aligned"]], size)
        photographs = np.array(real)  # (N, ways)
        labels = np.repeat([0, 1], [len(photographs), len(generated)])
        aucs.append([auc(labels, np.concatenate([one, generated])) for one in photographs.T])
        threshold = np.quantile(photographs[:, 0], 1 - FALSE_ALARMS)
        alarms.append((photographs > threshold).mean(axis=0))
    print("| photographs | AUC | called generated |\n|---|---|---|")
    for name, area, share in zip(SAVED, np.mean(aucs, axis=0), np.mean(alarms, axis=0), strict=True):
        print(f"| {name} | {area:.3f} | {share:.1%} |")


if __name__ == "__main__":
    main()
