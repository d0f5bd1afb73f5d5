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
    """The same transforms as products with cosine and sine matrices."""

    self_conjugate: Tensor
    constant: Tensor
    cos_rows: Tensor
    sin_rows: Tensor
    cos_columns: Tensor
    sin_columns: Tensor
    column_weight: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

        def angles(n: int, frequencies: int) -> Tensor:  # exact integers before the division keep float64 accuracy
            return torch.outer(torch.arange(n), torch.arange(frequencies)).remainder(n).double() * (2 * math.pi / n)

        rows, columns = angles(height, height), angles(width, width // 2 + 1)
        weight = torch.full((width // 2 + 1,), 2.0)  # columns 1 .. stand for their mirror images too
        weight[torch.arange(width // 2 + 1) * 2 % width == 0] = 1.0
        constant = torch.zeros(height, width // 2 + 1)
        constant[0, 0] = height * width
        for name, value in {
            "cos_rows": rows.cos().float(),
            "sin_rows": rows.sin().float(),
            "cos_columns": columns.cos().float(),
            "sin_columns": columns.sin().float(),
            "column_weight": weight / (height * width),
            "constant": constant,
            "self_conjugate": self_conjugate_bins(height, width),
        }.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, image: Tensor) -> Spectrum:
        """image (..., H, W) -> spectrum (..., H, M)."""
        middle = 0.5  # taken out and put back at frequency zero: smaller sums, ten times less rounding
        cosine = (image - middle) @ self.cos_columns  # (..., H, M)
        sine = (image - middle) @ self.sin_columns
        real = self.cos_rows @ cosine - self.sin_rows @ sine + middle * self.constant
        imaginary = -(self.cos_rows @ sine + self.sin_rows @ cosine)
        return Spectrum(real, torch.where(self.self_conjugate, 0.0, imaginary))

    def inverse(self, spectrum: Spectrum) -> Tensor:
        """spectrum (..., H, M) -> image (..., H, W); like irfft2 it ignores imaginary parts of columns 0 and W/2."""
        real, imaginary = (part * self.column_weight for part in spectrum)
        cosine = self.cos_rows @ real - self.sin_rows @ imaginary  # (..., H, M): inverse over rows, real part
        sine = self.cos_rows @ imaginary + self.sin_rows @ real
        return cosine @ self.cos_columns.T - sine @ self.sin_columns.T
