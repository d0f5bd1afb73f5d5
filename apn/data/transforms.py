"""From a picture's pixels to one training or evaluation crop, at native resolution, labels unseen (METHOD, section 5).

Format leaks the label: most generated files are PNG, most photographs JPEG. So a transform treats both classes alike,
and with `codec_last` every crop ends in the same lottery of codec and quality: neither the format nor the phase of the
8 x 8 JPEG grid is left to tell the class.

Dimensions: pixels are (H, W, 3) uint8 RGB, S is the side of a crop; every function returns a new array.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageFilter

from apn.config import DegradationConfig
from apn.crops import CROP_SIZE, Pixels, center_crop, random_crop
from apn.deliveries import GRID

Transform = Callable[[Pixels, np.random.Generator], Pixels]
Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
Codec = Literal["jpeg", "webp", "png"]
Degradation = Literal["downscale", "upscale", "history", "flip", "blur", "jpeg", "webp"]

ALIGNED_QUALITY = 96  # the JPEG quality most photographs of GenImage have (Grommelt et al., "Fake or JPEG?", 2024)

_GRID_ANYWHERE = 0.1  # of what `GridsTransform` gives: more costs native files, docs/experiments.md

# How `DeliveredTransform` delivers a picture.
_DELIVERED = 0.3  # of all; with more, files as they are and aligned ones are told less well: docs/experiments.md
_DELIVERED_FACTOR = (0.4, 1.0)
_DELIVERED_WEBP = 0.4  # of those delivered
_DELIVERED_QUALITY = (70, 96)

# Pictures on the web were scaled with all of these; a single one would become a mark of "degraded".
_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def jpeg(pixels: Pixels, quality: int, subsampling: Subsampling = "4:2:0") -> Pixels:
    """Through a JPEG file of this quality, 1 .. 100, and chroma subsampling; (H, W, 3) stays."""
    return _through_file(pixels, "JPEG", quality=quality, subsampling=subsampling)


def webp(pixels: Pixels, quality: int) -> Pixels:
    """Through a lossy WebP file of this quality, 1 .. 100; (H, W, 3) stays."""
    # Effort 2 of 6: half the time of the default; it spends more bytes rather than changing the kind of loss.
    return _through_file(pixels, "WEBP", quality=quality, method=2)


def avif(pixels: Pixels, quality: int) -> Pixels:
    """Through a lossy AVIF file of this quality, 1 .. 100; (H, W, 3) stays."""
    # Speed 8 of 10: the default takes three times as long, for fewer bytes at the same kind of loss. One thread,
    # because many images are coded at once.
    return _through_file(pixels, "AVIF", quality=quality, speed=8, max_threads=1)


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Gaussian blur of standard deviation `sigma` pixels; (H, W, 3) stays. Pillow's, three box filters in a row."""
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise of standard deviation `sigma` grey values of 255, in each colour by itself; (H, W, 3) stays."""
    noisy = pixels + sigma * rng.standard_normal(pixels.shape, np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def resize(
    pixels: Pixels, size: int | tuple[int, int], resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> Pixels:
    """Resample to (size, size, 3), or to (height, width, 3). A degradation; never a way to make a picture fit."""
    height, width = size if isinstance(size, tuple) else (size, size)
    return np.array(Image.fromarray(pixels).resize((width, height), resampling))


def flip(pixels: Pixels) -> Pixels:
    """Mirror left and right; (H, W, 3) stays."""
    return pixels[:, ::-1].copy()


@dataclass(frozen=True)
class TrainTransform:
    """Pixels -> a random, degraded (S, S, 3) crop. A function of the pixels and the generator's state alone."""

    config: DegradationConfig
    size: int = CROP_SIZE

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        config, chosen = self.config, self._choose(rng)
        image = self._crop(pixels, chosen, rng)
        if "flip" in chosen:
            image = flip(image)
        if "blur" in chosen:
            image = blur(image, rng.uniform(*config.blur_sigma))
        if "jpeg" in chosen:
            image = _random_jpeg(image, config.jpeg_quality, rng)
        if "webp" in chosen:
            image = webp(image, _random_quality(config.webp_quality, rng))
        if config.codec_last == "none":
            return image
        if config.codec_last == "mixed" and rng.random() < 0.5:
            return webp(image, _random_quality(config.codec_last_quality, rng))
        return _random_jpeg(image, config.codec_last_quality, rng)

    def _choose(self, rng: np.random.Generator) -> set[Degradation]:
        kinds: tuple[Degradation, ...] = get_args(Degradation)
        if self.config.one_of:
            offered = [kind for kind in kinds if getattr(self.config, kind) > 0]
            kinds = (offered[rng.integers(len(offered))],) if offered else ()
        return {kind for kind in kinds if rng.random() < getattr(self.config, kind)}

    def _crop(self, pixels: Pixels, chosen: set[Degradation], rng: np.random.Generator) -> Pixels:
        """A window of the picture, perhaps saved once before, scaled to the crop's size."""
        config = self.config
        factor = 1.0
        if "downscale" in chosen:
            factor = rng.uniform(*config.downscale_factor)
        elif "upscale" in chosen:
            factor = rng.uniform(*config.upscale_factor)
        back = "downscale" in chosen and config.downscale_back
        # Only the part that becomes the crop is scaled. It ends at the picture's edge: a wrapped seam that
        # untouched pictures of the same size lack would be a mark.
        side = self.size if back else round(self.size / factor)
        if side > self.size:
            side = max(min(side, *pixels.shape[:2]), self.size)
        image = random_crop(pixels, side, rng)
        if (
            config.noise and rng.random() < config.noise
        ):  # without noise no number is drawn: other runs stay as they were
            image = noise(image, rng.uniform(*config.noise_sigma), rng)
        if "history" in chosen:
            image = _random_jpeg(image, config.history_quality, rng)
        down, up = (_FILTERS[i] for i in rng.integers(len(_FILTERS), size=2))
        if back:
            return resize(resize(image, max(round(self.size * factor), 1), down), self.size, up)
        return image if side == self.size else resize(image, self.size, down)


def align(pixels: Pixels, size: int = CROP_SIZE, codec: Codec = "jpeg", quality: int = ALIGNED_QUALITY) -> Pixels:
    """The "aligned" protocol of evaluation: (S, S, 3) centre crop, saved and read again the same way for both classes.

    It evens out format, grid phase and size; what an earlier compression did to the pixels stays. quality: 1 .. 100,
    without meaning for "png".
    """
    cut = center_crop(pixels, size)
    if codec == "png":
        return cut
    return jpeg(cut, quality) if codec == "jpeg" else webp(cut, quality)


@dataclass(frozen=True)
class AlignedTransform:
    """`align` as a transform; nothing random."""

    size: int = CROP_SIZE
    codec: Codec = "jpeg"
    quality: int = ALIGNED_QUALITY

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return align(pixels, self.size, self.codec, self.quality)


@dataclass(frozen=True)
class NativeTransform:
    """The "native" protocol of evaluation: centre crop, pixels as they are; nothing random."""

    size: int = CROP_SIZE

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return center_crop(pixels, self.size)


@dataclass(frozen=True)
class CentreTransform:
    """The centre crop under one of both protocols, native or aligned, with even odds."""

    size: int = CROP_SIZE

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return (center_crop if rng.random() < 0.5 else align)(pixels, self.size)


@dataclass(frozen=True)
class GridsTransform:
    """Mostly as `CentreTransform`, else a crop from an aligned centre whose blocks do not begin at the crop's corner,
    as where a picture was cut after it was saved."""

    size: int = CROP_SIZE

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        if rng.random() >= _GRID_ANYWHERE:
            return CentreTransform(self.size)(pixels, rng)
        return random_crop(align(pixels, _with_grid(pixels, self.size)), self.size, rng)


@dataclass(frozen=True)
class DeliveredTransform:
    """Mostly as `CentreTransform`, else the centre of the picture as a web page delivers it: as large as it is, scaled
    to half or by any factor, though to no less than a crop, and saved as JPEG or WebP. Its place on the codec's grid is
    random."""

    size: int = CROP_SIZE

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        if rng.random() >= _DELIVERED:
            return CentreTransform(self.size)(pixels, rng)
        factor = (1.0, 0.5, rng.uniform(*_DELIVERED_FACTOR))[rng.integers(3)]
        side = _with_grid(pixels, self.size, factor)
        image = center_crop(pixels, side)
        if factor < 1:
            image = resize(image, max(round(side * factor), self.size), _FILTERS[rng.integers(len(_FILTERS))])
        if rng.random() < _DELIVERED_WEBP:
            image = webp(image, _random_quality(_DELIVERED_QUALITY, rng))
        else:
            image = _random_jpeg(image, _DELIVERED_QUALITY, rng)
        return random_crop(image, self.size, rng)


def _with_grid(pixels: Pixels, size: int, factor: float = 1.0) -> int:
    """Side of the square that leaves room for a crop anywhere on a codec's grid, once scaled by `factor`; at most the
    picture's shorter side, at least `size`."""
    return max(min(round((size + GRID) / factor), *pixels.shape[:2]), size)


def _random_quality(between: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.integers(between[0], between[1] + 1))


def _random_jpeg(pixels: Pixels, between: tuple[int, int], rng: np.random.Generator) -> Pixels:
    quality = _random_quality(between, rng)
    return jpeg(pixels, quality, "4:4:4" if rng.random() < 0.5 else "4:2:0")


def _through_file(pixels: Pixels, file_format: str, **options: Any) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))
