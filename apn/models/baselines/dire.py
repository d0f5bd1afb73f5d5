"""DIRE: a ResNet-50 that sees what a diffusion model changes when it draws the image again.

Source: Wang et al., "DIRE for diffusion-generated image detection", ICCV 2023: DDIM inversion to noise, DDIM back,
|image - reconstruction|.
Deviations: any pipeline of diffusers with a `unet` (and, for latent ones, a `vae`) in place of ADM at 256 pixels;
reconstructed on the fly from the crop, not once from the resized picture; noise is predicted without a text or class.
Off unless `model.pipeline` names weights: they are neither shipped nor kept in a checkpoint, and a pass of the UNet
for each of 2 x diffusion_steps steps is slow without a GPU. Dimensions: B batch, S side.
"""

from typing import Any

import torch
from torch import Tensor

from apn.model_config import DIREConfig
from apn.models.baselines.classifier import Classifier


def open_pipeline(name: str) -> Any:
    """The diffusers pipeline of a folder or model hub name, frozen. Raises ValueError where it cannot be had."""
    if not name:
        raise ValueError(
            "DIRE needs a diffusion model: set model.pipeline to a diffusers pipeline (folder or hub name)"
        )
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise ValueError(f'DIRE needs diffusers ({error.name} is missing): pip install "apn[dire]"') from error
    try:
        pipeline = DiffusionPipeline.from_pretrained(name, low_cpu_mem_usage=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot open the diffusion pipeline {name!r} (model.pipeline): {error}") from error
    if not hasattr(pipeline, "unet"):
        raise ValueError(f"the pipeline {name!r} has no unet: expected one of the DDPM, DDIM or latent diffusion kind")
    for part in ("unet", "vae", "text_encoder"):
        if getattr(pipeline, part, None) is not None:
            getattr(pipeline, part).requires_grad_(False).eval()
    return pipeline


class Reconstructor:
    """Image (B, 3, S, S) in [-1, 1] -> what the pipeline makes of it: to noise and back, `steps` DDIM steps each.

    Not a module: its weights are the pipeline's, not the detector's.
    """

    def __init__(self, pipeline: Any, steps: int) -> None:
        from diffusers import DDIMInverseScheduler, DDIMScheduler

        self.pipeline, self.steps = pipeline, steps
        settings = {**pipeline.scheduler.config, "clip_sample": False}  # clipped steps cannot be inverted
        self.forth, self.back = (kind.from_config(settings) for kind in (DDIMInverseScheduler, DDIMScheduler))

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        for part in ("unet", "vae", "text_encoder"):
            if getattr(self.pipeline, part, None) is not None:
                getattr(self.pipeline, part).to(image.device)
        condition = self._condition(image)
        sample = self._encode(image)
        for scheduler in (self.forth, self.back):
            scheduler.set_timesteps(self.steps, device=image.device)
            for time in scheduler.timesteps:
                noise = self.pipeline.unet(sample, time, **condition).sample
                sample = scheduler.step(noise, time, sample).prev_sample
        return self._decode(sample)

    def _encode(self, image: Tensor) -> Tensor:
        vae = getattr(self.pipeline, "vae", None)
        return image if vae is None else vae.encode(image).latent_dist.mean * vae.config.scaling_factor

    def _decode(self, sample: Tensor) -> Tensor:
        vae = getattr(self.pipeline, "vae", None)
        return sample if vae is None else vae.decode(sample / vae.config.scaling_factor).sample

    def _condition(self, image: Tensor) -> dict[str, Tensor]:
        """What a text-to-image UNet is told: the empty prompt."""
        if getattr(self.pipeline, "text_encoder", None) is None:
            return {}
        tokenizer = self.pipeline.tokenizer
        tokens = tokenizer([""], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        embedding = self.pipeline.text_encoder(tokens.input_ids.to(image.device))[0]  # (1, tokens, features)
        return {"encoder_hidden_states": embedding.expand(len(image), -1, -1)}


class DIRE(Classifier):
    """Image (B, 3, S, S) in [0, 1] -> logits (B, 2)."""

    not_exported = "its input comes out of a diffusion model, which would be part of the graph"

    def __init__(self, config: DIREConfig, *, offline: bool = False) -> None:
        super().__init__(config, offline=offline)
        self._reconstruct = Reconstructor(open_pipeline(config.pipeline), config.diffusion_steps)

    def view(self, image: Tensor) -> Tensor:
        """|image - reconstruction| in [0, 1], as the trunk wants it; float32, as differences are small."""
        with torch.autocast(image.device.type, enabled=False):
            pixels = 2 * image.float() - 1
            return self.normalize((pixels - self._reconstruct(pixels)).abs().clamp(max=2) / 2)
