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


class MatrixSpectrum(Spectrum):
    """A spectrum whose phase is free of branches: where its sign is as good as random, processors mispredict them."""

    @property
    def phase(self) -> Tensor:
        """As `Spectrum.phase`, within rounding."""
        real, imaginary = self.real, self.imaginary
        kind = real.dtype
        nothing = ((real == 0) & (imaginary == 0)).to(kind)  # 1 where 0 / 0 must become 0
        left, up = (real < 0).to(kind), (imaginary >= 0).to(kind)
        return torch.atan(imaginary / (real + nothing)) + left * (up * (2 * math.pi) - math.pi)


class MatrixDFT(nn.Module):
    """The same transforms as products with real matrices.

    Along the rows cosines are even and sines are odd, k standing for row H - k too, so that the sum and the difference
    of such a pair are transformed apart: with a quarter of the multiplications. P = (H - 1) // 2 pairs.
    """

    self_conjugate: Tensor
    constant: Tensor
    to_columns: Tensor
    from_columns: Tensor
    cosines: Tensor
    sines: Tensor
    mirrored: Tensor
    backwards: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width, self.columns = height, width, width // 2 + 1
        self.upper, self.pairs = height // 2 + 1, (height - 1) // 2
        rows, columns = _angles(height, self.upper, self.upper), _angles(width, width, self.columns)
        weight = torch.full((self.columns,), 2.0)  # columns 1 .. stand for their mirror images too
        weight[torch.arange(self.columns) * 2 % width == 0] = 1.0
        share = weight[:, None] / (height * width)  # (M, 1)
        constant = torch.zeros(height, self.columns)
        constant[0, 0] = height * width
        for name, value in {
            "to_columns": torch.cat([columns.cos(), -columns.sin()], 1),  # (W, 2 M): real | imaginary
            "from_columns": torch.cat([share * columns.T.cos(), -share * columns.T.sin()]),  # (2 M, W)
            "cosines": rows.cos(),  # (H // 2 + 1, H // 2 + 1)
            "sines": rows.sin()[:, 1 : 1 + self.pairs],  # (H // 2 + 1, P)
            "constant": constant,
        }.items():
            self.register_buffer(name, value.float().contiguous(), persistent=False)
        self.register_buffer("self_conjugate", self_conjugate_bins(height, width), persistent=False)
        self.register_buffer("mirrored", height - torch.arange(1, 1 + self.pairs), persistent=False)  # (P,): H - k
        self.register_buffer("backwards", torch.arange(self.pairs, 0, -1), persistent=False)  # (P,): P .. 1

    def forward(self, image: Tensor) -> Spectrum:
        """image (..., H, W) -> spectrum (..., H, M)."""
        mean = image.mean(dim=(-2, -1), keepdim=True)  # put back at frequency zero: smaller sums, less rounding
        even, odd = self._rows((image - mean) @ self.to_columns)
        real, imaginary = self._unfold(even + odd, even - odd).split(self.columns, dim=-1)
        return MatrixSpectrum(real + mean * self.constant, torch.where(self.self_conjugate, 0.0, imaginary))

    def inverse(self, spectrum: Spectrum) -> Tensor:
        """spectrum (..., H, M) -> image (..., H, W); like irfft2 it ignores imaginary parts of columns 0 and W/2."""
        even, odd = self._rows(torch.cat(spectrum, dim=-1))
        return self._unfold(even - odd, even + odd) @ self.from_columns

    def _rows(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """real | imaginary (..., H, 2 M) -> its cosine transform and, parts swapped, sine transform at rows 0 .. H/2.

        even + odd is the transform at row k and even - odd at row H - k; of the inverse, the other way round.
        """
        first, middle, last = parts.tensor_split((1, 1 + self.pairs), dim=-2)
        mirror = parts.index_select(-2, self.mirrored)  # (..., P, 2 M)
        sums = torch.cat([first, middle + mirror, last[..., : self.upper - 1 - self.pairs, :]], dim=-2)
        real, imaginary = (self.sines @ (middle - mirror)).split(self.columns, dim=-1)  # (..., H // 2 + 1, M) each
        return self.cosines @ sums, torch.cat([imaginary, -real], dim=-1)

    def _unfold(self, upper: Tensor, lower: Tensor) -> Tensor:
        """Rows k = 0 .. H/2 and what is at H - k (..., H // 2 + 1, 2 M) -> all rows (..., H, 2 M)."""
        return torch.cat([upper, lower.index_select(-2, self.backwards)], dim=-2)


def _angles(period: int, rows: int, columns: int) -> Tensor:
    """2 pi i k / period (rows, columns), float64; exact integers before the division keep its accuracy."""
    return torch.outer(torch.arange(rows), torch.arange(columns)).remainder(period).double() * (2 * math.pi / period)
