"""Made scores of detectors, for the tests of reports."""

from typing import Any

import numpy as np
import pyarrow as pa

from apn.metrics import sigmoid
from apn.scoretable import Category, Scores, TableFacts

NATIVE, ALIGNED = "native (files as they are)", "aligned (224 px centre, JPEG q96)"


def category(values: list[str]) -> Category:
    names = sorted(set(values))
    return Category(np.array([names.index(value) for value in values], np.int32), tuple(names))


def make_scores(
    labels: np.ndarray, logits: np.ndarray, *, facts: TableFacts | None = None, **texts: list[str] | str
) -> Scores:
    """Scores of one detector; a nan logit is a failed row. texts: columns, as a list or one text for all rows."""
    count = len(labels)
    columns: dict[str, Any] = {}
    for name in ("generator", "scene", "source", "split", "subset", "protocol", "degradation", "level"):
        value = texts.get(name, NATIVE if name == "protocol" else "")
        columns[name] = category([value] * count if isinstance(value, str) else list(value))
    paths = texts.get("paths", [f"{i}.png" for i in range(count)])
    groups = texts.get("groups", list(paths))
    return Scores(
        facts=facts or TableFacts(weights="made", sha256="1" * 64),
        paths=pa.array(paths, pa.large_string()),
        labels=np.asarray(labels, np.int8),
        groups=np.unique(groups, return_inverse=True)[1].astype(np.int32),
        logits=np.asarray(logits, float),
        probabilities=np.where(np.isnan(logits), np.nan, sigmoid(np.nan_to_num(np.asarray(logits, float)))),
        errors=pa.array([None if np.isfinite(logit) else "broken" for logit in logits], pa.large_string()),
        **columns,
    )
