"""Block cosines: scipy's transform of each block, and what the statistics of their logarithms say."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from tiny import noise

from apn.models.backbones import build_backbone, normalization, num_features, pretrained_source
from apn.models.codec import Jpeg
from apn.models.cosines import FLOOR, STRIDE, BlockCosines, LogCosines
from apn.models.statistics import statistics

YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@torch.inference_mode()
@pytest.mark.parametrize(("part", "rows"), [("brightness", [0]), ("colour", [1, 2])])
def test_maps_are_the_cosines_of_each_block(part: str, rows: list[int]) -> None:
    image = noise(2)  # of 64 pixels
    maps = LogCosines(part)(image).numpy()  # type: ignore[arg-type]
    places = range(0, 64 - 7, STRIDE)
    assert maps.shape == (2, 64 * len(rows), len(places), len(places))
    ycc = np.einsum("ij,bjhw->bihw", YCC, 255 * image.double().numpy())[:, rows]
    for y, x in ((0, 0), (3, 5), (len(places) - 1, 2)):
        block = ycc[:, :, STRIDE * y : STRIDE * y + 8, STRIDE * x : STRIDE * x + 8]
        expected = np.log(np.abs(dctn(block, norm="ortho", axes=(2, 3))) + FLOOR).reshape(2, -1)
        np.testing.assert_allclose(maps[:, :, y, x], expected, atol=2e-3)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "features"), [("cosines_brightness", 128), ("cosines_colour", 256), ("cosines_brightness_spread", 64)]
)
def test_features_are_standardised_statistics(name: str, features: int) -> None:
    backbone = build_backbone(name, pretrained=True).eval()  # there is nothing to train
    assert isinstance(backbone, BlockCosines)
    assert num_features(backbone) == features
    assert normalization(backbone) == ((0.0,) * 3, (1.0,) * 3)
    assert pretrained_source(name, True) == "none: fixed"
    assert not any(one.requires_grad for one in backbone.parameters())
    image = noise(3)
    maps = backbone.get_submodule(backbone.placed)(image)
    raw = statistics(maps)[:, -features:]  # deviations come last
    mean, deviation = torch.linspace(-1, 1, features), torch.linspace(0.5, 2, features)
    backbone.standardize.set(mean, deviation)
    torch.testing.assert_close(backbone(image), (raw - mean) / deviation, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_they_tell_what_was_saved_before() -> None:
    """A picture that was a JPEG changes less when it is saved again."""
    backbone, jpeg = BlockCosines("brightness", spread=True).eval(), Jpeg()
    fresh = 0.25 + noise(4) / 2
    once = jpeg(fresh)
    changes = [(backbone.statistics(one) - backbone.statistics(jpeg(one))).abs().mean() for one in (fresh, once)]
    assert changes[1] < 0.25 * changes[0]


def test_they_have_a_gradient() -> None:
    """Heat maps need it; so does a picture of one colour, whose cosines are 0."""
    image = torch.full((1, 3, 32, 32), 0.5).requires_grad_()
    build_backbone("cosines_colour").eval()(image).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_they_can_be_built_where_nothing_is_computed() -> None:
    """Whoever only counts weights builds a network on the meta device."""
    with torch.device("meta"):
        backbone = build_backbone("cosines_colour", pretrained=True)
    assert sum(one.numel() for one in backbone.parameters()) == 64 * 64
