"""Tables of embeddings: what the network made of each image before it decided, as `apn embed` writes it.

Such a table is one of scores (`apn.scoretable`) with further columns, so that reports can be made of it too. Where an
image has several tiles, each value is the mean over them, as the logit is.
Dimensions: N images, D embedding size, S side of a tile, L = S // 2 + 1 frequencies, h x w cells of a heat map.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apn.scoretable import Scores, read_scores

Branch = Literal["mean", "spatial", "frequency"]
EMBEDDINGS = ("artifact_spatial", "artifact_frequency", "irrelevant_spatial", "irrelevant_frequency")
COVERAGES = ("amplitude_vertical", "amplitude_horizontal", "phase_vertical", "phase_horizontal")
HEAT_MAPS = ("heat_spatial", "heat_frequency")
SHAPE = b"shape"  # of a heat map, as JSON in the metadata of its column
WEIGHT = b"frequency_weight"  # the model's, as JSON in the metadata of the embeddings' columns


class Embeddings(NamedTuple):
    """The images of a table that were scored; arrays are float32.

    artifact_*, irrelevant_*: (N, D). coverage: (N, 4, L) in the order of COVERAGES: share in [0, 1] of the band weight
    that selects a frequency of 0 .. S // 2 cycles per tile along an axis, mean over colours. heat_*: (N, h, w), 0 and
    more, evidence for `generated` in logit per cell; None where they were left out. frequency_weight: the model's.
    """

    scores: Scores
    artifact_spatial: np.ndarray
    artifact_frequency: np.ndarray
    irrelevant_spatial: np.ndarray
    irrelevant_frequency: np.ndarray
    coverage: np.ndarray
    heat_spatial: np.ndarray | None
    heat_frequency: np.ndarray | None
    frequency_weight: float

    def part(self, name: str, branch: Branch = "mean") -> np.ndarray:
        """(N, D) of `artifact` or `irrelevant`. mean: of both branches by the model's `frequency_weight`, which for
        artifacts is what decides."""
        if branch != "mean":
            return cast(np.ndarray, getattr(self, f"{name}_{branch}"))
        spatial, frequency = (getattr(self, f"{name}_{one}") for one in ("spatial", "frequency"))
        return cast(np.ndarray, self.frequency_weight * frequency + (1 - self.frequency_weight) * spatial)

    @property
    def frequencies(self) -> np.ndarray:
        """(L,) cycles per pixel of the coverage: 0 to 0.5."""
        return np.arange(self.coverage.shape[-1]) / (2 * (self.coverage.shape[-1] - 1))

    def take(self, rows: np.ndarray) -> "Embeddings":
        """Some images, by mask or index, in that order."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns: dict[str, Any] = self._asdict()
        arrays: dict[str, Any] = {name: one[index] for name, one in columns.items() if isinstance(one, np.ndarray)}
        return self._replace(scores=self.scores.take(index), **arrays)


def read_embeddings(path: Path) -> Embeddings:
    """The images of a table of `apn embed` that were scored.

    Raises ValueError that names the file where it is no such table, or holds no scored image.
    """
    (scores,) = read_scores([path])
    if path.suffix != ".parquet" or (missing := {*EMBEDDINGS, *COVERAGES} - set(pq.read_schema(path).names)):
        found = f", found no {', '.join(sorted(missing))}" if path.suffix == ".parquet" else ""
        raise ValueError(f"{path} is not a table of embeddings: expected Parquet as `apn embed` writes it{found}")
    scored = np.flatnonzero(~scores.failed)
    if not len(scored):
        raise ValueError(f"{path} holds no image that was scored: expected at least one")
    table = pq.read_table(path, columns=[*EMBEDDINGS, *COVERAGES]).take(pa.array(scored))
    maps = _heat_maps(path, scored)
    return Embeddings(
        scores=scores.take(scored),
        coverage=np.stack([_array(table, name) for name in COVERAGES], axis=1),
        heat_spatial=maps.get("heat_spatial"),
        heat_frequency=maps.get("heat_frequency"),
        frequency_weight=_frequency_weight(pq.read_schema(path)),
        **{name: _array(table, name) for name in EMBEDDINGS},
    )


def _heat_maps(path: Path, scored: np.ndarray) -> Mapping[str, np.ndarray]:
    schema = pq.read_schema(path)
    if not set(HEAT_MAPS) <= set(schema.names):
        return {}
    table = pq.read_table(path, columns=list(HEAT_MAPS)).take(pa.array(scored))
    shapes = {name: json.loads(schema.field(name).metadata[SHAPE]) for name in HEAT_MAPS}
    return {name: _array(table, name).reshape(-1, *shape) for name, shape in shapes.items()}


def _frequency_weight(schema: pa.Schema) -> float:
    """1/2 of a table from before this could be set."""
    metadata = schema.field(EMBEDDINGS[0]).metadata or {}
    return float(json.loads(metadata.get(WEIGHT, b"0.5")))


def _array(table: pa.Table, name: str) -> np.ndarray:  # (N, length); no row is null
    column = table[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
