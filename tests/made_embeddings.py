"""A table of embeddings with known content: artifacts tell the label, irrelevant parts the source or generator."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from apn.embeddings import Embeddings
from apn.metrics import sigmoid
from apn.scoretable import Category, Scores, TableFacts

GENERATORS = ("adm", "glide", '<img src=x onerror="alert(1)">')
SOURCES = ("camera", "phone")
HOSTILE = "</script><b>&.png"


def category(values: list[str]) -> Category:
    names = sorted(set(values))
    return Category(np.array([names.index(value) for value in values], np.int32), tuple(names))


def made_embeddings(count: int = 120, *, seed: int = 0, folder: Path | None = None, dim: int = 16) -> Embeddings:
    """Every second image is generated; generators and sources take turns; two images a split group.

    With a folder, a picture of each image but the last is written there.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    which = np.arange(count) // 2
    generators = [GENERATORS[which[i] % 3] if labels[i] else "" for i in range(count)]
    sources = ["" if labels[i] else SOURCES[which[i] % 2] for i in range(count)]
    names = [str((folder or Path("made")) / f"{i}{HOSTILE}") for i in range(count)]
    if folder is not None:
        for name in names[:-1]:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(name)
    artifact, irrelevant = rng.normal(size=(2, count, dim))
    artifact[:, 0] += 6 * labels
    irrelevant[np.arange(count), np.where(labels == 1, 1 + which % 3, 4 + which % 2)] += 6
    logits = artifact[:, 0] - 3
    scores = Scores(
        facts=TableFacts(weights="made", sha256="1" * 64, protocols=("native (files as they are)",)),
        paths=pa.array(names, pa.large_string()),
        labels=labels.astype(np.int8),
        generator=category(generators),
        scene=category([""] * count),
        source=category(sources),
        split=category([""] * count),
        subset=category([""] * count),
        protocol=category(["native (files as they are)"] * count),
        degradation=category([""] * count),
        level=category([""] * count),
        groups=(np.arange(count) // 2).astype(np.int32),
        logits=logits,
        probabilities=sigmoid(logits),
        errors=pa.nulls(count, pa.large_string()),
    )
    coverage = rng.random((count, 4, 33))
    heat = rng.random((2, count, 3, 3))
    return Embeddings(scores, artifact, artifact, irrelevant, irrelevant, coverage, *heat, frequency_weight=0.5)
