"""The shortcut probe: how well the label can be told from facts of the file alone, without looking at a pixel.

A detector may take the same shortcut, and then its figures on this data say nothing about artifacts (Grommelt et al.,
"Fake or JPEG? Revealing Common Biases in Generated Image Detection Datasets", 2024). Dimensions: N images, F facts.
Labels: 0 real, 1 generated.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from apn.crops import center_crop
from apn.data.facts import Facts, facts_of
from apn.data.samples import GENERATED, Sample, require_both_classes
from apn.data.select import draw
from apn.image import load_image
from apn.protocols import Protocol

NUMBERS = ("width", "height", "aspect", "bytes", "bytes_per_pixel", "quality", "progressive")
NAMES = ("format", "mode", "subsampling")
FACTS = NAMES + NUMBERS
FOLDS = 5
NATIVE = Protocol("native")

Folds = list[tuple[np.ndarray, np.ndarray]]


class FactAuc(NamedTuple):
    """How well one fact alone tells the label, by the same cross-validation."""

    name: str
    auc: float


class Probe(NamedTuple):
    """What the facts tell. An AUC of 0.5 is nothing, 1 everything."""

    protocol: str  # title: what was done to the files before
    auc: float  # of all facts together, on images that were not fitted
    interval: tuple[float, float]  # 95 %, whole split groups resampled
    facts: tuple[FactAuc, ...]  # the strongest first
    real: int  # images measured
    generated: int
    unreadable: int  # left out: files without facts
    folds: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict() | {"facts": {fact.name: fact.auc for fact in self.facts}}


def probe(
    samples: Sequence[Sample],
    *,
    protocol: Protocol = NATIVE,
    limit: int | None = 20_000,
    without: Sequence[str] = (),
    seed: int = 0,
    workers: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> Probe:
    """Fit gradient-boosted trees to the facts of files as the protocol delivers them, split groups kept together.

    limit: so many samples are drawn (by `seed`) where there are more. without: names of FACTS not to use.
    Under `aligned` only the bytes still differ: with size, codec and quality alike they are a function of the pixels,
    how much detail a picture has, and no longer of the file it came in.
    ValueError unless both classes have files with facts, in two split groups at least.
    """
    if not set(without) < set(FACTS):
        raise ValueError(f"expected to leave out some of {', '.join(FACTS)}, found {', '.join(without)}")
    chosen = draw(samples, limit, seed)
    require_both_classes(chosen)
    results = facts_of(chosen, deliver=lambda s: delivered_file(s, protocol), workers=workers, advance=advance)
    known = _known(chosen, results)
    labels = np.array([sample.label for sample, _ in known])
    groups = np.unique([sample.split_group for sample, _ in known], return_inverse=True)[1]
    folds = _folds(labels, groups, seed)
    columns = _columns([facts for _, facts in known], [name for name in FACTS if name not in without])
    together = _held_out_scores(columns, labels, folds, seed)
    single = {name: _held_out_scores({name: column}, labels, folds, seed) for name, column in columns.items()}

    from apn.bootstrap import bootstrap_interval
    from apn.metrics import auc

    by_fact = (FactAuc(name, auc(labels, scores)) for name, scores in single.items())
    generated = int(labels.sum())
    return Probe(
        protocol=protocol.title,
        auc=auc(labels, together),
        interval=bootstrap_interval(labels, together, groups, seed=seed),
        facts=tuple(sorted(by_fact, key=lambda fact: (-fact.auc, fact.name))),
        real=len(labels) - generated,
        generated=generated,
        unreadable=len(chosen) - len(known),
        folds=len(folds),
    )


def _known(samples: Sequence[Sample], results: Iterable[Facts | str]) -> list[tuple[Sample, Facts]]:
    """The samples whose files have facts, with these; ValueError unless they are of both classes."""
    pairs = list(zip(samples, results, strict=True))
    known = [(sample, facts) for sample, facts in pairs if isinstance(facts, Facts)]
    if len({sample.label for sample, _ in known}) < 2:
        sample, reason = next((sample, facts) for sample, facts in pairs if isinstance(facts, str))
        raise ValueError(
            f"expected files of both classes with readable facts, found {len(known)} of {len(pairs)} readable; "
            f"{sample.path}: {reason}"
        )
    return known


def delivered_file(sample: Sample, protocol: Protocol) -> Path | bytes:
    """The file that a protocol makes of a sample's, in memory; the sample's own where it is left as it is.

    ImageError where it must be decoded for that and cannot be.
    """
    if protocol.name == "native" or (protocol.name == "fakes-jpeg" and sample.label != GENERATED):
        return sample.path
    from PIL import Image

    pixels = load_image(sample.path).pixels
    codec = "jpeg" if protocol.name == "fakes-jpeg" else protocol.codec
    if protocol.name == "aligned":
        pixels = center_crop(pixels, protocol.size)
    file = io.BytesIO()
    # As in apn.data.transforms, so that this is the file which the detector's pixels come from.
    options = {"jpeg": {"quality": protocol.quality}, "webp": {"quality": protocol.quality, "method": 2}}.get(codec, {})
    Image.fromarray(pixels).save(file, codec.upper(), **options)
    return file.getvalue()


def _columns(facts: Sequence[Facts], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Each fact as (N,) float: a number, -1 where a file has none; or the code of a name, or of having none."""
    columns = {}
    for name in names:
        values = [getattr(file, name) for file in facts]
        if name in NAMES:
            codes = {text: code for code, text in enumerate(sorted({str(value) for value in values}))}
            values = [codes[str(value)] for value in values]
        columns[name] = np.array([-1 if value is None else value for value in values], float)
    return columns


def _folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> Folds:
    """(train, test) indices of as many folds as each class has split groups, at most FOLDS."""
    from sklearn.model_selection import StratifiedGroupKFold

    counts = [len(np.unique(groups[labels == label])) for label in (0, 1)]
    if min(counts) < 2:
        raise ValueError(
            f"expected at least 2 split groups of each class to hold one out, found {counts[0]} of real and "
            f"{counts[1]} of generated images"
        )
    splitter = StratifiedGroupKFold(min(FOLDS, *counts), shuffle=True, random_state=seed)
    return list(splitter.split(labels, labels, groups))


def _held_out_scores(columns: Mapping[str, np.ndarray], labels: np.ndarray, folds: Folds, seed: int = 0) -> np.ndarray:
    """(N,) probability of generated from facts, F columns (N,), each from a model that saw no image of its group."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    features = np.stack(list(columns.values()), axis=1)  # (N, F)
    scores = np.empty(len(labels))
    with threadpool_limits(1):  # a fit takes milliseconds; two threads on a busy machine made it seconds
        for train, test in folds:
            # Balanced, so that a model that knows nothing says 0.5 in every fold: the class shares of folds differ a
            # bit, and scores that followed them would rank pooled images by fold, which reads as less than nothing.
            model = HistGradientBoostingClassifier(
                max_iter=50,
                max_leaf_nodes=15,
                min_samples_leaf=min(20, max(1, len(train) // 10)),
                class_weight="balanced",
                categorical_features=[name in NAMES for name in columns],
                early_stopping=False,
                random_state=seed,
            )
            model.fit(features[train], labels[train])
            scores[test] = model.predict_proba(features[test])[:, 1]
    return np.round(scores, 9)  # "0.5" of two folds differ in the last bits
