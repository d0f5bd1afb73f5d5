"""The inputs behind `tests/golden`: official weights drawn from their own names, and two pictures.

`official_forward.npz` and `official_losses.npz` hold what the public code made of them (evaluation mode, float32).
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"
BACKBONE = "spital_branch.backbone."  # the public spelling


def golden_arrays(name: str) -> Mapping[str, np.ndarray]:
    """One of the files of golden numbers, by the name of each array."""
    with np.load(GOLDEN / name) as file:
        return dict(file)


def golden_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """Normal noise seeded by the name's CRC-32, scaled to what a tensor of this kind holds in a working network."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith(".prior"):
        return torch.from_numpy(np.linspace(0, 0.9, shape[0]).astype(np.float32))
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        values = 1 + 0.25 * np.tanh(noise)
    elif name.endswith(("running_mean", "bias")):
        values = 0.05 * noise
    elif name.endswith("layer_scale"):
        values = 0.1 + 0.01 * noise
    elif len(shape) == 1:
        values = 1 + 0.1 * noise
    else:
        values = noise * np.sqrt(1.6 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def official_shapes(backbone: str = "convnext_base", band_count: int = 15) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official state dict; `backbone` is torchvision's, its `fc` a head of two layers."""
    listed = json.loads((GOLDEN / "official_state_dict.json").read_text())
    shapes = {name: tuple(shape) for name, (shape, _) in listed.items()}
    if backbone != "convnext_base":
        with torch.device("meta"):
            trunk = getattr(torchvision.models, backbone)(weights=None)
            trunk.fc = nn.Sequential(nn.Linear(trunk.fc.in_features, 256), nn.ReLU(), nn.Linear(256, 256))
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(BACKBONE)}
        shapes |= {BACKBONE + name: tuple(value.shape) for name, value in trunk.state_dict().items()}
    for name, shape in shapes.items():
        if name.endswith(".prior") or ".head_p.6." in name:
            shapes[name] = (band_count, *shape[1:])
        elif ".head_c.6." in name:
            shapes[name] = (2 * band_count, *shape[1:])
    return shapes


def official_state(backbone: str = "convnext_base", band_count: int = 15) -> dict[str, Tensor]:
    """An official state dict by the rule."""
    return {name: golden_tensor(name, shape) for name, shape in official_shapes(backbone, band_count).items()}


def golden_images() -> Tensor:
    """(2, 3, 224, 224) in [0, 1], in the official BGR order: waves, ramps, and a fifth of noise in both."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224] / 224
    turn = 2 * np.pi
    pattern = np.empty((2, 3, 224, 224))
    for colour in range(3):
        slow = 0.3 * np.sin(turn * (3 * x + 2 * y) + colour)
        pattern[0, colour] = 0.5 + slow + 0.1 * np.cos(turn * (40 * x + colour * 7 * y))
        pattern[1, colour] = (x * (colour + 1) + y) % 1.0
    return torch.from_numpy((0.8 * pattern + 0.2 * rng.random(pattern.shape)).clip(0, 1).astype(np.float32))


def error(found: Tensor, golden: np.ndarray) -> float:
    """Largest difference, as a share of the largest golden value."""
    assert tuple(found.shape) == golden.shape
    return float(np.abs(found.detach().numpy() - golden).max() / np.abs(golden).max())
