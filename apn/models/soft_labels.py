"""Soft labels: what plain logistic regressions on the spatial branch's frozen features say of a training crop.

A regression with a strong penalty cannot follow single pictures, and on a few thousand of them carries over better than
heads that learn the labels; a network that learns what it says has more views of a picture to say it from
(docs/results.md). Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
Dimensions: B batch, N features of a look.
"""

import copy
from collections.abc import Sequence

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


class SoftLabels(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> probability of each class (B, 2), of the same network before it learnt.

    A regression a look, their logits in units of their spread added up, then scaled by a last one.
    Raises ValueError where a look's trunk learns: what it shows in the end is not what was fitted.
    """

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
        self.requires_grad_(False)
        for i, look in enumerate(self.spatial.looks()):
            self.register_buffer(f"weight{i}", torch.zeros(num_features(look.backbone), 1))
        self.register_buffer("bias", torch.zeros(1))

    def train(self, mode: bool = True) -> "SoftLabels":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def features(self, image: Tensor) -> list[Tensor]:
        """(B, N) a look, as a new network has them."""
        with torch.autocast(image.device.type, enabled=False):
            seen = self.views(image.float()).spatial
            return [look.features(one) for look, one in zip(self.spatial.looks(), seen, strict=True)]

    def fit(self, features: Sequence[np.ndarray], labels: np.ndarray, penalty: float) -> float:
        """features: (M, N) a look, of M crops with these labels (M,). penalty: `LossConfig.soft_label_penalty`.

        Returns the AUC of these labels, on the crops that it was fitted on.
        """
        logits, weights = np.zeros(len(labels)), []
        for own in features:
            regression = make_pipeline(
                StandardScaler(), LogisticRegression(C=1 / (penalty * len(labels)), max_iter=MOST_ITERATIONS)
            )
            found = regression.fit(own, labels).decision_function(own)
            scaler, fitted = (step for _, step in regression.steps)
            weight = fitted.coef_[0] / scaler.scale_ / found.std()
            weights.append(weight)
            logits += own @ weight
        scale = LogisticRegression(C=UNPENALIZED).fit(logits[:, None], labels)
        for i, weight in enumerate(weights):
            self.get_buffer(f"weight{i}").copy_(torch.from_numpy(weight * scale.coef_[0])[:, None])
        self.bias.fill_(scale.intercept_[0])
        return auc(labels, logits)

    def forward(self, image: Tensor) -> Tensor:
        each = [one @ self.get_buffer(f"weight{i}") for i, one in enumerate(self.features(image))]  # (B, 1)
        logit = torch.stack(each).sum(dim=0) + self.bias
        return torch.cat([torch.sigmoid(-logit), torch.sigmoid(logit)], dim=1)
