"""LGrad: a ResNet-50 that sees the gradient of a frozen network at the image.

Source: Tan et al., "Learning on gradients: generalized artifacts representation for GAN-generated images detection",
CVPR 2023. The gradient of the frozen network's summed output by the pixels, brought to [0, 1] by its least and largest
value, is what the classifier sees.
Why LGrad and not LNP (Liu et al., ECCV 2022): LNP's noise pattern needs a trained image denoiser, of which neither
timm nor a package has one; LGrad's frozen network may be a classifier of timm, as the paper's own ablation shows.
Deviations: a timm classifier in place of a StyleGAN discriminator as the frozen network, and its pooled features
summed, as weights may come without the last layer; the gradient is not rounded to 8 bits on the way.
Dimensions: B batch, S side.
"""

import torch
from torch import Tensor

from apn.model_config import LGradConfig
from apn.models.backbones import Normalize, build_backbone
from apn.models.baselines.classifier import Classifier


def to_unit_range(maps: Tensor) -> Tensor:
    """(B, 3, S, S) -> each image's values from 0 to 1; a constant image becomes 0."""
    low = maps.amin(dim=(1, 2, 3), keepdim=True)
    reach = maps.amax(dim=(1, 2, 3), keepdim=True) - low
    return (maps - low) / torch.where(reach > 0, reach, 1)


class LGrad(Classifier):
    """Image (B, 3, S, S) in [0, 1] -> logits (B, 2)."""

    not_exported = "its input is a gradient, which a graph for inference cannot compute"

    def __init__(self, config: LGradConfig, *, offline: bool = False) -> None:
        super().__init__(config, offline=offline)
        self.frozen = build_backbone(
            config.gradient_backbone,
            pretrained=config.gradient_pretrained and not offline,
            image_size=config.image_size,
        )
        self.frozen_normalize = Normalize(self.frozen)
        self.frozen.requires_grad_(False)

    def train(self, mode: bool = True) -> "LGrad":
        """The frozen network stays in evaluation mode, or batch norm would mix the images of a batch."""
        super().train(mode)
        self.frozen.eval()
        return self

    def gradient(self, image: Tensor) -> Tensor:
        """(B, 3, S, S): the gradient of the frozen network's summed features by the pixels; always float32."""
        # The caller may have switched gradients off, here they are the point.
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(image.device.type, enabled=False):
            pixels = image.detach().float().clone().requires_grad_()
            output = self.frozen(self.frozen_normalize(pixels))
            return torch.autograd.grad(output.sum(), pixels)[0]

    def view(self, image: Tensor) -> Tensor:
        return self.normalize(to_unit_range(self.gradient(image)))
