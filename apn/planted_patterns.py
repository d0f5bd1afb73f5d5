"""Do bands find what is there? A wave of known frequency is added to half of all pictures, a small network is trained
to tell these, and its strongest bands must select that frequency. The wave runs diagonally: along an axis it would lie
where every band without an extent lies too, at frequency 0 of the other axis.

The pictures are noise with the spectrum of photographs (amplitude falls as 1 / frequency), made here: nothing else
tells the classes apart. Dimensions: B batch, S side, M = S // 2 + 1 spectrum columns, K bands.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from apn.explain_bands import band_effects
from apn.losses import bands_loss
from apn.metrics import auc
from apn.model_config import BandStart, ModelConfig
from apn.models.apn import APN

SIZE, BANDS, EMBEDDING = 32, 3, 192
STEPS, BATCH, RATE = 250, 16, 1e-3
AMPLITUDE = 0.06  # of the wave; the noise has a standard deviation of 0.15
EDGE_WIDTH = 4.0  # positions of the spectrum over which an edge feels what lies beside it
TESTED = 128


class PatternTest(NamedTuple):
    """frequency: of the wave along either axis, cycles per pixel. auc: of held-out pictures, frequency branch alone.

    strongest: share in [0, 1] of held-out pictures with the wave, and of colours, in which the strongest band, without
    which the logit would lose most, selects the amplitude there. elsewhere: the same, mean over all other places of
    the spectrum. some: in which any band does.
    """

    frequency: float
    auc: float
    strongest: float
    elsewhere: float
    some: float


def pictures(batch: int, rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """(B, 3, S, S) float32 in [0, 1]: grey noise whose amplitude falls as 1 / frequency."""
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    radius[0, 0] = np.inf  # no constant
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(batch, 1, size, size))) / radius, s=(size, size))
    noise *= 0.15 / noise.std(axis=(1, 2, 3), keepdims=True)
    return np.broadcast_to(np.clip(0.5 + noise, 0, 1), (batch, 3, size, size)).astype(np.float32)


def add_wave(images: np.ndarray, periods: int, rng: np.random.Generator, amplitude: float = AMPLITUDE) -> np.ndarray:
    """Pictures (B, 3, S, S) with `periods` periods across and down, each with a phase of its own; clipped to [0, 1]."""
    place = 2 * np.pi * periods * np.arange(images.shape[-1]) / images.shape[-1]
    wave = amplitude * np.cos(place + place[:, None] + rng.uniform(0, 2 * np.pi, (len(images), 1, 1, 1)))
    return np.clip(images + wave, 0, 1).astype(np.float32)


def labelled(batch: int, periods: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) and labels (B,), every second one with the wave."""
    images, label = pictures(batch, rng), np.arange(batch) % 2
    images = np.where(label[:, None, None, None] == 1, add_wave(images, periods, rng), images)
    return torch.from_numpy(images), torch.from_numpy(label)


def train_to_see(periods: int, *, start: BandStart = "narrow", steps: int = STEPS, seed: int = 0) -> APN:
    """A small APN, in evaluation mode, whose frequency branch was trained to tell pictures with the wave.

    start: `ModelConfig.band_start`.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = APN(_config(start))
    branch = [*model.frequency.parameters(), *model.classifier.parameters()]
    optimizer = torch.optim.Adam(branch, lr=RATE)
    model.train()
    for _ in range(steps):
        image, label = labelled(BATCH, periods, rng)
        output = model.frequency(image, irrelevant=False)
        loss = F.cross_entropy(model.classifier(output.artifact), label) + bands_loss(output.proposals)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def pattern_test(periods: int, *, start: BandStart = "narrow", steps: int = STEPS, seed: int = 0) -> PatternTest:
    """Trains, and measures on pictures that were not trained on."""
    model = train_to_see(periods, start=start, steps=steps, seed=seed)
    image, label = labelled(TESTED, periods, np.random.default_rng(seed + 10_000))
    with torch.inference_mode():
        purified, _, proposals = model.frequency.split(image, residual=False)
        embeddings, _ = model.frequency.weigh(purified)
        logits = model.classifier(embeddings.sum(dim=1))
        masks = model.frequency.mask(proposals.amplitude, SIZE, SIZE // 2 + 1)[label == 1].float()  # (B, K, C, S, M)
        best = band_effects(model.classifier, embeddings)[label == 1].argmax(dim=1)  # (B,)
    chosen = masks[torch.arange(len(masks)), best].mean(dim=(0, 1))  # (S, M)
    score = auc(label.numpy(), (logits[:, 1] - logits[:, 0]).numpy())
    here = float(chosen[periods, periods])
    elsewhere = float((chosen.sum() - here) / (chosen.numel() - 1))
    some = float(masks.amax(dim=1)[:, :, periods, periods].mean())
    return PatternTest(periods / SIZE, score, here, elsewhere, some)


def _config(start: BandStart) -> ModelConfig:
    return ModelConfig(
        image_size=SIZE,
        embedding_dim=EMBEDDING,
        band_count=BANDS,
        band_encoder="resnet10_narrow",
        spatial_backbone="resnet10_narrow",
        pretrained=False,
        pretrained_irrelevant=False,
        bands="straight-through",
        band_rows="symmetric",
        band_start=start,
        band_edge_width=EDGE_WIDTH,
    )
