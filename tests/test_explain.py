"""Explanations: shapes and ranges, hooks gone afterwards, the network's weights matter, figures are written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_model

import apn
from apn.commands.explain import explain as command
from apn.explanations import explain
from apn.heatmaps import normalize, stitch


def picture(height: int = 150, width: int = 130) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def hooks(model: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._backward_hooks) for part in model.modules())


def test_parts_have_the_shapes_and_ranges_they_say() -> None:
    model = tiny_model().eval()
    before = hooks(model), [p.requires_grad for p in model.parameters()]
    found = explain(model, picture())
    assert (hooks(model), [p.requires_grad for p in model.parameters()]) == before
    assert all(p.grad is None for p in model.parameters())
    for values in (found.spatial.values, found.frequency.values, found.tile_scores):
        assert values.shape == (150, 130)
        assert 0 <= values.min() <= values.max() <= 1
    assert found.picture.shape == (150, 130, 3)
    tiles = found.detection.tiles
    covered = np.zeros((150, 130), bool)
    for tile in tiles:
        covered[tile.top : tile.top + 64, tile.left : tile.left + 64] = True
    np.testing.assert_array_equal(found.scored, covered)
    weights = [band.weight for band in found.bands.bands]
    assert weights == sorted(weights, reverse=True)
    assert all(i.low <= i.high <= 0.5 for band in found.bands.bands for i in band.intervals)


def test_tile_scores_are_the_means_of_the_tiles_there() -> None:
    found = explain(tiny_model().eval(), picture())
    expected, count = np.zeros((150, 130)), np.zeros((150, 130))
    for tile in found.detection.tiles:
        expected[tile.top : tile.top + 64, tile.left : tile.left + 64] += tile.probability
        count[tile.top : tile.top + 64, tile.left : tile.left + 64] += 1
    np.testing.assert_allclose(found.tile_scores, expected / np.maximum(count, 1), atol=1e-6)


def test_other_weights_give_another_heat_map() -> None:
    one, other = (explain(tiny_model(seed).eval(), picture()).spatial.values for seed in (0, 1))
    assert np.abs(one - other).max() > 0.1


def test_purified_and_residual_are_those_of_the_network() -> None:
    model = tiny_model().eval()
    found = explain(model, picture()).bands
    crop = picture()[found.tile.top : found.tile.top + 64, found.tile.left : found.tile.left + 64] / 255
    purified, residual, _ = model.frequency.split(torch.from_numpy(crop).float().permute(2, 0, 1)[None])
    for rank, band in enumerate(found.bands[: len(found.purified)]):
        for shown, expected in ((found.purified, purified), (found.residual, residual)):
            np.testing.assert_allclose(shown[rank], expected[0, band.index].permute(1, 2, 0), atol=1e-5)


def test_a_map_of_zeros_stays_zero_and_overlaps_are_averaged() -> None:
    values, peak = normalize(np.zeros((4, 4), np.float32))
    assert (values.max(), peak) == (0, 0)
    laid, where = stitch(np.stack([np.full((4, 4), 1.0), np.full((4, 4), 3.0)]), [(0, 0), (0, 2)], 4, 6, 1)
    np.testing.assert_allclose(laid[0], [1, 1, 2, 2, 3, 3])
    assert where.all()


def test_a_network_that_is_no_apn_or_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an APN"):
        explain(torch.nn.Linear(2, 2), picture())
    with pytest.raises(ValueError, match="eval"):
        explain(tiny_model().train(), picture())


def test_the_command_draws_a_figure_an_image_and_reports_a_broken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(picture(240, 300)).save(tmp_path / "a<b> $x^2$.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(SystemExit) as ended:
        command([tmp_path / "a<b> $x^2$.png", tmp_path / "broken.jpg"], out=tmp_path / "out", file_format="svg")
    assert ended.value.code == 1
    (figure,) = (tmp_path / "out").iterdir()
    assert "a&lt;b&gt; $x^2$.png" in figure.read_text()
    assert "broken.jpg" in capsys.readouterr().err


def test_explain_is_public() -> None:
    assert apn.explain is explain
