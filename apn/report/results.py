"""What a report says: numbers only, no rendering. Made by `apn.report.build`, drawn by tables, figures and page.

An estimate that is undefined (a set of one class has no AUC) is nan, and is shown as "undefined".
"""

from typing import Literal, NamedTuple

from apn.metrics import Metrics

ONE_SCORE = (
    "One score an image decides here. apn detect checks stability as well, unless told --no-stability, and has "
    "thresholds of its own for that: it calls other shares of images generated or real."
)


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval; nan where undefined."""

    value: float
    low: float
    high: float


class Detector(NamedTuple):
    """Who scored. `label` is its name, with the start of its sha256 where two detectors share one."""

    label: str
    name: str
    sha256: str
    backend: str
    version: str  # of apn
    command: str  # that made the (first) table
    data: tuple[str, ...]  # specs as typed
    seed: int


class Threshold(NamedTuple):
    """The frozen threshold of one detector: generated where the score reaches `value`."""

    value: float
    on: Literal["probability", "logit"]
    origin: str  # in words, for a caption: "0.831, calibration of apn-mini at 5 % FPR"


class Row(NamedTuple):
    """The metrics of one set of images. `failed` of them have no score and count nowhere else."""

    name: str  # "all", a generator or scene, or "mean"
    kind: Literal["all", "group", "mean"]
    real: int
    generated: int
    failed: int
    metrics: Metrics[Estimate]


class Table(NamedTuple):
    """One detector under one protocol, by generator or by scene: all images, then each group, then their mean."""

    title: str  # names detector and protocol
    detector: str  # Detector.label
    protocol: str  # its title, with the parameters
    by: Literal["generator", "scene"]
    threshold: Threshold
    rows: tuple[Row, ...]


class PairedTest(NamedTuple):
    """Two detectors on the images that both have scored. Differences are first minus second."""

    first: str
    second: str
    protocol: str
    images: int
    only_first_right: int  # at the frozen thresholds
    only_second_right: int
    mcnemar: float  # exact two-sided p-value
    auc_difference: Estimate


class ShortcutProbe(NamedTuple):
    """How well file facts alone tell the label in one data set, stored when it was scored; 0.5 is nothing."""

    data: str
    protocol: str  # title: what was done to the files before
    auc: Estimate


class Failure(NamedTuple):
    """A file without a score."""

    detector: str
    protocol: str
    path: str
    error: str


class Report(NamedTuple):
    """Everything that is shown. Tables come by detector, then native before aligned, then by generator before scene."""

    detectors: tuple[Detector, ...]
    tables: tuple[Table, ...]
    paired: tuple[PairedTest, ...]
    probes: tuple[ShortcutProbe, ...]
    failed: int  # of all tables together
    failures: tuple[Failure, ...]  # the first of them
    resamples: int
    seed: int
