"""Crops to measure on: of two kinds that our own code makes from the demo's photographs, or of a data set.

Dimensions: N images, S pixels, 224 unless said. Labels: 0 photograph-like, 1 enlarged as generators do it.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from apn.data.layouts import read_data
from apn.data.transforms import align
from apn.image import load_image

JUDGED, RANGES = 1, 2  # seeds: of what is judged, and of what sets the ranges of int8
DEMO = Path(__file__).parent.parent / "demo" / "images"


def made_crops(count: int, seed: int = 0, size: int = 224) -> tuple[np.ndarray, np.ndarray]:
    """(N, S, S, 3) uint8 and labels (N,), in turns; another seed, other parts of the photographs."""
    rng = np.random.default_rng(seed)
    pictures = [Image.open(path).convert("RGB") for path in sorted(DEMO.glob("photo-*"))]
    labels = np.arange(count) % 2
    crops = [_make(pictures[rng.integers(len(pictures))], bool(label), rng, size) for label in labels]
    return np.stack(crops), labels


def given_crops(data: str, count: int, seed: int, size: int, after: int = 0) -> np.ndarray:
    """(N, S, S, 3) uint8: centres of `count` images of a data set, saved alike; RANGES has others than JUDGED.

    data: as `apn train` takes it. after: how many of these images are passed over. Raises ValueError where there are
    too few images.
    """
    samples = read_data(data)
    order = np.random.default_rng(0).permutation(len(samples))
    half = len(samples) // 2
    if after + count > half:
        raise ValueError(f"expected at least {2 * (after + count)} images in {data}, found {len(samples)}")
    chosen = order[:half] if seed == JUDGED else order[half:]
    return np.stack([align(load_image(samples[i].path).pixels, size) for i in chosen[after : after + count]])


def crops_for(seed: int, count: int, size: int, data: str | None, after: int = 0) -> np.ndarray:
    """(N, S, S, 3) uint8 to judge (seed JUDGED) or to set ranges by (RANGES), of a data set where one is given.

    after: how many are passed over, since something was chosen on them.
    """
    return given_crops(data, count, seed, size, after) if data else made_crops(after + count, seed, size)[0][after:]


def _make(picture: Image.Image, enlarged: bool, rng: np.random.Generator, size: int) -> np.ndarray:
    """A random part of the picture with sensor noise; an enlarged one has half the pixels, each doubled."""
    side = rng.uniform(0.4, 1) * min(picture.size)
    left, top = rng.uniform(0, picture.width - side), rng.uniform(0, picture.height - side)
    drawn = size // 2 if enlarged else size
    part = picture.resize((drawn, drawn), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    noisy = np.asarray(part) + rng.normal(0, 4, (drawn, drawn, 3))
    pixels = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    if enlarged:
        pixels = pixels.resize((size, size), Image.Resampling.NEAREST)
    saved = io.BytesIO()
    pixels.save(saved, "jpeg", quality=90)
    return np.asarray(Image.open(saved))
