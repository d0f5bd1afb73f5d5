"""Soft labels: what plain logistic regressions on the spatial branch's frozen features say of a training crop.

A regression with a strong penalty cannot follow single pictures, and on a few thousand of them carries over better than
heads that learn the labels; a network that learns what it says has more views of a picture to say it from
(docs/experiments.md). Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
Dimensions: B batch, N features of a look.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from apn.metrics import auc
from apn.models.apn import APN
from apn.models.backbones import num_features
from apn.models.spatial import Contrast
from apn.models.statistics import FrozenStatistics, Standardize

UNPENALIZED = 1e6  # C of the regression that only scales the sum
MOST_ITERATIONS = 1000


class SoftLabels(nn.Module):
    """Image (B, 3, H, W) in [0, 1] -> probability of each class (B, 2), of the same network before it learnt.

    A regression a look, their logits in units of their spread added up; perhaps one on all looks together, added in the
    same way; then scaled by a last one.
    Raises ValueError where a look's trunk learns: what it shows in the end is not what was fitted.
    """

    bias: Tensor

    def __init__(self, model: APN) -> None:
        super().__init__()
        for look in model.spatial.looks():
            if not isinstance(look.backbone, FrozenStatistics):
                raise ValueError(
                    "loss.soft_labels needs frozen trunks in the spatial branch, such as "
                    f"tf_efficientnet_lite0_stats2; found {type(look.backbone).__name__}"
                )
        self.views, self.spatial = copy.deepcopy(model.views).eval(), copy.deepcopy(model.spatial).eval()
        self.requires_grad_(False)
        for i, look in enumerate(self.spatial.looks()):
            for name in ("mean", "deviation", "weight"):  # (N,) each; weight: of features in units of their deviation
                self.register_buffer(f"{name}{i}", torch.zeros(num_features(look.backbone)))
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

    def fit(
        self, features: Sequence[np.ndarray], labels: np.ndarray, penalty: float, joint_penalty: float | None = None
    ) -> float:
        """features: (M, N) a look, of M crops with these labels (M,). Penalties: LossConfig says what they are.

        Returns the AUC of these labels, on the crops that it was fitted on.
        """
        standard, weights = [], []  # (M, N) and (N,) a look
        for i, own in enumerate(features):
            scaler = StandardScaler().fit(own)
            self._set(f"mean{i}", scaler.mean_)
            self._set(f"deviation{i}", scaler.scale_)
            standard.append(scaler.transform(own))
            weights.append(regression(standard[-1], labels, penalty))
        if joint_penalty is not None:
            roots = [np.sqrt(one.shape[1]) for one in standard]  # a look counts alike, however many features it has
            everything = np.concatenate([one / root for one, root in zip(standard, roots, strict=True)], axis=1)
            parts = np.split(
                regression(everything, labels, joint_penalty), np.cumsum([len(one) for one in weights[:-1]])
            )
            spread = added(standard, weights).std()
            weights = [w / spread + part / root for w, part, root in zip(weights, parts, roots, strict=True)]
        logits = added(standard, weights)
        scale = LogisticRegression(C=UNPENALIZED).fit(logits[:, None], labels)
        for i, weight in enumerate(weights):
            self._set(f"weight{i}", weight * scale.coef_[0, 0])
        self.bias.fill_(scale.intercept_[0])
        return auc(labels, logits)

    def _set(self, name: str, values: np.ndarray) -> None:
        self.get_buffer(name).copy_(torch.from_numpy(values))

    def _fitted(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Mean, deviation and weight of the features of each look."""
        for i in range(len(self.spatial.looks())):
            yield self.get_buffer(f"mean{i}"), self.get_buffer(f"deviation{i}"), self.get_buffer(f"weight{i}")

    def forward(self, image: Tensor) -> Tensor:
        logit = self.bias
        for one, (mean, deviation, weight) in zip(self.features(image), self._fitted(), strict=True):
            logit = logit + (one - mean) / deviation @ weight  # (B,)
        return torch.stack([torch.sigmoid(-logit), torch.sigmoid(logit)], dim=1)

    @torch.no_grad()
    def start(self, model: APN) -> None:
        """`model`, an APN of the same settings, says by its spatial branch what these say, from here on.

        Two units of each ReLU are the logit and its negative; one direction of the artifact subspace carries it; what
        else there is keeps its weights, and has none yet in the logits. Linear probing before fine-tuning: Kumar et
        al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022.
        """
        direction = model.spatial.artifact_basis[0]  # (D,)
        looks = model.spatial.looks()
        for look, (mean, deviation, weight) in zip(looks, self._fitted(), strict=True):
            first, _, last = cast(Iterable[nn.Linear], look.head)
            whole = look.contrast if isinstance(look.contrast, Contrast) else look.backbone
            norm = cast(Standardize, whole.standardize)
            norm.set(mean, deviation)
            weight = weight / norm((mean + deviation)[None])[0]  # 1 but where a filter sees next to no difference
            first.weight[:2] = torch.stack([weight, -weight])
            first.bias[:2] = 0
            last.weight.sub_(torch.outer(direction, direction @ last.weight))
            last.weight[:, 0] += direction
            last.weight[:, 1] -= direction
            last.bias.sub_(direction * (direction @ last.bias))
        first, *others = cast(Iterable[nn.Linear], model.classifier[::2])  # between them the ReLUs
        first.weight[:2] = torch.stack([direction, -direction]) * len(looks)  # of their mean
        first.bias[:2] = 0
        for layer in others:
            layer.weight[:2] = 0
            layer.weight[:2, :2] = torch.eye(2)
            layer.bias[:2] = 0
        last = others[-1]
        last.weight[:, :2] = torch.tensor([[-0.5, 0.5], [0.5, -0.5]])
        last.bias.copy_(torch.cat([-self.bias, self.bias]) / 2)


def regression(features: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (N,) of a logistic regression on features (M, N), scaled for logits of deviation 1."""
    model = LogisticRegression(C=1 / (penalty * len(labels)), max_iter=MOST_ITERATIONS).fit(features, labels)
    weight: np.ndarray = model.coef_[0]
    return weight / (features @ weight).std()


def added(features: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """Logits (M,): the sum over looks of features (M, N) by weights (N,)."""
    return np.sum([one @ weight for one, weight in zip(features, weights, strict=True)], axis=0)
