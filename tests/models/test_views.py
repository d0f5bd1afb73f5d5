"""The residual view: what a blur takes from a picture, and nothing where there is nothing to take."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, median_filter
from tiny import noise, tiny_model

from apn.export import InferenceGraph, write_onnx
from apn.models.views import COLOUR_GAIN, GAIN, REACH, SIGMA, ColourResidual, Median, Residual
from apn.quantize import _float_nodes


def test_it_is_the_picture_less_its_gaussian_blur() -> None:
    image = noise(2)
    blurred = gaussian_filter(image.double().numpy(), (0, 0, SIGMA, SIGMA), mode="mirror", radius=(0, 0, REACH, REACH))
    expected = 0.5 + GAIN * (image.double().numpy() - blurred)
    np.testing.assert_allclose(Residual()(image).numpy(), expected, atol=1e-4)


def test_what_is_smooth_is_grey() -> None:
    slope = (torch.linspace(0, 1, 64) + torch.linspace(0, 0.5, 64)[:, None]).expand(1, 3, 64, 64) / 1.5
    for image, inner in ((torch.full((1, 3, 64, 64), 0.7), slice(None)), (slope, slice(REACH, -REACH))):
        seen = Residual()(image)[..., inner, inner]
        torch.testing.assert_close(seen, torch.full_like(seen, 0.5), atol=1e-4, rtol=0)


def test_its_colour_is_what_differs_between_the_colours() -> None:
    image = noise(2)
    residual = (Residual()(image).double() - 0.5) / GAIN
    expected = 0.5 + COLOUR_GAIN * (residual - residual.mean(dim=1, keepdim=True))
    torch.testing.assert_close(ColourResidual()(image).double(), expected, atol=1e-4, rtol=1e-4)
    grey = noise(2)[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(ColourResidual()(grey), torch.full_like(grey, 0.5), atol=1e-4, rtol=0)


@given(st.integers(0, 99), st.integers(2, 12), st.integers(2, 12), st.sampled_from([2, 5, 256]))
def test_the_median_is_that_of_nine_places(seed: int, height: int, width: int, levels: int) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).integers(levels, size=(2, 3, height, width))).float() / 255
    expected = median_filter(image.numpy(), (1, 1, 3, 3), mode="mirror")  # with few levels many values are alike
    np.testing.assert_array_equal(Median()(image).numpy(), expected)


def test_the_spatial_branch_may_be_given_a_reference_too() -> None:
    image = noise(2)
    (alone,) = tiny_model(view="colour-residual").seen(image).spatial
    assert alone.shape == image.shape
    both = torch.cat([Residual()(image), Residual()(Median()(image))])
    seen = tiny_model(view="residual", band_view="colour-residual", spatial_reference="median").seen(image)
    torch.testing.assert_close(seen.spatial, (both,))
    torch.testing.assert_close(seen.frequency, ColourResidual()(image))
    alike = tiny_model(view="residual", spatial_reference="median").seen(image)  # the bands have no reference
    torch.testing.assert_close(alike.spatial, (both,))
    torch.testing.assert_close(alike.frequency, Residual()(image))


def test_a_further_look_sees_what_it_asks_for() -> None:
    image = noise(2)
    second = {"view": "colour-residual", "backbone": "resnet10_narrow", "reference": "median"}
    seen = tiny_model(view="residual", further_looks=[second, second | {"scale": 2}]).seen(image)
    compared = torch.cat([ColourResidual()(image), ColourResidual()(Median()(image))])
    half = image.unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean((3, 5))  # the filters see the small picture
    small = torch.cat([ColourResidual()(half), ColourResidual()(Median()(half))])
    torch.testing.assert_close(seen.spatial, (Residual()(image), compared, small))
    torch.testing.assert_close(seen.frequency, Residual()(image))


def test_a_look_at_a_size_that_has_no_half_is_refused() -> None:
    with pytest.raises(ValueError, match="divide image_size 64, found 3"):
        tiny_model(further_looks=[{"backbone": "resnet10_narrow", "scale": 3}])


def test_pixels_are_the_picture_itself() -> None:
    image = noise(1)
    seen = tiny_model().seen(image)
    assert seen.spatial == (seen.frequency,)
    assert torch.equal(seen.frequency, image)


@torch.inference_mode()
def test_both_branches_see_it_and_have_no_further_weights() -> None:
    plain, residual = (tiny_model(view=name).eval() for name in ("pixels", "residual"))
    image = noise(2)
    torch.testing.assert_close(residual(image), plain(Residual()(image)))
    assert residual.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(residual.detect_only()(image), residual(image).logits, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_each_branch_may_have_a_view_of_its_own() -> None:
    plain, both = tiny_model().eval(), tiny_model(view="residual", band_view="colour-residual").eval()
    image = noise(2)
    output = both(image)
    torch.testing.assert_close(output.artifact_spatial, plain(Residual()(image)).artifact_spatial)
    torch.testing.assert_close(output.artifact_frequency, plain(ColourResidual()(image)).artifact_frequency)
    torch.testing.assert_close(both.detect_only()(image), output.logits, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_blur_and_block_cosines_stay_in_float_where_a_graph_is_made_int8(tmp_path: Path) -> None:
    graph, look = tmp_path / "model.onnx", {"view": "pixels", "backbone": "cosines_colour"}
    write_onnx(InferenceGraph(tiny_model(view="residual", further_looks=[look]).eval()), graph)
    convolutions = [node for node in onnx.load(graph).graph.node if node.op_type == "Conv"]
    exact = ("model.views.views.residual.kernel", "model.looks.1.trunk.cosines.transform.weight")
    blur = {node.name for node in convolutions if any(name in node.input for name in exact)}
    stem = {node.name for node in convolutions if "model.looks.0.trunk.stem.0.weight" in node.input}
    assert (len(blur), len(stem)) == (2, 1)
    assert blur <= set(_float_nodes(graph))
    assert not stem & set(_float_nodes(graph))
    heavy = [node for node in onnx.load(graph).graph.node if node.op_type in {"Conv", "Gemm"}]
    kept = {node.name for node in heavy if not any("proposer" in name for name in node.input)} & set(
        _float_nodes(graph)
    )
    assert kept == blur  # nothing else that int8 makes faster


@torch.inference_mode()
def test_autocast_does_not_round_it() -> None:
    model, image = tiny_model(view="residual").eval(), noise(1)
    expected = Residual()(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.seen(image).spatial[0], expected)
        assert not torch.equal(Residual()(image), expected)  # left to itself, it would
