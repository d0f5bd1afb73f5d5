"""The networks that bench/inference.py measures, and what they must answer.

    python bench/networks.py base|mini WORK COUNT [--checkpoint CHECKPOINT] [--images DATA] [--after N]

Without a checkpoint apn-base has weights of the official shapes that follow a rule (tests/golden_rule.py), and a head
that a least-squares fit gives it, so that its verdicts on two kinds of made images are worth comparing.
Dimensions: N images, D embedding size.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from made_images import JUDGED, crops_for, made_crops
from torch import Tensor, nn

from apn.backends import find_weights, to_input
from apn.checkpoint import load_model, save_checkpoint
from apn.config import Config
from apn.models.apn import APN
from apn.models.detect import DetectOnly
from apn.official import import_official

sys.path.append(str(Path(__file__).parent.parent / "tests"))
MARGIN = 4.0  # of a fitted head between the logits of the two kinds, about


def prepare(
    name: str, checkpoint: Path | None, work: Path, count: int, images: str | None = None, after: int = 0
) -> Path:
    """A checkpoint folder of `base` or `mini`; in `work`, what the untouched network says of `count` images.

    images: a data set; made ones by default. after: how many of them are passed over. The file NAME-expected.npz has
    crops (N, S, S, 3) uint8 and logits (N, 2) float32.
    """
    if checkpoint is None and name == "base":
        checkpoint = work / "base"
        make_base(checkpoint, fit_images=max(16, count // 4))
    folder = checkpoint or find_weights("apn-mini")
    model = load_model(folder)
    assert isinstance(model, APN)
    crops = crops_for(JUDGED, count, model.config.image_size, images, after)
    np.savez(work / f"{name}-expected.npz", crops=crops, logits=untouched(model, crops))
    return folder


@torch.inference_mode()
def untouched(model: APN, crops: np.ndarray) -> np.ndarray:
    """Logits (N, 2) of the network as it was trained, irrelevant side left out."""
    return np.concatenate([model(torch.from_numpy(to_input(one[None])), irrelevant=False).logits for one in crops])


def golden_base() -> APN:
    """apn-base with weights of the official shapes that follow from their names; no file is needed."""
    from golden_rule import official_state

    return import_official(official_state())


def make_base(folder: Path, fit_images: int) -> None:
    """Writes apn-base with made weights."""
    model = golden_base()
    crops, labels = made_crops(fit_images, seed=0)
    weight, bias = fit(embeddings(model, crops), labels)
    with torch.no_grad():
        set_linear(model.classifier, weight, bias)
    save_checkpoint(folder, model, Config(name="apn-base", model=model.config), {"step": 0, "metrics": {}})


@torch.inference_mode()
def embeddings(model: APN, crops: np.ndarray) -> np.ndarray:
    """What the classifier sees, (N, D)."""
    network = DetectOnly(model)
    network.classifier = nn.Identity()  # type: ignore[assignment]
    return network(torch.from_numpy(to_input(crops))).numpy()


def fit(embedding: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """weight (D,) and bias of a ridge regression to -MARGIN and +MARGIN."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11))).fit(embedding, MARGIN * (2 * labels - 1))
    scaler, ridge = model[0], model[1]
    weight = ridge.coef_ / scaler.scale_
    bias = ridge.intercept_ - weight @ scaler.mean_
    return torch.from_numpy(weight).float(), torch.tensor(bias).float()


def set_linear(classifier: nn.Sequential, weight: Tensor, bias: Tensor) -> None:
    """Makes the ReLU layers say w e + b as the margin between the two logits: its two signs go through side by side."""
    first, *between, last = (layer for layer in classifier if isinstance(layer, nn.Linear))
    for layer in (first, *between, last):
        layer.weight.zero_()
        layer.bias.zero_()
    first.weight[0], first.weight[1] = weight, -weight
    first.bias[0], first.bias[1] = bias, -bias
    for layer in between:
        layer.weight[:2, :2] = torch.eye(2)
    last.weight[:, :2] = torch.tensor([[-0.5, 0.5], [0.5, -0.5]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("base", "mini"))
    parser.add_argument("work", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--images")
    parser.add_argument("--after", type=int, default=0)
    given = parser.parse_args()
    print(prepare(given.name, given.checkpoint, given.work, given.count, given.images, given.after))
