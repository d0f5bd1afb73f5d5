"""Real 2-D Fourier transforms, unnormalised forward, as `Spectrum` pairs of real tensors.

`FFT` is what training and PyTorch inference use. `MatrixDFT` writes the same transform as real matrix products, which
every exporter and runtime supports (complex tensors and FFT operators do not export reliably).
Dimensions: H x W pixels, M = W // 2 + 1 spectrum columns.
"""

import math

import torch
from torch import Tensor, nn

from apn.models.bands import Spectrum, self_conjugate_bins


class FFT(nn.Module):
    """torch.fft.rfft2 and irfft2 for images of height x width pixels, in float32."""

    self_conjugate: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.register_buffer("self_conjugate", self_conjugate_bins(height, width), persistent=False)

    def forward(self, image: Tensor) -> Spectrum:
        """image (..., H, W) -> spectrum (..., H, M)."""
        spectrum = torch.fft.rfft2(image)
        # Rounding would flip the phase of a negative real between +pi and -pi, so its imaginary part is set to +0.
        return Spectrum(spectrum.real, torch.where(self.self_conjugate, 0.0, spectrum.imag))

    def inverse(self, spectrum: Spectrum) -> Tensor:
        """spectrum (..., H, M) -> image (..., H, W)."""
        return torch.fft.irfft2(torch.complex(*spectrum), s=(self.height, self.width))


class MatrixDFT(nn.Module):
    """The same transforms as four products with real matrices, cosines and sines side by side in each."""

    self_conjugate: Tensor
    constant: Tensor
    to_columns: Tensor
    to_rows: Tensor
    from_rows: Tensor
    from_columns: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width, self.columns = height, width, width // 2 + 1

        def angles(n: int, frequencies: int) -> Tensor:  # exact integers before the division keep float64 accuracy
            return torch.outer(torch.arange(n), torch.arange(frequencies)).remainder(n).double() * (2 * math.pi / n)

        rows, columns = angles(height, height), angles(width, self.columns)  # (H, H), (W, M)
        weight = torch.full((self.columns,), 2.0)  # columns 1 .. stand for their mirror images too
        weight[torch.arange(self.columns) * 2 % width == 0] = 1.0
        share = weight[:, None] / (height * width)  # (M, 1)
        constant = torch.zeros(height, self.columns)
        constant[0, 0] = height * width
        rotation = torch.cat([torch.cat([rows.cos(), rows.sin()], 1), torch.cat([-rows.sin(), rows.cos()], 1)])
        for name, value in {
            "to_columns": torch.cat([columns.cos(), -columns.sin()], 1),  # (W, 2 M): real | imaginary
            "to_rows": rotation,  # (2 H, 2 H) on real over imaginary
            "from_rows": rotation.T,
            "from_columns": torch.cat([share * columns.T.cos(), -share * columns.T.sin()]),  # (2 M, W)
            "constant": constant,
            "self_conjugate": self_conjugate_bins(height, width),
        }.items():
            self.register_buffer(name, value if value.dtype == torch.bool else value.float(), persistent=False)

    def forward(self, image: Tensor) -> Spectrum:
        """image (..., H, W) -> spectrum (..., H, M)."""
        mean = image.mean(dim=(-2, -1), keepdim=True)  # put back at frequency zero: smaller sums, less rounding
        columns = torch.cat(((image - mean) @ self.to_columns).split(self.columns, dim=-1), dim=-2)  # (..., 2 H, M)
        real, imaginary = (self.to_rows @ columns).split(self.height, dim=-2)
        return Spectrum(real + mean * self.constant, torch.where(self.self_conjugate, 0.0, imaginary))

    def inverse(self, spectrum: Spectrum) -> Tensor:
        """spectrum (..., H, M) -> image (..., H, W); like irfft2 it ignores imaginary parts of columns 0 and W/2."""
        rows = self.from_rows @ torch.cat([spectrum.real, spectrum.imaginary], dim=-2)  # (..., 2 H, M)
        return torch.cat(rows.split(self.height, dim=-2), dim=-1) @ self.from_columns  # (..., H, W)
