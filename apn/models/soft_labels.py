"""Soft labels: what plain logistic regressions on the frozen features of a network say of a training crop.

A regression with a strong penalty cannot follow single pictures, and on a few thousand of them carries over better than
heads that learn the labels; a network that learns what it says has more views of a picture to say it from
(docs/results.md). Each branch is taught by what it sees itself: asked for what only the other one sees, it learns by
heart what goes with that in training. Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural
network", 2015.
Dimensions: B batch, N features of a look, K bands, F features of a band.
"""

import copy
import operator
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from apn.metrics import auc
from apn.models.apn import APN
from apn.models.backbones import num_features
from apn.models.statistics import StageStatistics

UNPENALIZED = 1e6  # C of the regression that only scales the sum
MOST_ITERATIONS = 1000

Logits = TypeVar("Logits", Tensor, np.ndarray)


class BranchLabels(NamedTuple):
    """What each of APN's logits should say: probability of each class (B, 2)."""

    joint: Tensor
    frequency: Tensor
    spatial: Tensor


class SoftLabels(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> BranchLabels, of the same network before it learnt.

    A regression a look of the spatial branch, and one on the features of all bands together; their logits are in units
    of their spread. The spatial label adds those of the looks, the joint one all, and each sum is scaled by a last
    regression. Where the band encoder learns, the frequency branch has no regression, and all learn the spatial label.
    Raises ValueError where a look's trunk learns: what it shows in the end is not what was fitted.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, model: APN) -> None:
        super().__init__()
        for look in model.spatial.looks():
            if not isinstance(look.backbone, StageStatistics):
                raise ValueError(
                    "loss.soft_labels needs frozen trunks in the spatial branch, such as "
                    f"tf_efficientnet_lite0_stats2; found {type(look.backbone).__name__}"
                )
        self.views, self.spatial = copy.deepcopy(model.views).eval(), copy.deepcopy(model.spatial).eval()
        widths = [num_features(look.backbone) for look in self.spatial.looks()]
        self.looks = len(widths)
        self.frequency = None
        if isinstance(model.frequency.artifact_encoder.trunk, StageStatistics):
            self.frequency = copy.deepcopy(model.frequency).eval()
            widths.append(model.config.band_count * self.frequency.artifact_encoder.num_features)
        self.requires_grad_(False)
        for i, width in enumerate(widths):
            self.register_buffer(f"weight{i}", torch.zeros(width, 1))
        self.register_buffer("scale", torch.zeros(len(BranchLabels._fields)))
        self.register_buffer("bias", torch.zeros(len(BranchLabels._fields)))

    def train(self, mode: bool = True) -> "SoftLabels":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def features(self, image: Tensor, *, spatial_only: bool = False) -> list[Tensor]:
        """(B, N) a look, and (B, K F) of the bands where they have a regression, as a new network has them."""
        with torch.autocast(image.device.type, enabled=False):
            seen = self.views(image.float())
            found = [look.features(one) for look, one in zip(self.spatial.looks(), seen.spatial, strict=True)]
            if self.frequency and not spatial_only:
                purified, _, _ = self.frequency.split(seen.frequency, residual=False)
                found.append(self.frequency.artifact_encoder(purified)[0].flatten(1))
        return found

    def fit(self, features: Sequence[np.ndarray], labels: np.ndarray, penalty: float) -> float:
        """features: as `features` gives them, of M crops with these labels (M,). penalty: `soft_label_penalty`.

        Returns the AUC of the joint labels, on the crops that they were fitted on.
        """
        logits = []
        for i, own in enumerate(features):
            regression = make_pipeline(
                StandardScaler(), LogisticRegression(C=1 / (penalty * len(labels)), max_iter=MOST_ITERATIONS)
            )
            found = regression.fit(own, labels).decision_function(own)
            scaler, fitted = (step for _, step in regression.steps)
            weight = fitted.coef_[0] / scaler.scale_ / found.std()
            self.get_buffer(f"weight{i}").copy_(torch.from_numpy(weight)[:, None])
            logits.append(own @ weight)
        sums = self._sums(logits)
        for i, total in enumerate(sums):
            last = LogisticRegression(C=UNPENALIZED).fit(total[:, None], labels)
            self.scale[i], self.bias[i] = last.coef_[0, 0], last.intercept_[0]
        return auc(labels, sums[0])

    def forward(self, image: Tensor) -> BranchLabels:
        logits = self._sums(self._logits(self.features(image)))
        return BranchLabels(*(self._probabilities(total, i) for i, total in enumerate(logits)))

    def of_spatial(self, image: Tensor) -> Tensor:
        """The spatial label (B, 2) without the work of the others."""
        looks = self._logits(self.features(image, spatial_only=True))
        return self._probabilities(reduce(operator.add, looks), BranchLabels._fields.index("spatial"))

    def _logits(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [(one @ self.get_buffer(f"weight{i}"))[:, 0] for i, one in enumerate(features)]  # (B,) each

    def _sums(self, logits: Sequence[Logits]) -> tuple[Logits, Logits, Logits]:
        """The logits of each regression -> those of the joint, the frequency and the spatial label."""
        spatial = reduce(operator.add, logits[: self.looks])
        frequency = logits[-1] if self.frequency else spatial
        return (spatial + frequency if self.frequency else spatial), frequency, spatial

    def _probabilities(self, logit: Tensor, which: int) -> Tensor:
        logit = self.scale[which] * logit + self.bias[which]
        return torch.stack([torch.sigmoid(-logit), torch.sigmoid(logit)], dim=1)
