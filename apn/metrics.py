"""Metrics as functions of labels (N,) and scores (N,). Dimensions: N images. Labels: 0 real, 1 generated.

A metric that a set cannot have, such as the AUC of one class, is nan. The curve of a tie is a straight line: a constant
detector has AUC 0.5, EER 0.5 and finds 1 % at 1 % false alarms. docs/evaluation.md has the definitions.
"""

from typing import Generic, NamedTuple, TypeVar

import numpy as np
import sklearn.metrics
from numpy.typing import ArrayLike, NDArray

from apn.calibration import expected_calibration_error

T = TypeVar("T")
FALSE_ALARMS = (0.01, 0.05)  # of tpr_at_1 and tpr_at_5
CERTAIN = 1e-15  # probabilities are kept this far from 0 and 1 in the log likelihood


class Metrics(NamedTuple, Generic[T]):
    """One value each: numbers, estimates with intervals, or column titles. Ranks come from logits."""

    auc: T
    ap: T  # average precision, generated ones being what is looked for
    accuracy: T  # generated where probability >= 0.5
    balanced_accuracy: T  # generated where the score reaches the frozen threshold
    oracle_accuracy: T  # at the best threshold on this very set: never to be expected elsewhere
    tpr_at_1: T  # share of generated ones found where 1 % of the real ones are called generated
    tpr_at_5: T
    eer: T  # error rate where both classes have the same
    nll: T  # mean negative log likelihood, natural logarithm
    brier: T  # mean squared error of the probability
    ece: T  # expected calibration error


METRIC_TITLES = Metrics(
    auc="AUC",
    ap="AP",
    accuracy="accuracy at 0.5",
    balanced_accuracy="balanced accuracy",
    oracle_accuracy="oracle accuracy",
    tpr_at_1="TPR at 1 % FPR",
    tpr_at_5="TPR at 5 % FPR",
    eer="EER",
    nll="NLL",
    brier="Brier",
    ece="ECE",
)
LOWER_IS_BETTER = ("eer", "nll", "brier", "ece")


def measure(labels: ArrayLike, logits: ArrayLike, probabilities: ArrayLike, called: ArrayLike) -> Metrics[float]:
    """Every metric of a set of images; all arrays (N,). called: generated at the frozen threshold, bool."""
    labels, logits = np.asarray(labels, int), np.asarray(logits, float)
    probabilities, called = np.asarray(probabilities, float), np.asarray(called, bool)
    nan = float("nan")
    if not len(labels):
        return Metrics(*(nan for _ in Metrics._fields))
    one_class = Metrics(
        auc=nan,
        ap=nan,
        accuracy=float(((probabilities >= 0.5) == labels).mean()),
        balanced_accuracy=nan,
        oracle_accuracy=nan,
        tpr_at_1=nan,
        tpr_at_5=nan,
        eer=nan,
        nll=float(negative_log_likelihood(labels, probabilities).mean()),
        brier=float(((probabilities - labels) ** 2).mean()),
        ece=expected_calibration_error(probabilities, labels),
    )
    if not 0 < labels.sum() < len(labels):
        return one_class
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, logits, drop_intermediate=False)
    return one_class._replace(
        auc=float(sklearn.metrics.auc(fpr, tpr)),
        ap=average_precision(labels, logits),
        balanced_accuracy=float(sklearn.metrics.balanced_accuracy_score(labels, called)),
        oracle_accuracy=_oracle_accuracy(fpr, tpr, float(labels.mean())),
        tpr_at_1=float(np.interp(FALSE_ALARMS[0], fpr, tpr)),
        tpr_at_5=float(np.interp(FALSE_ALARMS[1], fpr, tpr)),
        eer=_equal_error_rate(fpr, tpr),
    )


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of scores (N,); nan where only one class is present."""
    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(sklearn.metrics.roc_auc_score(labels, np.asarray(scores)))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Precision at each score of a generated image, averaged over them; nan where only one class is present."""
    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(sklearn.metrics.average_precision_score(labels, np.asarray(scores)))


def balanced_accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float:
    """Mean of the two classes' accuracies when `score >= threshold` means generated; nan with one class only."""
    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(sklearn.metrics.balanced_accuracy_score(labels, np.asarray(scores) >= threshold))


def negative_log_likelihood(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """Of each image (N,), natural logarithm; at most 34.5, where the probability is certain and wrong."""
    return -np.log(np.clip(np.where(labels == 1, probabilities, 1 - probabilities), CERTAIN, 1))


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Probability of generated (...,) from logits (..., 2), a softmax; uncalibrated."""
    return sigmoid(logits[..., 1] - logits[..., 0])


def sigmoid(margin: NDArray[np.floating]) -> NDArray[np.floating]:
    """1 / (1 + exp(-margin)) (...,) without overflow."""
    odds = np.exp(-np.abs(margin))  # at most 1: no overflow, and small probabilities keep their digits
    return np.where(margin >= 0, 1, odds) / (1 + odds)


def _oracle_accuracy(fpr: np.ndarray, tpr: np.ndarray, generated: float) -> float:
    """Best share of right calls over the points of a ROC curve; `generated`: share of generated images."""
    return float((generated * tpr + (1 - generated) * (1 - fpr)).max())


def _equal_error_rate(fpr: np.ndarray, tpr: np.ndarray) -> float:
    """Where the ROC curve, straight between its points, crosses false alarms = misses."""
    excess = fpr + tpr - 1  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    step = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(fpr[after - 1] + step * (fpr[after] - fpr[after - 1]))
