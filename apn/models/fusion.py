"""From two branches to one embedding.

Source: Meng et al., CVIU 2024, who decide by the mean of both branches' artifact embeddings.
"""

from torch import Tensor


def fuse(frequency: Tensor, spatial: Tensor, weight: float) -> Tensor:
    """The branches' embeddings (B, D), averaged. weight: `ModelConfig.frequency_weight`, 1/2 for the paper's mean."""
    return weight * frequency + (1 - weight) * spatial
