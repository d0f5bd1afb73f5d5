"""Detector: image -> Detection. The command line, the server and a scan all go through it.

A large image is judged by several native-resolution crops (tiles), whose logits are averaged; nothing is ever resized,
nothing is random. Dimensions: T tiles, S side of a tile, W side of a window (a tile with some surroundings).
"""

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from apn.backends import Backend, BackendName, Device, open_backend, usable_cores
from apn.calibration import Calibration, read_calibration
from apn.crops import center_crop, crop, tile_corners
from apn.detection import Delivery, Detection, Tile, Verdict
from apn.image import ImageError, LoadedImage, load_image
from apn.version import __version__

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
DEFAULT_WEIGHTS = "apn-mini"
TILES_PER_SIDE = 3
BATCH_SIZE = 16
JPEG_QUALITY_WARNING = 50
WINDOW = 4 / 3  # window / tile: after a resize by 0.75 a whole tile is left

Source = str | os.PathLike[str] | bytes | LoadedImage | np.ndarray


class Prepared(NamedTuple):
    """What is kept of an image once it is decoded: bounded memory, whatever its size."""

    path: str
    width: int
    height: int
    facts: LoadedImage | None  # of which the pixels are emptied
    corners: list[tuple[int, int]]  # (top, left) of each tile
    tiles: np.ndarray | None  # (T, S, S, 3) uint8
    windows: list[np.ndarray]  # (W, W, 3) uint8 around each tile, smaller in small images
    warnings: tuple[str, ...]
    error: str | None


class Detector:
    """Says of images whether they are AI-generated. Made by `apn.load`.

    Safe to share between threads where its backend is (ONNX Runtime and PyTorch inference are).
    """

    def __init__(
        self, backend: Backend, *, name: str, sha256: str, crop_size: int, calibration: Calibration, backend_name: str
    ) -> None:
        self.name, self.sha256, self.crop_size, self.calibration = name, sha256, crop_size, calibration
        self.version, self.backend_name = __version__, backend_name
        self._backend = backend

    def describe(self) -> dict[str, Any]:
        """Name, version, sha256 of the weights, thresholds and calibration, as JSON values."""
        facts = self.calibration.describe()
        thresholds = {k: facts.pop(k) for k in ("real_below", "generated_from", "target_fpr", "target_fnr")}
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "backend": self.backend_name,
            "crop_size": self.crop_size,
            "thresholds": thresholds,
            "calibration": facts,
        }

    def detect(self, image: Source, *, stability: bool = True, allow_truncated: bool = False) -> Detection:
        """One image: a path, the bytes of a file, or RGB pixels (H, W, 3) uint8.

        Raises ImageError where it cannot be read.
        """
        (row,) = self.detect_many([image], stability=stability, allow_truncated=allow_truncated)
        if row.error is not None:
            raise ImageError(row.error)
        return row

    def detect_many(
        self,
        images: Iterable[Source],
        *,
        names: Iterable[str] | None = None,
        stability: bool = True,
        allow_truncated: bool = False,
        max_pixels: int | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
    ) -> Iterator[Detection]:
        """A row per image, in order, as soon as it is known; an unreadable image is a row with `error`.

        names: what each row's `path` says (default: the path, or the image's number). batch_size: tiles that the
        network sees at once; it does not change a score. workers: threads that decode ahead of the network.
        """
        options: dict[str, Any] = {"allow_truncated": allow_truncated}
        if max_pixels is not None:
            options["max_pixels"] = max_pixels

        def prepare(pair: tuple[Source, str]) -> Prepared:
            return self._prepare(*pair, stability=stability, options=options)

        pending: list[Prepared] = []
        for prepared in _ahead(prepare, _named(images, names), workers or usable_cores()):
            pending.append(prepared)
            if sum(max(len(p.corners), 1) for p in pending) >= batch_size:  # a broken file has no tile, but is a row
                yield from self._judge(pending, batch_size)
                pending = []
        yield from self._judge(pending, batch_size)

    def tile_logits(self, tiles: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Generated minus real logit (T,) of tiles (T, S, S, 3) uint8."""
        parts = [self._backend(tiles[i : i + batch_size]) for i in range(0, len(tiles), batch_size)]
        logits = np.concatenate(parts) if parts else np.empty((0, 2), np.float32)
        return (logits[:, 1] - logits[:, 0]).astype(float)

    def _prepare(self, source: Source, path: str, *, stability: bool, options: dict[str, Any]) -> Prepared:
        try:
            image = _open(source, options)
        except ImageError as error:
            return Prepared(path, 0, 0, None, [], None, [], (), str(error))
        size, pixels = self.crop_size, image.pixels
        corners = tile_corners(image.height, image.width, size, TILES_PER_SIDE)
        tiles = np.stack([crop(pixels, top, left, size) for top, left in corners])
        windows = [_window(pixels, corner, size) for corner in corners] if stability else []
        facts = image._replace(pixels=np.empty((0, 0, 3), np.uint8))  # a view would keep the whole picture alive
        return Prepared(path, image.width, image.height, facts, corners, tiles, windows, _warnings(image, size), None)

    def _judge(self, images: list[Prepared], batch_size: int) -> Iterator[Detection]:
        """Scores all tiles together, then the re-deliveries of the images whose verdict they could overturn."""
        logits = self._scores([p.tiles for p in images if p.tiles is not None], batch_size)
        rows = [_failed(p) if p.tiles is None else self._row(p, next(logits)) for p in images]
        doubtful = [i for i, p in enumerate(images) if p.windows and rows[i].verdict != "unsure"]
        delivered = [
            np.stack([center_crop(deliver(window), self.crop_size) for window in images[i].windows])
            for i in doubtful
            for deliver in DELIVERIES.values()
        ]
        scores = self._scores(delivered, batch_size)
        for i in doubtful:
            deliveries = tuple(self._delivery(name, float(next(scores).mean())) for name in DELIVERIES)
            rows[i] = _settle(rows[i], deliveries)
        yield from rows

    def _scores(self, groups: list[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
        """Logits of each group of tiles, all groups sharing the batches."""
        logits = self.tile_logits(np.concatenate(groups), batch_size) if groups else np.empty(0)
        return iter(np.split(logits, np.cumsum([len(g) for g in groups])[:-1]))

    def _row(self, image: Prepared, logits: np.ndarray) -> Detection:
        assert image.facts is not None
        logit = float(logits.mean())
        probability = self.calibration.probability(logit)
        facts = image.facts
        return Detection(
            path=image.path,
            verdict=self.calibration.verdict(probability),
            probability=probability,
            logit=logit,
            width=image.width,
            height=image.height,
            format=facts.format,
            frames=facts.frames,
            warnings=image.warnings,
            tiles=tuple(
                Tile(left, top, self.crop_size, self.calibration.probability(float(one)))
                for (top, left), one in zip(image.corners, logits, strict=True)
            ),
            metadata=facts.metadata,
        )

    def _delivery(self, name: str, logit: float) -> Delivery:
        probability = self.calibration.probability(logit)
        return Delivery(name, probability, self.calibration.verdict(probability))


def load(
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    *,
    backend: BackendName = "auto",
    device: Device = "cpu",
    calibration: str | os.PathLike[str] | None = None,
) -> Detector:
    """The detector of shipped weights by name, or of a checkpoint folder.

    calibration: a file of `apn calibrate` to use instead of the weights' own.
    Raises ValueError where the weights, the backend or the device cannot be had.
    """
    folder = find_weights(weights)
    scorer, backend_name = open_backend(folder, backend, device)
    facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Detector(
        scorer,
        name=facts["name"],
        sha256=_weights_sha256(folder),
        crop_size=facts["model"]["image_size"],
        calibration=read_calibration(folder if calibration is None else Path(calibration)),
        backend_name=backend_name,
    )


def find_weights(weights: str | os.PathLike[str]) -> Path:
    """The folder of shipped weights by name, or of any checkpoint by path."""
    for folder in (Path(weights), WEIGHTS_FOLDER / weights):
        if (folder / "config.json").is_file():
            return folder
    shipped = sorted(path.parent.name for path in WEIGHTS_FOLDER.glob("*/config.json"))
    raise ValueError(f"no weights {str(weights)!r}: expected a checkpoint folder or one of {', '.join(shipped)}")


def _weights_sha256(folder: Path) -> str:
    """Of the safetensors, as recorded when they were saved; of the graph where only that is there."""
    training = folder / "training.json"
    if training.is_file():
        return json.loads(training.read_text(encoding="utf-8"))["sha256"]
    return hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()


# Stability: would the verdict survive another delivery? ---------------------------------------------------------------


def _window(pixels: np.ndarray, corner: tuple[int, int], size: int) -> np.ndarray:
    """A copy of the surroundings of a tile, moved inwards at the picture's edge."""
    side = round(size * WINDOW)
    top, left = (max(min(at - (side - size) // 2, n - side), 0) for at, n in zip(corner, pixels.shape[:2], strict=True))
    return pixels[top : top + side, left : left + side].copy()


def _through_codec(pixels: np.ndarray, codec: str, **options: int) -> np.ndarray:
    from PIL import Image, WebPImagePlugin  # noqa: F401  (unnamed, Pillow would look for WebP by loading every plugin)

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, codec, **options)
    return np.asarray(Image.open(file).convert("RGB"))


def _resize(pixels: np.ndarray, factor: float) -> np.ndarray:
    from PIL import Image

    height, width = (max(round(n * factor), 1) for n in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


DELIVERIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG 75": lambda pixels: _through_codec(pixels, "JPEG", quality=75),
    "WebP 80": lambda pixels: _through_codec(pixels, "WEBP", quality=80, method=2),
    "resize x0.75": lambda pixels: _resize(pixels, 0.75),
    "shift 3, 5": lambda pixels: pixels[min(3, pixels.shape[0] - 1) :, min(5, pixels.shape[1] - 1) :],
}


def _settle(row: Detection, deliveries: tuple[Delivery, ...]) -> Detection:
    """The verdict stands only where every delivery of the image gets the same one."""
    differing = [delivery for delivery in deliveries if delivery.verdict != row.verdict]
    if not differing:
        return replace(row, stability=deliveries)
    ways = ", ".join(f"{delivery.name}: {delivery.verdict}" for delivery in differing)
    unsure: Verdict = "unsure"
    warning = f"not stable: {row.verdict} as it is, but after another delivery {ways}"
    return replace(row, verdict=unsure, stability=deliveries, warnings=(*row.warnings, warning))


# Reading --------------------------------------------------------------------------------------------------------------


def _open(source: Source, options: dict[str, Any]) -> LoadedImage:
    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise ImageError(f"expected RGB pixels (H, W, 3) uint8, found {source.shape} {source.dtype}")
        return LoadedImage(source, "pixels", 1, False, None, {})
    return load_image(source, **options)


def _warnings(image: LoadedImage, size: int) -> tuple[str, ...]:
    found = []
    if min(image.width, image.height) < size:
        found.append(
            f"small: {image.width} x {image.height} pixels, made for at least {size} x {size}; do not rely on it"
        )
    if image.quality is not None and image.quality < JPEG_QUALITY_WARNING:
        found.append(f"strongly compressed: JPEG quality about {image.quality}; traces may be lost")
    if image.truncated:
        found.append("truncated: the file ends early, the missing part is filled and scored with the rest")
    return tuple(found)


def _failed(image: Prepared) -> Detection:
    return Detection(path=image.path, error=image.error)


def _named(images: Iterable[Source], names: Iterable[str] | None) -> Iterator[tuple[Source, str]]:
    if names is not None:
        yield from zip(images, names, strict=True)
        return
    for number, image in enumerate(images):
        yield image, os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"


def _ahead(function: Callable[[Any], Prepared], items: Iterable[Any], workers: int) -> Iterator[Prepared]:
    """map(function, items) in order, computed by threads at most 2 x workers items ahead."""
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[Prepared]] = deque()
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > 2 * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:  # a caller that stops early need not wait for what it will not see
            for future in running:
                future.cancel()
