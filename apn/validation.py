"""What a network in training says of held-out crops, and how wide its logits spread; of all processes' parts together.

Dimensions: N images.
"""

import math

import numpy as np
import torch
from torch import nn

from apn.data.dataset import BatchLoader
from apn.distributed import gather, share_buffers
from apn.metrics import auc, balanced_accuracy, probabilities
from apn.models.apn import APN


@torch.no_grad()
def score(model: nn.Module, loader: BatchLoader, device: torch.device | str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 2) and labels (N,) of a loader, in its order; the model rests in evaluation mode."""
    model.eval()
    logits, labels = [torch.empty(0, 2)], [torch.empty(0, dtype=torch.int64)]  # a process's part may be empty
    for batch in loader:
        logits.append(model(batch.image.to(device), irrelevant=False).logits.float().cpu())
        labels.append(batch.label)
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def validate(model: nn.Module, loader: BatchLoader, device: torch.device | str = "cpu") -> dict[str, float]:
    """AUC and balanced accuracy at 0.5 on centre crops, both classes re-encoded alike, of all processes' parts.

    Neither is there where the images are of one class.
    """
    share_buffers(model)
    logits, labels = (np.concatenate(parts) for parts in zip(*gather(score(model, loader, device)), strict=True))
    scores = probabilities(logits)
    found = {"auc": auc(labels, scores), "balanced_accuracy": balanced_accuracy(labels, scores), "images": len(labels)}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def scale_to_unit_spread(model: APN, loader: BatchLoader, device: torch.device | str = "cpu") -> float:
    """Scales the classifier's last layer so that generated less real logit has a standard deviation of 1 over the crops
    of a loader, all processes' parts together. Returns what it was; where it was 0 nothing changes."""
    share_buffers(model)
    logits = np.concatenate([part for part, _ in gather(score(model, loader, device))])
    margin = (logits[:, 1] - logits[:, 0]).astype(float)
    spread = float(margin.std()) if np.ptp(margin) else 0.0  # rounding gives equal numbers a deviation too
    last = model.classifier[-1]
    assert isinstance(last, nn.Linear), "the classifier ends in its logits"
    if spread > 0:
        with torch.no_grad():
            last.weight.div_(spread)
            last.bias.div_(spread)
    return spread
