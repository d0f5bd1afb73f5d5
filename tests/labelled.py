"""Labelled pictures of our own making, as commands take them."""

from pathlib import Path

import numpy as np
from PIL import Image


def labelled_folder(folder: Path, count: int, side: int = 64) -> Path:
    """Real: smooth ramps; generated: noise. What the detector makes of them does not matter here."""
    rng = np.random.default_rng(0)
    for label in ("real", "generated"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            ramp = np.linspace(0, 200, side)[:, None, None] + rng.uniform(0, 50, (1, side, 3))
            pixels = rng.uniform(0, 255, (side, side, 3)) if label == "generated" else ramp
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder
