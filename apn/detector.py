"""Detector: image -> Detection. The command line, the server and a scan all go through it.

A large image is judged by several native-resolution crops (tiles), whose logits are averaged; nothing is ever resized,
nothing is random. Dimensions: T tiles, S side of a tile.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from apn.backends import (
    Backend,
    BackendName,
    Device,
    OpenBackend,
    find_weights,
    open_backend,
    usable_cores,
    weights_sha256,
)
from apn.calibration import Calibration, read_calibration
from apn.crops import crops_at, tile_corners
from apn.deliveries import DELIVERIES, deliver
from apn.detection import Delivery, Detection, Tile, Verdict
from apn.doubts import colourfulness, doubts, flatness, silences
from apn.image import ImageError, LoadedImage
from apn.sources import Source, is_one, named, open_source
from apn.threads import ahead
from apn.version import __version__

DEFAULT_WEIGHTS = "apn-mini"
TILES_PER_SIDE = 3
DELIVERED_TILES = 4  # of an image, at most, are delivered once more; they tell how far a delivery moves the logit
BATCH_SIZE = 16


class Prepared(NamedTuple):
    """What is kept of an image once it is decoded: bounded memory, whatever its size."""

    path: str
    width: int
    height: int
    facts: LoadedImage | None  # of which the pixels are emptied
    corners: list[tuple[int, int]]  # (top, left) of each tile
    tiles: np.ndarray | None  # (T, S, S, 3) uint8
    colour: float  # of the tiles: `colourfulness`
    flat: float  # of the tiles: `flatness`
    delivered: list[np.ndarray]  # after each of DELIVERIES, the tiles of `_delivered`, uint8; empty where not asked for
    warnings: tuple[str, ...]
    error: str | None


class Detector:
    """Says of images whether they are AI-generated. Made by `apn.load`.

    Safe to share between threads where its backend is (ONNX Runtime and PyTorch inference are). A forked process may
    go on with it, another one calls `apn.load` itself.
    """

    def __init__(
        self, backend: Backend, *, name: str, sha256: str, crop_size: int, calibration: Calibration, backend_name: str
    ) -> None:
        self.name, self.sha256, self.crop_size, self.calibration = name, sha256, crop_size, calibration
        self.version, self.backend_name = __version__, backend_name
        self._backend = backend

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Detector cannot be pickled: call apn.load in each process, as the initializer of a pool")

    def describe(self) -> dict[str, Any]:
        """Name, version, sha256 of the weights, thresholds of one score and of the stability check, and calibration, as
        JSON values."""
        facts = self.calibration.describe()
        del facts["checked"]
        thresholds = {k: facts.pop(k) for k in ("real_below", "generated_from", "target_fpr", "target_fnr")}
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "backend": self.backend_name,
            "crop_size": self.crop_size,
            "thresholds": thresholds,
            "checked_thresholds": asdict(self.calibration.thresholds(checked=True)),
            "calibration": facts,
        }

    def detect(self, image: Source, *, stability: bool = True, allow_truncated: bool = False) -> Detection:
        """One image: a path, the bytes of a file, a binary file, or RGB pixels (H, W, 3) uint8.

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
        names: Iterable[str | os.PathLike[str]] | None = None,
        stability: bool = True,
        brief: bool = False,
        allow_truncated: bool = False,
        max_pixels: int | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
    ) -> Iterator[Detection]:
        """A row per image, in order, as soon as it is known; an unreadable image is a row with `error`.

        names: what each row's `path` says (default: the path, or the image's number). brief: no more of an image's
        re-deliveries are scored once one has overturned its verdict; verdicts are the same, in less time. batch_size:
        tiles that the network sees at once; it does not change a score. workers: threads that decode ahead of the
        network. Raises TypeError for what is no source, ValueError for more or fewer names than images, and what
        `images` raises: after the rows of all images before it.
        """
        if is_one(images):
            raise TypeError(f"expected several images, found one ({type(images).__name__}): detect() takes it")
        if isinstance(names, str):
            raise TypeError(f"expected a name for each image, found one text: {names!r}")
        workers = usable_cores() if workers is None else workers
        if batch_size < 1 or workers < 1:
            raise ValueError(f"expected batch_size and workers of at least 1, found {batch_size} and {workers}")
        options: dict[str, Any] = {"allow_truncated": allow_truncated}
        if max_pixels is not None:
            options["max_pixels"] = max_pixels

        def prepare(pair: tuple[Source, str]) -> Prepared:
            return self._prepare(*pair, stability=stability, options=options)

        # A whole batch ahead: decoding goes on while the network is busy with the last one.
        prepared = ahead(prepare, named(images, names), workers, max(2 * workers, batch_size))
        for batch in _batches(prepared, batch_size):
            yield from self._judge(batch, batch_size, brief)

    def tile_logits(self, tiles: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Generated minus real logit (T,) of tiles (T, S, S, 3) uint8."""
        parts = [self._backend(tiles[i : i + batch_size]) for i in range(0, len(tiles), batch_size)]
        logits = np.concatenate(parts) if parts else np.empty((0, 2), np.float32)
        return (logits[:, 1] - logits[:, 0]).astype(float)

    def _prepare(self, source: Source, path: str, *, stability: bool, options: dict[str, Any]) -> Prepared:
        try:
            image = open_source(source, **options)
        except ImageError as error:
            return Prepared(path, 0, 0, None, [], None, 0.0, 0.0, [], (), str(error))
        size, pixels = self.crop_size, image.pixels
        corners = tile_corners(image.height, image.width, size, TILES_PER_SIDE)
        tiles = crops_at(pixels, corners, size)
        again = [corners[i] for i in _delivered(len(corners))]
        delivered = deliver(pixels, again, size) if stability else []
        facts = image._replace(pixels=np.empty((0, 0, 3), np.uint8))  # a view would keep the whole picture alive
        seen, warnings = (colourfulness(tiles), flatness(tiles)), doubts(image, size)
        return Prepared(path, image.width, image.height, facts, corners, tiles, *seen, delivered, warnings, None)

    def _judge(self, images: list[Prepared], batch_size: int, brief: bool) -> Iterator[Detection]:
        """Scores all tiles together, then the re-deliveries of the images whose verdict they could overturn."""
        found = self._scores([p.tiles for p in images if p.tiles is not None], batch_size)
        logits = [np.empty(0) if p.tiles is None else next(found) for p in images]
        rows = [
            _failed(image) if image.tiles is None else self._row(image, one)
            for image, one in zip(images, logits, strict=True)
        ]
        doubtful = [i for i, p in enumerate(images) if p.delivered and rows[i].verdict != "unsure"]
        deliveries: dict[int, list[Delivery]] = {i: [] for i in doubtful}
        names = list(DELIVERIES)
        for ways in [[name] for name in names] if brief else [names]:
            scores = self._scores([images[i].delivered[names.index(way)] for i in doubtful for way in ways], batch_size)
            for i in doubtful:
                deliveries[i] += [self._delivery(way, logits[i], next(scores)) for way in ways]
            if brief:
                doubtful = [i for i in doubtful if deliveries[i][-1].verdict == rows[i].verdict]
        for i, checked in deliveries.items():
            rows[i] = _settle(rows[i], tuple(checked))
        yield from rows

    def _scores(self, groups: list[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
        """Logits of each group of tiles, all groups sharing the batches."""
        logits = self.tile_logits(np.concatenate(groups), batch_size) if groups else np.empty(0)
        return iter(np.split(logits, np.cumsum([len(g) for g in groups])[:-1]))

    def _row(self, image: Prepared, logits: np.ndarray) -> Detection:
        assert image.facts is not None
        logit = float(logits.mean())
        probability = self.calibration.probability(logit)
        facts, silent = image.facts, silences(image.colour, image.flat, self.calibration)
        verdict = self.calibration.thresholds(checked=bool(image.delivered)).verdict(probability)
        if silent or min(image.width, image.height) < self.crop_size:  # small: repeated to fill a crop, seams and all
            verdict = "unsure"
        return Detection(
            path=image.path,
            verdict=verdict,
            probability=probability,
            logit=logit,
            width=image.width,
            height=image.height,
            format=facts.format,
            frames=facts.frames,
            warnings=(*image.warnings, *silent),
            tiles=tuple(
                Tile(left, top, self.crop_size, self.calibration.probability(float(one)))
                for (top, left), one in zip(image.corners, logits, strict=True)
            ),
            metadata=facts.metadata,
        )

    def _delivery(self, name: str, logits: np.ndarray, delivered: np.ndarray) -> Delivery:
        """What becomes of an image's tile logits (T,), judged by the logits of its delivered tiles."""
        logit = float(logits.mean()) + float((delivered - logits[_delivered(len(logits))]).mean())
        probability = self.calibration.probability(logit)
        return Delivery(name, probability, logit, self.calibration.thresholds(checked=True).verdict(probability))


def load(
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    *,
    backend: BackendName | OpenBackend = "auto",
    device: Device = "cpu",
    calibration: str | os.PathLike[str] | None = None,
) -> Detector:
    """The detector of shipped weights by name, or of a checkpoint folder.

    backend: its name, or what `open_backend` made of the same weights. calibration: a file of `apn calibrate`, or a
    folder that has one, to use instead of the weights' own.
    Raises ValueError where the weights, the backend, the device or the calibration cannot be had, and for a calibration
    that was fitted to other weights.
    """
    folder = find_weights(weights)
    opened = open_backend(folder, backend, device) if isinstance(backend, str) else backend
    facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sha256 = weights_sha256(folder)
    return Detector(
        opened.logits,
        name=facts["name"],
        sha256=sha256,
        crop_size=facts["model"]["image_size"],
        calibration=read_calibration(folder) if calibration is None else _own_calibration(Path(calibration), sha256),
        backend_name=opened.name,
    )


def _own_calibration(path: Path, sha256: str) -> Calibration:
    """One that a user chose, of the weights with this sha256."""
    calibration = read_calibration(path, required=True)
    if calibration.weights_sha256 not in (None, sha256):
        raise ValueError(
            f"{path}: expected a calibration of these weights (sha256 {sha256}), found one of others "
            f"({calibration.weights_sha256}): fit one with `apn calibrate --weights`"
        )
    return calibration


# Rows ----------------------------------------------------------------------------------------------------------------


def _batches(images: Iterable[Prepared], tiles: int) -> Iterator[list[Prepared]]:
    """As many images as have so many tiles together. Where `images` raises, those before come out first."""
    pending: list[Prepared] = []
    try:
        for image in images:
            pending.append(image)
            if sum(max(len(p.corners), 1) for p in pending) >= tiles:  # a broken file has no tile, but is a row
                yield pending
                pending = []
    except Exception:
        yield pending
        raise
    yield pending


def _delivered(tiles: int) -> list[int]:
    """Which of an image's tiles are delivered once more: all of a few, else a few from first to last."""
    few = min(tiles, DELIVERED_TILES)
    return [round(i * (tiles - 1) / max(few - 1, 1)) for i in range(few)]


def _settle(row: Detection, deliveries: tuple[Delivery, ...]) -> Detection:
    """The verdict stands only where every delivery of the image gets the same one."""
    differing = [delivery for delivery in deliveries if delivery.verdict != row.verdict]
    if not differing:
        return replace(row, stability=deliveries)
    ways = ", ".join(f"{delivery.name}: {delivery.verdict}" for delivery in differing)
    unsure: Verdict = "unsure"
    warning = f"not stable: {row.verdict} as it is, but not when saved, resized or shifted once more ({ways})"
    return replace(row, verdict=unsure, stability=deliveries, warnings=(*row.warnings, warning))


def _failed(image: Prepared) -> Detection:
    return Detection(path=image.path, error=image.error)
