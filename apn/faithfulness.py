"""Are heat maps true? Insertion and deletion, evidence planted at a known place, weights drawn anew.

Sources: Petsiuk, Das, Saenko, "RISE", BMVC 2018 (insertion and deletion; here from and to a blurred picture, because a
black one is like nothing the network has seen); Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
Dimensions: S side of a tile, P steps of a curve, h x w cells of a heat map.
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from apn.models.apn import APN
from apn.models.build import build_network

Score = Callable[[Tensor], Tensor]  # pictures (N, 3, S, S) in [0, 1] -> (N,)
Side = Literal["left", "right", "top", "bottom"]
SIDES: tuple[Side, ...] = get_args(Side)
STEPS, TOGETHER = 10, 16  # of a curve; pictures that are scored together
BLUR = 0.05  # standard deviation of the blur, in sides of the picture

# What is drawn anew, from the decision down to the pixels: patterns of how the names of its weights start.
_HEADS = (
    r"(classifier|spatial\.(further\.\d+\.)?head|frequency\.band_weights"
    r"|frequency\.(artifact|irrelevant)_encoder\.project)\."
)
RANDOMIZED = {"classifier": r"classifier\.", "all heads": _HEADS, "everything": ""}


class Curves(NamedTuple):
    """Scores as the strongest places are shown first (insertion) or hidden first (deletion); arrays (P + 1,).

    fractions: of the picture's places that were exchanged, 0 to 1.
    """

    fractions: np.ndarray
    insertion: np.ndarray
    deletion: np.ndarray

    @property
    def insertion_area(self) -> float:
        """Mean height of the curve; the higher, the earlier the map shows what matters."""
        return float(np.trapezoid(self.insertion, self.fractions))

    @property
    def deletion_area(self) -> float:
        """The lower, the earlier the map hides what matters."""
        return float(np.trapezoid(self.deletion, self.fractions))


@torch.inference_mode()
def insertion_deletion(
    score: Score, image: Tensor, heat: np.ndarray, baseline: Tensor, *, steps: int = STEPS, seed: int = 0
) -> Curves:
    """Both curves of one picture (3, S, S) against a baseline (3, S, S), by a heat map (S, S) of any range.

    Places of equal heat come in a random order, by the seed. Raises ValueError where the shapes disagree.
    """
    if image.shape != baseline.shape or image.shape[1:] != heat.shape:
        found = f"{tuple(image.shape)}, {tuple(baseline.shape)} and {heat.shape}"
        raise ValueError(f"expected a picture and a baseline (3, S, S) and a heat map (S, S), found {found}")
    rank = torch.from_numpy(_ranks(heat, seed)).to(image.device)
    counts = np.linspace(0, heat.size, steps + 1).round().astype(int)
    shown = torch.stack([rank < int(count) for count in counts])[:, None]  # (P + 1, 1, S, S), true: exchanged
    curves = [
        np.concatenate([score(torch.where(part, to, start)).float().cpu().numpy() for part in shown.split(TOGETHER)])
        for start, to in ((baseline, image), (image, baseline))
    ]
    return Curves(counts / heat.size, *curves)


def _ranks(heat: np.ndarray, seed: int) -> np.ndarray:
    """(S, S) int64: 0 for the strongest place."""
    ties = np.random.default_rng(seed).random(heat.size)
    ranks = np.empty(heat.size, np.int64)
    ranks[np.lexsort((ties, -heat.ravel()))] = np.arange(heat.size)
    return ranks.reshape(heat.shape)


def blurred(image: Tensor) -> Tensor:
    """(3, S, S) without what is finer than about a tenth of its side."""
    from scipy.ndimage import gaussian_filter

    width = BLUR * image.shape[-1]
    return torch.from_numpy(gaussian_filter(image.cpu().numpy(), (0, width, width), mode="nearest")).to(image.device)


def turned(heat: np.ndarray) -> list[np.ndarray]:
    """A heat map (h, w) mirrored, upside down, and both: as coarse, as smooth and as uneven, but about other places."""
    return [np.ascontiguousarray(one) for one in (heat[:, ::-1], heat[::-1], heat[::-1, ::-1])]


def shuffled_cells(heat: np.ndarray, seed: int = 0) -> np.ndarray:
    """The cells (h, w) of a heat map in a random order: as coarse and as uneven, but about no place."""
    return np.random.default_rng(seed).permutation(heat.ravel()).reshape(heat.shape)


def plant(photo: np.ndarray, fake: np.ndarray, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """`photo` with one half taken from `fake`, both (H, W, 3); and where, (H, W) bool. ValueError for other shapes."""
    if photo.shape != fake.shape or photo.ndim != 3:
        raise ValueError(f"expected two pictures (H, W, 3) of one size, found {photo.shape} and {fake.shape}")
    height, width = photo.shape[:2]
    rows, columns = np.arange(height)[:, None] < height // 2, np.arange(width)[None] < width // 2
    halves = {"left": columns, "right": ~columns, "top": rows, "bottom": ~rows}
    if side not in halves:
        raise ValueError(f"expected a side of {', '.join(SIDES)}, found {side!r}")
    mask = np.broadcast_to(halves[side], (height, width))
    return np.where(mask[..., None], fake, photo), mask


def localisation_auc(heat: np.ndarray, mask: np.ndarray) -> float:
    """How well heat (H, W) tells the places of a mask (H, W): area under the ROC curve, 0.5 for no better than chance.

    ValueError where the mask holds all places or none.
    """
    from sklearn.metrics import roc_auc_score

    if heat.shape != mask.shape or not 0 < mask.sum() < mask.size:
        raise ValueError(f"expected a mask {heat.shape} of some places, found {mask.shape} with {int(mask.sum())}")
    return float(roc_auc_score(mask.ravel(), heat.ravel()))


def randomized(model: APN, what: str, seed: int = 0) -> APN:
    """A copy of `model`, in evaluation mode, with the weights of RANDOMIZED[what] as if training had not begun."""
    if what not in RANDOMIZED:
        raise ValueError(f"expected what to randomize as one of {', '.join(RANDOMIZED)}, found {what!r}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = build_network(model.config, offline=True)
    assert isinstance(fresh, APN)
    kept = {name: value for name, value in model.state_dict().items() if not re.match(RANDOMIZED[what], name)}
    fresh.load_state_dict(kept, strict=False)
    return fresh.to(next(model.parameters()).device).eval()


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of two heat maps of one shape; nan where one of them is the same everywhere."""
    from scipy.stats import spearmanr

    if one.shape != other.shape:
        raise ValueError(f"expected heat maps of one shape, found {one.shape} and {other.shape}")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one.ravel(), other.ravel()).statistic)
