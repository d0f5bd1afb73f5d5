"""Metrics as functions of scores and labels. Dimensions: N images. Labels: 0 real, 1 generated."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of scores (N,); nan where only one class is present."""
    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(roc_auc_score(labels, np.asarray(scores)))


def balanced_accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> float:
    """Mean of the two classes' accuracies when `score >= threshold` means generated; nan with one class only."""
    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(balanced_accuracy_score(labels, np.asarray(scores) >= threshold))


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Probability of generated (...,) from logits (..., 2), a softmax; uncalibrated."""
    margin = logits[..., 1] - logits[..., 0]
    odds = np.exp(-np.abs(margin))  # at most 1: no overflow, and small probabilities keep their digits
    return np.where(margin >= 0, 1, odds) / (1 + odds)


def bootstrap_interval(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the AUC; whole groups (N,) are resampled, so that near copies stay together."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        chosen = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        values.append(auc(labels[chosen], scores[chosen]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
