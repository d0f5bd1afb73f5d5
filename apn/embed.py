"""Embedding labelled images: both parts of both branches, bands and heat maps of each, into a resumable table.

Dimensions: T tiles, D embedding size, S side of a tile, L = S // 2 + 1 frequencies, K bands, h x w cells of a map.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from apn.backends import Device, OpenBackend, find_weights, to_input, usable_cores
from apn.calibration import Calibration
from apn.checkpoint import load_model
from apn.crops import crops_at, tile_corners
from apn.data.samples import Sample
from apn.detector import TILES_PER_SIDE, Detector, load
from apn.embeddings import COVERAGES, EMBEDDINGS, HEAT_MAPS, SHAPE, WEIGHT
from apn.evaluate import Counts
from apn.heatmaps import tile_maps
from apn.image import ImageError
from apn.models.apn import APN
from apn.models.bands import Proposals, hard_axis_mask, settle_bands
from apn.protocols import Protocol
from apn.scoretable import TableFacts
from apn.scorewriter import Condition, ScoreWriter
from apn.threads import ahead

Values = dict[str, np.ndarray]  # by the name of their column


def open_embedder(
    weights: str | os.PathLike[str], device: Device = "cpu", calibration: Path | None = None
) -> tuple[APN, Detector]:
    """The network of the weights, and the detector that says what they are and how they are calibrated.

    Raises ValueError for weights that are not an APN's.
    """
    folder = find_weights(weights)
    model = load_model(folder, device=device)
    if not isinstance(model, APN):
        raise ValueError(
            f"expected weights of an APN, which has two branches, found {type(model).__name__} in {folder}"
        )

    @torch.inference_mode()
    def logits(crops: np.ndarray) -> np.ndarray:
        return model(_input(model, crops), irrelevant=False).logits.float().cpu().numpy()

    return model, load(weights, backend=OpenBackend(logits, "torch"), calibration=calibration)


def embed_samples(
    model: APN,
    calibration: Calibration,
    samples: Sequence[Sample],
    protocol: Protocol,
    out: Path,
    facts: TableFacts,
    *,
    heat_maps: bool = True,
    batch_size: int = 16,
    retry_errors: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Counts:
    """Embeds every sample under a protocol into a Parquet table; a killed run goes on where it stopped.

    heat_maps: LayerCAM too, which takes about as long again. The rest is as in `apn.evaluate.score_samples`.
    """
    columns = columns_of(model, heat_maps)
    conditions = [Condition(protocol.title)]
    open_tiles = partial(_tiles, samples, protocol, model.config.image_size)
    with ScoreWriter(out, samples, conditions, facts, columns=columns, retry_errors=retry_errors) as writer:
        images = ahead(open_tiles, map(int, writer.todo), usable_cores())
        for job, found in _embedded(model, images, heat_maps, batch_size):
            if isinstance(found, str):
                writer.add(job, None, None, found)
            else:
                logit = found.pop("logit").item()
                writer.add(job, logit, calibration.probability(logit), None, found)
            advance()
    return Counts(len(samples), writer.failed, writer.resumed)


def columns_of(model: APN, heat_maps: bool) -> list[pa.Field]:
    """The columns that a table of this model's embeddings has behind those of scores."""
    size, dim = model.config.image_size, model.config.embedding_dim
    lengths = dict.fromkeys(EMBEDDINGS, dim) | dict.fromkeys(COVERAGES, size // 2 + 1)
    weight = {WEIGHT: json.dumps(model.config.frequency_weight)}
    fields = [
        pa.field(name, pa.list_(pa.float32(), length), metadata=weight if name in EMBEDDINGS else None)
        for name, length in lengths.items()
    ]
    if heat_maps:
        maps = tile_maps(model, torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
        for name, cells in zip(HEAT_MAPS, (maps.spatial[0], maps.frequency[0]), strict=True):
            shape = {SHAPE: json.dumps(cells.shape)}
            fields.append(pa.field(name, pa.list_(pa.float32(), cells.size), metadata=shape))
    return fields


Tiles = tuple[int, np.ndarray | str]  # job; (T, S, S, 3) uint8, or why the image could not be read


def _tiles(samples: Sequence[Sample], protocol: Protocol, size: int, job: int) -> Tiles:
    sample = samples[job]
    try:
        image = protocol.open(sample.path, sample.label)
    except ImageError as error:
        return job, str(error)
    corners = tile_corners(image.height, image.width, size, TILES_PER_SIDE)
    return job, crops_at(image.pixels, corners, size)


def _embedded(
    model: APN, images: Iterator[Tiles], heat_maps: bool, batch_size: int
) -> Iterator[tuple[int, Values | str]]:
    """Jobs in order with their values; tiles of several images share a batch."""
    pending: list[Tiles] = []
    for image in images:
        pending.append(image)
        if sum(1 if isinstance(tiles, str) else len(tiles) for _, tiles in pending) >= batch_size:
            yield from _embedded_batch(model, pending, heat_maps)
            pending = []
    yield from _embedded_batch(model, pending, heat_maps)


def _embedded_batch(model: APN, images: list[Tiles], heat_maps: bool) -> Iterator[tuple[int, Values | str]]:
    tiles = [tiles for _, tiles in images if not isinstance(tiles, str)]
    values = see(model, _input(model, np.concatenate(tiles)), heat_maps) if tiles else {}
    cuts = np.cumsum([len(one) for one in tiles])[:-1]
    by_image = iter(zip(*(np.split(column, cuts) for column in values.values()), strict=True))
    for job, found in images:
        if isinstance(found, str):
            yield job, found
        else:
            means = (column.mean(axis=0).ravel() for column in next(by_image))
            yield job, dict(zip(values, means, strict=True))


def see(model: APN, tiles: Tensor, heat_maps: bool = True) -> Values:
    """What `model` makes of tiles (T, 3, S, S) in [0, 1], by column: logit (T, 1), embeddings (T, D), coverages (T, L),
    heat maps (T, h, w)."""
    with torch.inference_mode():
        output = model(tiles)
        coverage = axis_coverage(model, output.proposals, output.band_weights)
    values = {"logit": output.logits[:, 1:] - output.logits[:, :1]}
    values |= {name: getattr(output, name) for name in EMBEDDINGS}
    values |= {name: coverage[:, place] for place, name in enumerate(COVERAGES)}
    arrays = {name: value.float().cpu().numpy() for name, value in values.items()}
    if heat_maps:
        maps = tile_maps(model, tiles)
        arrays |= dict(zip(HEAT_MAPS, (maps.spatial, maps.frequency), strict=True))
    return arrays


def axis_coverage(model: APN, proposals: Proposals, weights: Tensor) -> Tensor:
    """(B, 4, L) as in `Embeddings.coverage`, of the bands that `model` proposed and their weights (B, K, 1)."""
    size = model.config.image_size
    shares = []
    for component in proposals:
        for axis, edges in zip(("rows", "columns"), component, strict=True):
            folded = axis == "columns" or model.config.band_rows == "symmetric"
            settled = settle_bands(edges, suppress=model.config.band_suppression)
            mask = hard_axis_mask(settled, size // 2 + 1 if folded else size)
            mask = mask.float().mean(dim=2)  # (B, K, L) or, as stored, (B, K, S)
            share = (weights * mask).sum(dim=1) / weights.sum(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
            shares.append(share if folded else _fold(share))
    return torch.stack(shares, dim=1)


def _fold(share: Tensor) -> Tensor:
    """(B, S) of rows as stored -> (B, L): the mean of a frequency and its negative."""
    size = share.shape[-1]
    rows = torch.arange(size // 2 + 1, device=share.device)
    return (share[:, rows] + share[:, -rows % size]) / 2


def _input(model: APN, crops: np.ndarray) -> Tensor:
    return torch.from_numpy(to_input(crops)).to(next(model.parameters()).device)
