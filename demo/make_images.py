"""Make the images of the demo: photographs of the scikit-image wheel and pictures by a generator trained here.

    python demo/make_images.py --out demo/images

The generator is a convolutional autoencoder built like the one inside latent diffusion models (Rombach et al. 2022):
the latent has a quarter of the height and width, the decoder is nearest-neighbour up-sampling and convolutions. Three
pictures are its reconstructions of the photographs; one is decoded from a latent that belongs to no photograph. Each
generated picture is saved in the format and quality of a photograph, so that the file format does not tell them apart.

Needs scikit-image and torch. Licences and results are in demo/README.md.

Dimensions: B batch, C latent channels, H x W pixels, h = H / 4, w = W / 4.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

SEED = 0
STEPS = 1500
BATCH = 8
CROP = 64  # pixels on a side of the crops trained on
LEARNING_RATE = 2e-3
LATENT_CHANNELS = 16
SCALE = 4  # pixels of the image to one of the latent, in each direction
SYNTHESISED_SIZE = 512  # pixels on a side, as the photograph of the astronaut

# Only colour photographs whose licence the documentation of skimage.data states; it is quoted in demo/README.md.
PHOTOGRAPHS = {
    "astronaut": skimage.data.astronaut,
    "cat": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "rocket": skimage.data.rocket,
    "stars": skimage.data.hubble_deep_field,
}
# The stars are for training and for the synthesised picture only: a composite of many exposures is no photograph.
PHOTOGRAPHS_SHOWN = ("astronaut", "cat", "coffee", "rocket")
RECONSTRUCTED = ("cat", "coffee", "rocket")  # not the astronaut: no generated likeness of a person

FORMATS = {"astronaut": ".jpg", "cat": ".jpg", "coffee": ".webp", "rocket": ".png", "stars": ".jpg"}
SAVE_OPTIONS = {
    ".jpg": {"quality": 90, "subsampling": 0},
    ".webp": {"quality": 90, "method": 6},
    ".png": {"optimize": True},
}


class Block(nn.Module):
    """A residual block: features + convolutions(features)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class Autoencoder(nn.Module):
    """Image to latent and back; the latent has a third of the image's numbers."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            Block(2 * width),
            Block(2 * width),
            nn.Conv2d(2 * width, LATENT_CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, 2 * width, 3, padding=1),
            Block(2 * width),
            Block(2 * width),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(2 * width, width, 3, padding=1),
            Block(width),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, C, h, w)."""
        return self.encoder(2 * image - 1)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 3, H, W), nearly in [0, 1]."""
        return (self.decoder(latent) + 1) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", help="folder to write to")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # the order of sums, and so the result, depends on the number of threads
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)

    photographs = {scene: to_tensor(load()) for scene, load in PHOTOGRAPHS.items()}
    model = train(list(photographs.values()), arguments.steps)

    for scene in PHOTOGRAPHS_SHOWN:
        save(photographs[scene], arguments.out / f"photo-{scene}{FORMATS[scene]}")
    for scene in RECONSTRUCTED:
        path = arguments.out / f"reconstructed-{scene}{FORMATS[scene]}"
        save(reconstruct(model, photographs[scene]), path)
        print(f"{path}: {psnr(to_tensor(np.array(Image.open(path))), photographs[scene]):.1f} dB")
    save(synthesise(model, photographs["stars"]), arguments.out / f"synthesised-stars{FORMATS['stars']}")


def train(photographs: list[Tensor], steps: int) -> Autoencoder:
    """An autoencoder of random crops of the photographs, each (1, 3, H, W)."""
    model = Autoencoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    start = time.monotonic()
    for step in range(1, steps + 1):
        image = torch.cat([random_crop(photographs[randint(len(photographs))], CROP) for _ in range(BATCH)])
        loss = reconstruction_loss(model.decode(model.encode(image)), image)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.4f}, {time.monotonic() - start:.0f} s", flush=True)
    return model.eval()


def reconstruction_loss(output: Tensor, image: Tensor) -> Tensor:
    """Mean |output - image| plus the same of the differences between neighbours, which keeps edges sharp."""
    error = output - image
    return error.abs().mean() + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


@torch.no_grad()
def reconstruct(model: Autoencoder, image: Tensor) -> Tensor:
    """(1, 3, H, W) to the same size, whatever H and W."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % SCALE, 0, -height % SCALE), mode="reflect")
    return model.decode(model.encode(padded))[..., :height, :width]


@torch.no_grad()
def synthesise(model: Autoencoder, image: Tensor, pieces: int = 12, cell: int = 16) -> Tensor:
    """(1, 3, SYNTHESISED_SIZE, SYNTHESISED_SIZE): a picture of things like those in `image`, in an order of its own.

    The latents of `pieces` random crops, each turned and mirrored, are mixed with random weights that vary smoothly
    (one independent value every `cell` places of the latent); then the decoder paints the mixture.
    """
    crops = torch.cat([random_crop(image, SYNTHESISED_SIZE) for _ in range(pieces)])
    latents = model.encode(crops)  # (pieces, C, h, w)
    size = latents.shape[-1]
    noise = torch.randn(1, pieces, size // cell + 1, size // cell + 1)
    noise = F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=True)
    weights = torch.softmax(20 * noise[0, :, None], dim=0)  # (pieces, 1, h, w); 20: one piece dominates most places
    return model.decode((weights * latents).sum(dim=0, keepdim=True))


def random_crop(image: Tensor, size: int) -> Tensor:
    """(1, 3, H, W) to (1, 3, size, size), turned by a multiple of 90 degrees and perhaps mirrored."""
    top, left = randint(image.shape[-2] - size + 1), randint(image.shape[-1] - size + 1)
    crop = torch.rot90(image[..., top : top + size, left : left + size], randint(4), dims=(-2, -1))
    return crop.flip(-1) if randint(2) else crop


def randint(limit: int) -> int:
    """A random number of 0..limit-1 from torch's seeded generator."""
    return int(torch.randint(limit, ()))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]


def to_pixels(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1] to (H, W, 3) uint8."""
    return (255 * image[0].clamp(0, 1)).round().byte().permute(1, 2, 0).contiguous().numpy()


def save(image: Tensor, path: Path) -> None:
    Image.fromarray(to_pixels(image)).save(path, **SAVE_OPTIONS[path.suffix])


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1]."""
    return -10 * math.log10(F.mse_loss(image, reference).item())


if __name__ == "__main__":
    main()
