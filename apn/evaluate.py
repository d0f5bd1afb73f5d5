"""Evaluation, first stage: labelled images -> a table with one score per image. `apn.report` makes the second of it.

Dimensions: N samples. Labels: 0 real, 1 generated.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apn.data.probe import probe
from apn.data.samples import Sample
from apn.detector import BATCH_SIZE, Detector
from apn.image import LoadedImage
from apn.protocols import Protocol
from apn.scoretable import Shortcut, TableFacts, Thresholds
from apn.scorewriter import Condition, ScoreWriter, earlier_facts

HEADERS_PROBED, FILES_PROBED = 20_000, 2000  # images of the shortcut probe: files as they are; those made in memory


class Shown(NamedTuple):
    """A condition and how a sample is opened under it; runs in the threads that decode, may raise ImageError."""

    condition: Condition
    open: Callable[[Sample], LoadedImage]


class Counts(NamedTuple):
    """What a run found: scores there are now, failed ones among them, and how many an earlier run had left."""

    rows: int
    failed: int
    resumed: int


def show(protocol: Protocol) -> Shown:
    """Samples under a protocol, otherwise as they are."""
    return Shown(Condition(protocol.title), lambda sample: protocol.open(sample.path, sample.label))


def score_samples(
    detector: Detector,
    samples: Sequence[Sample],
    shown: Sequence[Shown],
    out: Path,
    facts: TableFacts,
    *,
    batch_size: int = BATCH_SIZE,
    retry_errors: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Counts:
    """Scores every sample under every condition into a Parquet table; a killed run goes on where it stopped.

    A sample that cannot be read is a row with its error. facts: from `table_facts`, with the same samples and
    conditions. advance: called after each row. Raises ValueError where `out` holds scores of something else, and where
    another run is writing it.
    """

    def source(job: int) -> Callable[[], LoadedImage]:
        return partial(shown[job // len(samples)].open, samples[job % len(samples)])

    conditions = [one.condition for one in shown]
    with ScoreWriter(out, samples, conditions, facts, retry_errors=retry_errors) as writer:
        # All conditions of a sample in a row: what was decoded for one may serve the next. Kept as an array, since
        # Python takes ten times as much for each of millions.
        order = writer.todo[np.lexsort((writer.todo, writer.todo % len(samples)))]
        rows = detector.detect_many(
            map(source, map(int, order)),
            names=(str(samples[job % len(samples)].path) for job in map(int, order)),
            stability=False,
            batch_size=batch_size,
        )
        for job, row in zip(map(int, order), rows, strict=True):
            writer.add(job, row.logit, row.probability, row.error)
            advance()
    return Counts(len(samples) * len(shown), writer.failed, writer.resumed)


def table_facts(
    detector: Detector,
    samples: Sequence[Sample],
    shown: Iterable[Shown],
    *,
    data: Sequence[str],
    limit: int | None = None,
    seed: int = 0,
    command: str = "",
    shortcuts: Sequence[Shortcut] = (),
) -> TableFacts:
    """What a table of these scores says of itself. data: specs as typed; limit, seed: of
    `apn.data.select.draw`."""
    known, conditions = detector.calibration, [one.condition for one in shown]
    return TableFacts(
        weights=detector.name,
        sha256=detector.sha256,
        backend=detector.backend_name,
        protocols=tuple(dict.fromkeys(one.protocol for one in conditions)),
        degradations=tuple(dict.fromkeys(f"{one.degradation} {one.level}".strip() for one in conditions)),
        thresholds=Thresholds(
            **{name: getattr(known, name) for name in Thresholds.model_fields},
        ),
        data=tuple(data),
        data_sha256=data_sha256(samples),
        images=len(samples),
        limit=limit,
        seed=seed,
        version=detector.version,
        command=command,
        shortcuts=tuple(shortcuts),
    )


def measure_shortcuts(data: str, samples: Sequence[Sample], protocols: Iterable[Protocol], seed: int) -> list[Shortcut]:
    """The shortcut probe under each protocol, for a table to carry. data: the spec of these samples.

    Its AUC is None where it cannot be measured, for want of a class or of groups.
    """
    found = []
    for protocol in protocols:
        limit = HEADERS_PROBED if protocol.name == "native" else FILES_PROBED
        try:
            told = probe(samples, protocol=protocol, limit=limit, seed=seed)
        except ValueError:  # of one class, or one group
            found.append(Shortcut(data=data, protocol=protocol.title, auc=None))
        else:
            low, high = told.interval
            found.append(Shortcut(data=data, protocol=protocol.title, auc=told.auc, low=low, high=high))
    return found


def shortcuts_of(
    out: Path,
    by_spec: Mapping[str, Sequence[Sample]],
    samples: Sequence[Sample],
    protocols: Iterable[Protocol],
    seed: int,
) -> tuple[Shortcut, ...]:
    """`measure_shortcuts` of each spec's samples, or what an earlier run of the same samples found and left in `out`:
    a run that goes on, or has nothing left to do, does not measure again."""
    earlier = earlier_facts(out)
    if earlier is not None and earlier.shortcuts and earlier.data_sha256 == data_sha256(samples):
        return earlier.shortcuts
    protocols = list(protocols)
    return tuple(one for spec, part in by_spec.items() for one in measure_shortcuts(spec, part, protocols, seed))


def data_sha256(samples: Iterable[Sample]) -> str:
    """SHA-256 of the list of samples: paths, labels and the other fields, in order. Files are not opened."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update("\0".join(map(str, sample)).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def refuse_repeats(samples: Iterable[Sample]) -> None:
    """ValueError where a file is listed twice, by two data specs for instance: it would count twice.

    However its path is spelt; a link is a file of its own, as generators may share photographs by links.
    """
    paths = sorted(os.path.abspath(sample.path) for sample in samples)
    repeated = [path for path, after in itertools.pairwise(paths) if path == after]
    if repeated:
        raise ValueError(f"expected each image once, found {len(repeated)} listed twice, the first {repeated[0]}")
