"""Heat maps: where in an image the evidence lies that moved the network's decision, tile by tile, then stitched over
the picture: LayerCAM, which keeps what speaks for one side, and gradient times features, which keeps both signs.

Sources: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", TIP 2021, as
pytorch-grad-cam has it (extra `explain`); Shrikumar, Greenside, Kundaje, "Learning Important Features Through
Propagating Activation Differences", ICML 2017, section 2 (gradient times input).
Dimensions: T tiles, S side of a tile, K bands, H x W pixels of the picture, h x w cells of a feature map.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from pytorch_grad_cam import LayerCAM
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from apn.models.apn import APN
from apn.models.statistics import FrozenStatistics

TINY = float(np.finfo(np.float32).tiny)
CELLS = 20  # along a side of a tile at most: a single place of an early stage says little, and cannot be seen either
# Standard deviation of the Gaussian that evidence is smoothed by, in sides of a tile. Single cells are mostly noise,
# which cancels: smoothed, evidence lies far better where it was planted (docs/explanations.md).
EVIDENCE_WIDTH = 0.1
IMAGES_AT_ONCE = 16  # tiles times bands that the network sees together; their feature maps are held for the gradient


class Site(NamedTuple):
    """Where LayerCAM looks: the layer whose output is the last one with places. channels_last: (N, h, w, F), not (N, F,
    h, w)."""

    layer: nn.Module
    channels_last: bool

    def reshape(self, features: Tensor) -> Tensor:  # (N, F, h, w) of any layout of the layer
        if features.ndim != 4:
            raise ValueError(
                f"expected feature maps of 4 dimensions from {type(self.layer).__name__}, found "
                f"{tuple(features.shape)}: heat maps are for convolutional backbones and Swin"
            )
        return features.permute(0, 3, 1, 2) if self.channels_last else features


class TileMaps(NamedTuple):
    """What each tile adds to the decision: (T, h, w) float32, all tiles on one scale.

    h, w: the cells of the feature maps, averaged to CELLS where these are finer.
    spatial, frequency: LayerCAM by branch, 0 and more.
    evidence: of both branches together, above 0 where it spoke for generated, below 0 for real: to first order the
        logit of a tile that is like this cell all over, smoothed by EVIDENCE_WIDTH. Its mean is the tile's logit: what
        belongs to no place is laid on all alike.
    logits: (T,) generated minus real.
    """

    spatial: np.ndarray
    frequency: np.ndarray
    evidence: np.ndarray
    logits: np.ndarray


def cam_site(backbone: nn.Module) -> Site:
    """The last layer of a backbone of `apn.models.backbones` that still has places, after its activation.

    That is the last stage (ResNet, ConvNeXt and most of timm: `feature_info`), EfficientNet's convolution after it, and
    Swin's final norm; of statistics of several stages the first, since all evidence passes it.
    Raises ValueError for a backbone that does not tell its stages.
    """
    name = _last_layer(backbone)
    if name is None:
        raise ValueError(
            f"no heat map for {type(backbone).__name__}: expected a timm backbone with `feature_info`, such as "
            "ConvNeXt, ResNet, EfficientNet or Swin"
        )
    return Site(backbone.get_submodule(name), getattr(backbone, "output_fmt", "NCHW") == "NHWC")


def _last_layer(backbone: nn.Module) -> str | None:
    if isinstance(backbone, FrozenStatistics):
        return backbone.placed
    layers = dict(backbone.named_children())
    if {"conv_head", "bn2"} <= layers.keys():  # EfficientNet: bn2 has the activation in it
        return "bn2"
    if {"layers", "norm"} <= layers.keys():  # Swin
        return "norm"
    stages = getattr(backbone, "feature_info", None)
    return stages[-1]["module"] if stages else "blocks" if "blocks" in layers else None


def tile_maps(model: APN, tiles: Tensor, sign: float = 1.0) -> TileMaps:
    """LayerCAM of both branches for tiles (T, 3, S, S) in [0, 1], of the logit that decides, and its evidence.

    sign: 1 for LayerCAM of a generated image, -1 for that of a real one; evidence has both signs whatever it is. The
    frequency branch's map is the mean of those of its K artifact features, by band weight. The model, in evaluation
    mode, is as before afterwards: no hook, no gradient. One call at a time: the hooks of two would mix.
    Raises ValueError for a model in training mode, or one whose backbone has no map.
    """
    require_evaluation(model)
    together = max(1, IMAGES_AT_ONCE // model.config.band_count)
    parts = [_tile_maps(model, part, sign) for part in tiles.split(together)]
    return TileMaps(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def require_evaluation(model: nn.Module) -> None:
    """ValueError for a network in training mode, whose every look at an image would change its statistics."""
    if model.training:
        raise ValueError("expected a network in evaluation mode, found one in training: call eval() on it first")


def _tile_maps(model: APN, tiles: Tensor, sign: float) -> TileMaps:
    looks = model.spatial.looks()
    sites = [*(cam_site(look.backbone) for look in looks), cam_site(model.frequency.artifact_encoder.trunk)]
    with torch.inference_mode(False), torch.enable_grad(), _still(model), _cams(sites) as cams:
        output = model(tiles.clone(), irrelevant=False)  # a tensor made in inference mode has no gradient
        margin = output.logits[:, 1] - output.logits[:, 0]  # (T,)
        (sign * margin).sum().backward()
        *by_look, by_band = (coarsen(_weighted(cam)) for cam in cams)  # (T, h, w) a look, (T * K, h, w)
        *signed, signed_bands = (sign * coarsen(_signed(cam)) for cam in cams)
    # What a reference takes away belongs to its place as well: without it the map shows where there is detail.
    placed = [one.reshape(-1, len(tiles), *one.shape[1:]).sum(axis=0) for one in signed]
    placed.append(signed_bands.reshape(len(tiles), -1, *signed_bands.shape[1:]).sum(axis=1))
    evidence, logits = summed(placed), margin.detach().float().cpu().numpy()
    evidence = smoothed(evidence + (logits - evidence.mean(axis=(1, 2)))[:, None, None])
    spatial = summed([one[: len(tiles)] for one in by_look])  # a reference's maps come after
    weights = output.band_weights.detach().float().cpu().numpy()[..., None]  # (T, K, 1, 1)
    by_band = by_band.reshape(*weights.shape[:2], *by_band.shape[1:])
    frequency = (weights * by_band).sum(axis=1) / np.maximum(weights.sum(axis=1), TINY)
    return TileMaps(spatial, frequency, evidence, logits)


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """No parameter gathers a gradient."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _cams(sites: Sequence[Site]) -> Iterator[list[LayerCAM]]:
    """One LayerCAM a site, all recording in the same pass; each with its own record, whose order is then certain.

    The graph starts at the sites: the pass back stays in the small heads above them.
    """
    with ExitStack() as stack:
        for site in sites:
            stack.callback(site.layer.register_forward_hook(_as_leaf).remove)
        cams = []
        for site in sites:  # not as `with LayerCAM(...)`, which turns an IndexError into a printed line
            cams.append(LayerCAM(site.layer, [site.layer], site.reshape))  # which puts all of its model in eval()
            stack.callback(cams[-1].activations_and_grads.release)
        yield cams


def _as_leaf(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.detach().requires_grad_()


def _weighted(cam: LayerCAM) -> np.ndarray:
    """(N, h, w): activations by their positive gradients, as recorded; not stretched to [0, 1] image by image."""
    record = cam.activations_and_grads
    activations, gradients = record.activations[0].float().numpy(), record.gradients[0].float().numpy()
    weighted = cam.get_cam_image(None, None, None, activations, gradients, eigen_smooth=False)
    return np.maximum(weighted, 0)


def _signed(cam: LayerCAM) -> np.ndarray:
    """(N, h, w): gradient times activation, summed over the features, times the number of places."""
    record = cam.activations_and_grads
    product = (record.activations[0].float() * record.gradients[0].float()).sum(dim=1).numpy()
    return product * product[0].size


def coarsen(maps: np.ndarray, cells: int = CELLS) -> np.ndarray:
    """(N, h, w) -> (N, min(h, cells), min(w, cells)): means over blocks of places."""
    size = min(maps.shape[1], cells), min(maps.shape[2], cells)
    return F.adaptive_avg_pool2d(torch.from_numpy(maps), size).numpy()


def smoothed(maps: np.ndarray, width: float = EVIDENCE_WIDTH) -> np.ndarray:
    """(T, h, w), each smoothed by a Gaussian of `width` sides of the map; edges are mirrored, so that means stay."""
    deviations = 0.0, width * maps.shape[1], width * maps.shape[2]
    return gaussian_filter(maps, deviations, mode="reflect").astype(np.float32)


def summed(maps: Sequence[np.ndarray]) -> np.ndarray:
    """(T, h, w) each -> their sum (T, h, w) over the finest of their cells."""
    size = tuple(max(sides) for sides in zip(*(one.shape[1:] for one in maps), strict=True))
    each = [
        one if one.shape[1:] == size else F.interpolate(torch.from_numpy(one)[:, None], size)[:, 0].numpy()
        for one in maps
    ]
    return np.sum(each, axis=0)


def enlarge(maps: np.ndarray, size: int) -> np.ndarray:
    """(T, h, w) -> (T, size, size), bilinear between the cells' centres."""
    pixels = F.interpolate(torch.from_numpy(maps)[:, None], size=(size, size), mode="bilinear", align_corners=False)
    return pixels[:, 0].numpy()


def stitch(
    tiles: np.ndarray, corners: Sequence[tuple[int, int]], height: int, width: int, reduction: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Tiles (T, S, S) at their (top, left) laid on the picture: the mean where they overlap, 0 where there is none.

    A picture smaller than a tile is repeated in it (apn/crops.py): all repeats of a pixel count. reduction: pixels of
    the picture along each side of one value.
    Returns values (ceil(H / reduction), ceil(W / reduction)) float32 and, alike, bool: true where a tile lies.
    """
    side = np.arange(tiles.shape[-1])
    shape = -(-height // reduction), -(-width // reduction)
    tops, lefts = np.array(corners, np.int64).reshape(-1, 2).T[:, :, None]  # (T, 1) each
    rows, columns = (tops + side) % height // reduction, (lefts + side) % width // reduction  # (T, S) each
    places = (rows[:, :, None] * shape[1] + columns[:, None, :]).ravel()  # of the values among those of the picture
    total = np.bincount(places, tiles.ravel(), shape[0] * shape[1]).reshape(shape)
    count = np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)
    return (total / np.maximum(count, 1)).astype(np.float32), count > 0


def normalize(heat: np.ndarray) -> tuple[np.ndarray, float]:
    """The map with 1, or -1, at its strongest place, and that place's size before; all 0 stays all 0."""
    peak = float(np.abs(heat).max(initial=0))
    return (heat / peak if peak > TINY else np.zeros_like(heat)), peak
