"""CLUB: an upper bound of mutual information, learnt beside the network it squeezes.

Source: Cheng et al., "CLUB: a contrastive log-ratio upper bound of mutual information", ICML 2020.
Dimensions: B batch, D embedding size, h hidden size.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def own_batch(moment: Tensor) -> Tensor:
    """The batch's own moment."""
    return moment


class CLUB(nn.Module):
    """q(irrelevant | artifact) = Gaussian with learnt mean and variance; both sides (B, D).

    average: makes a moment (D,) of the irrelevant embeddings the mean over all processes that share a global batch,
    differentiable; the negatives are then that whole batch. Without it they are the batch that is given.
    """

    def __init__(self, dim: int, hidden: int = 256, average: Callable[[Tensor], Tensor] = own_batch) -> None:
        super().__init__()
        self.average = average
        self.mean = nn.Sequential(nn.Linear(dim, hidden // 2), nn.ReLU(), nn.Linear(hidden // 2, dim))
        self.log_variance = nn.Sequential(
            nn.Linear(dim, hidden // 2), nn.ReLU(), nn.Linear(hidden // 2, dim), nn.Tanh()
        )

    def forward(self, artifact: Tensor, irrelevant: Tensor) -> Tensor:
        """Scalar: the bound, in nats. What the network minimises.

        The mean over all negatives j of (y_j - mu_i)^2 is the batch variance plus (batch mean - mu_i)^2, which costs
        O(B D) instead of a B x B x D tensor.
        """
        with torch.autocast(artifact.device.type, enabled=False):
            artifact, irrelevant = artifact.float(), irrelevant.float()
            mean, precision = self.mean(artifact), torch.exp(-self.log_variance(artifact))  # (B, D)
            centre = self.average(irrelevant.mean(dim=0))  # (D,)
            variance = self.average((irrelevant - centre).square().mean(dim=0))  # (D,)
            negative = variance + (centre - mean) ** 2  # (B, D)
            positive = (irrelevant - mean) ** 2
            return ((negative - positive) / 2 * precision).sum(dim=1).mean()

    def learning_loss(self, artifact: Tensor, irrelevant: Tensor) -> Tensor:
        """Scalar: negative log likelihood of q up to constants. What CLUB itself minimises."""
        with torch.autocast(artifact.device.type, enabled=False):
            artifact, irrelevant = artifact.float(), irrelevant.float()
            log_variance = self.log_variance(artifact)
            error = (irrelevant - self.mean(artifact)) ** 2
            return (error * torch.exp(-log_variance) + log_variance).sum(dim=1).mean()
