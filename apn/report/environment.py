"""What a report was made with and from: enough to make it again."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from apn.backends import usable_cores
from apn.report.results import Report
from apn.scoretable import Scores
from apn.version import __version__

_PACKAGES = ("numpy", "pillow", "onnxruntime", "torch", "scikit-learn", "scipy", "pyarrow", "matplotlib")

Facts = list[tuple[str, str]]


def environment(report: Report, scores: Sequence[Scores], command: str = "") -> list[tuple[str, Facts]]:
    """(title, its facts): this machine and report, then each detector's scores. Machines that scored are not known."""
    here: Facts = [
        ("made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("command", command or "not known"),
        ("apn", __version__),
        ("Python", platform.python_version()),
        ("packages", ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))),
        ("machine", f"{platform.system()} {platform.release()}, {platform.machine()}, {usable_cores()} cores"),
        ("resamples, seed", f"{report.resamples}, {report.seed}"),
    ]
    blocks = [("This report", here)]
    for detector, one in zip(report.detectors, scores, strict=True):
        blocks.append((f"Scores of {detector.label}", _scored(one)))
    return blocks


def _scored(scores: Scores) -> Facts:
    """What the table of scores says of itself; what it does not say is left out."""
    facts, thresholds = scores.facts, scores.facts.thresholds
    frozen = f"real below {thresholds.real_below:.3f}, generated from {thresholds.generated_from:.3f}"
    if thresholds.target_fpr is not None:
        frozen += f" (at {100 * thresholds.target_fpr:g} % FPR, fitted on {thresholds.fitted_on})"
    known = [
        ("weights", facts.weights),
        ("sha256 of weights", facts.sha256),
        ("backend", facts.backend),
        ("apn", facts.version),
        ("data", ", ".join(facts.data)),
        ("images, limit, seed", f"{facts.images or len(scores.labels)}, {facts.limit or 'none'}, {facts.seed}"),
        ("sha256 of the list", facts.data_sha256),
        ("protocols", "; ".join(facts.protocols)),
        ("verdicts", frozen),
        ("command", facts.command),
    ]
    return [(name, value) for name, value in known if value]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # an extra that is not installed
        return None
