"""`apn.explain`: why a detector said what it said of one image. docs/explanations.md says how to read each part.

The image is judged exactly as `Detector` does it, by the same tiles; each part is computed from these tiles.
Dimensions: H x W pixels of the picture as shown, S side of a tile, T tiles.
"""

import os
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import nn

from apn.backends import to_input
from apn.calibration import Calibration
from apn.crops import crops_at
from apn.detection import Detection
from apn.detector import Detector
from apn.explain_bands import BandEvidence, band_evidence
from apn.heatmaps import enlarge, normalize, require_evaluation, stitch, tile_maps
from apn.image import ImageError, LoadedImage
from apn.imagefile import Source as File
from apn.models.apn import APN
from apn.sources import open_source

LONGEST_SIDE = 1600  # pixels of the arrays below: more tells a reader nothing, and a large image would fill the memory
SHOWN_BANDS = 3

Picture = File | LoadedImage | np.ndarray
Target = Literal["generated", "real"]


class HeatMap(NamedTuple):
    """Where evidence lies. values: (H, W) float32 in [0, 1], in [-1, 1] where it has two signs, the strongest place at
    1 or -1; all 0 where there is none.

    peak: what 1 stands for, in the network's own units, to compare heat maps of the same network: LayerCAM has logit
    per cell, evidence the logit itself, were the whole picture like this place.
    """

    values: np.ndarray
    peak: float


class Explanation(NamedTuple):
    """Why a detector said what it said of one image.

    H x W is the image's size, divided by `reduction` and rounded up: 1 up to LONGEST_SIDE pixels, else 2, 3 and so on.

    target:      what LayerCAM shows evidence for, "generated" or "real".
    picture:     (H, W, 3) uint8 RGB.
    scored:      (H, W) bool, true where the detector looked; elsewhere the next four are 0.
    tile_scores: (H, W) float32 in [0, 1], probability of generated of the tiles there, the mean where they overlap.
    evidence:    gradient times features of both branches, smoothed (apn/heatmaps.py), above 0 for generated, below 0
                 for real, whatever the target.
    spatial, frequency: LayerCAM of the two branches.
    bands:       the frequency branch on the tile that speaks most for the target.
    sha256:      of the bytes of the file that was judged, in hexadecimal; None for pixels.
    """

    detection: Detection
    target: Target
    reduction: int
    picture: np.ndarray
    scored: np.ndarray
    tile_scores: np.ndarray
    evidence: HeatMap
    spatial: HeatMap
    frequency: HeatMap
    bands: BandEvidence
    sha256: str | None


def explain(
    model: nn.Module,
    image: Picture,
    *,
    detector: Detector | None = None,
    target: Target = "generated",
    stability: bool = True,
    shown_bands: int = SHOWN_BANDS,
) -> Explanation:
    """Explains what `model`, an APN in evaluation mode (`apn.load_model`), sees in one image.

    image:       a path, the bytes of a file, a binary file, or RGB pixels (H, W, 3) uint8.
    detector:    gives the verdict (`apn.load` of the same weights); without one the probability is not calibrated.
    stability:   as in `Detector.detect`.
    shown_bands: how many of the strongest bands get a purified and a residual image.

    One call at a time for the same model. Raises ImageError for an image that cannot be read, ValueError for a target
    that is neither, and for a network that is no APN, is in training, or has another crop size than the detector.
    """
    if not isinstance(model, APN):
        raise ValueError(f"expected an APN, which has bands and two branches, found {type(model).__name__}")
    require_evaluation(model)
    detector = detector or _uncalibrated(model)
    size = model.config.image_size
    if target not in get_args(Target):
        raise ValueError(f"expected target {' or '.join(get_args(Target))}, found {target!r}")
    if detector.crop_size != size:
        raise ValueError(f"expected a detector of the same weights, crops of {size}, found {detector.crop_size}")
    loaded = open_source(image, digest=True)
    detection = _detect(detector, loaded, image, stability)
    tiles = crops_at(loaded.pixels, [(tile.top, tile.left) for tile in detection.tiles], size)
    inputs = torch.from_numpy(to_input(tiles)).to(next(model.parameters()).device)  # (T, 3, S, S)
    sign = 1.0 if target == "generated" else -1.0
    maps = tile_maps(model, inputs, sign)
    layout = _Layout(detection, size)
    scores = np.array([tile.probability for tile in detection.tiles], np.float32)
    best = int(scores.argmax() if target == "generated" else scores.argmin())
    tile_scores, scored = layout.lay(np.broadcast_to(scores[:, None, None], tiles.shape[:3]))
    return Explanation(
        detection=detection,
        target=target,
        reduction=layout.reduction,
        picture=np.asarray(Image.fromarray(loaded.pixels).reduce(layout.reduction)),
        scored=scored,
        tile_scores=tile_scores,
        evidence=layout.heat(maps.evidence),
        spatial=layout.heat(maps.spatial),
        frequency=layout.heat(maps.frequency),
        bands=band_evidence(model, inputs[best], detection.tiles[best], shown_bands, sign),
        sha256=loaded.sha256,
    )


class _Layout:
    """The tiles of one image, laid on the picture as shown."""

    def __init__(self, detection: Detection, size: int) -> None:
        assert detection.height is not None
        assert detection.width is not None
        self.size, self.height, self.width = size, detection.height, detection.width
        self.reduction = -(-max(self.height, self.width) // LONGEST_SIDE)
        self.corners = [(tile.top, tile.left) for tile in detection.tiles]

    def lay(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (T, S, S) -> values and where (H, W)
        return stitch(tiles, self.corners, self.height, self.width, self.reduction)

    def heat(self, maps: np.ndarray) -> HeatMap:  # (T, h, w)
        return HeatMap(*normalize(self.lay(enlarge(maps, self.size))[0]))


def _detect(detector: Detector, loaded: LoadedImage, image: object, stability: bool) -> Detection:
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else "image"
    (detection,) = detector.detect_many([loaded], names=[name], stability=stability)
    if detection.error is not None:
        raise ImageError(detection.error)
    return detection


def _uncalibrated(model: APN) -> Detector:
    """Softmax of the network's own logits, verdict at 0.5."""

    @torch.inference_mode()
    def logits(crops: np.ndarray) -> np.ndarray:
        device = next(model.parameters()).device
        return model(torch.from_numpy(to_input(crops)).to(device), irrelevant=False).logits.float().cpu().numpy()

    return Detector(
        logits,
        name="apn",
        sha256="",
        crop_size=model.config.image_size,
        calibration=Calibration(),
        backend_name="torch",
    )
