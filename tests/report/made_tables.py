"""Tables of scores as `apn score` and `apn robustness` write them: three generators, two scenes, made numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made import ALIGNED, NATIVE

from apn.metrics import sigmoid
from apn.scoretable import METADATA_KEY, SCHEMA, Shortcut, TableFacts, Thresholds

GENERATORS = ("biggan", "sd15", "<img src=x onerror=alert(1)>")


def made_rows(
    names: Sequence[str], protocol: str, *, quality: float = 1.5, degradation: str = "", level: str = "", seed: int = 0
) -> dict[str, list[object]]:
    """A row a name, every other one generated; generated logits lie `quality` above real ones, with the same noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(len(names)) % 2
    logits = rng.normal(0, 1, len(names)) + quality * (labels - 0.5)
    return {
        "path": list(names),
        "label": labels.tolist(),
        "generator": [GENERATORS[i // 2 % 3] if label else "" for i, label in enumerate(labels)],
        "scene": ["indoor" if i % 3 else "outdoor" for i in range(len(names))],
        "source": ["" if label else "camera" for label in labels],
        "split": [""] * len(names),
        "split_group": [f"group {i // 4}" for i in range(len(names))],
        "subset": [""] * len(names),
        "protocol": [protocol] * len(names),
        "degradation": [degradation] * len(names),
        "level": [level] * len(names),
        "logit": logits.tolist(),
        "probability": sigmoid(logits).tolist(),
        "error": [None] * len(names),
    }


def write_table(path: Path, parts: Sequence[dict[str, list[object]]], *, weights: str = "apn-mini") -> Path:
    """One Parquet table of all parts, with thresholds of 0.4 and 0.6 and a shortcut probe a protocol."""
    columns = {name: [value for part in parts for value in part[name]] for name in SCHEMA.names}
    facts = TableFacts(
        weights=weights,
        sha256=f"{weights}-0123456789abcdef",
        backend="onnx",
        protocols=tuple(dict.fromkeys(columns["protocol"])),
        thresholds=Thresholds(real_below=0.4, generated_from=0.6, target_fpr=0.05, fitted_on="made"),
        data=("folder:made",),
        images=len(columns["path"]),
        version="1.2.3",
        command="apn score folder:made",
        shortcuts=(
            Shortcut(data="folder:made", protocol=NATIVE, auc=0.987, low=0.954, high=0.999),
            Shortcut(data="folder:made", protocol=ALIGNED, auc=0.5, low=0.48, high=0.52),
        ),
    )
    table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in SCHEMA})
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: facts.model_dump_json()}), path)
    return path
