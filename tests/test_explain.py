"""Explanations as a whole: shapes and ranges, the weights matter, figures and JSON are written and safe."""

import hashlib
import io
import json
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_model

import apn
import apn.explain_files
from apn.commands import UsageError
from apn.commands.explain import explain as command
from apn.explain_figures import explanation_figure, explanation_sheet, figure_pixels, spectrum_figure
from apn.explain_files import DPI, FileNames, Format, explanation_json, write_explanation
from apn.explain_parts import all_parts, stretch
from apn.explanations import LONGEST_SIDE, Explanation, explain
from apn.image import ImageError


def picture(height: int = 150, width: int = 130) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def explained(pixels: np.ndarray | None = None, seed: int = 0) -> Explanation:
    return explain(tiny_model(seed).eval(), picture() if pixels is None else pixels, stability=False)


@pytest.fixture(scope="module")
def found() -> Explanation:
    return explained()


def test_arrays_have_the_shapes_and_ranges_they_say(found: Explanation) -> None:
    for values in (found.spatial.values, found.frequency.values, found.tile_scores):
        assert (values.shape, values.dtype) == ((150, 130), np.float32)
        assert 0 <= values.min() <= values.max() <= 1
        assert (values[~found.scored] == 0).all()
    assert found.spatial.values.max() == found.frequency.values.max() == 1
    assert found.evidence.values.shape == (150, 130)
    assert np.abs(found.evidence.values).max() == 1
    assert (found.evidence.values[~found.scored] == 0).all()
    np.testing.assert_array_equal(found.picture, picture())
    bands = found.bands
    assert bands.spectrum.shape == (64, 64)
    assert bands.coverage.shape == (2, 64, 64)
    assert bands.masks.shape == (2, 2, 64, 64)
    assert bands.purified.shape == bands.residual.shape == (2, 64, 64, 3)
    for share in (bands.coverage, bands.masks):
        assert 0 <= share.min() <= share.max() <= 1 + 1e-6


def test_tile_scores_are_the_means_of_the_tiles_there(found: Explanation) -> None:
    total, count = np.zeros((150, 130)), np.zeros((150, 130))
    for tile in found.detection.tiles:
        total[tile.top : tile.top + 64, tile.left : tile.left + 64] += tile.probability
        count[tile.top : tile.top + 64, tile.left : tile.left + 64] += 1
    np.testing.assert_array_equal(found.scored, count > 0)
    np.testing.assert_allclose(found.tile_scores, total / np.maximum(count, 1), atol=1e-6)


def test_bands_are_those_of_the_tile_that_speaks_most_for_the_target() -> None:
    model = tiny_model().eval()
    for target, most in (("generated", max), ("real", min)):
        one = explain(model, picture(), target=target, stability=False)  # type: ignore[arg-type]
        tiles = one.detection.tiles
        assert one.bands.tile.probability == most(tile.probability for tile in tiles)


def test_the_detection_is_the_detectors_own() -> None:
    detector = apn.load()
    model = apn.load_model(Path(apn.__file__).parent / "weights" / "apn-mini")
    pixels = picture(300, 500)
    assert explain(model, pixels, detector=detector).detection == next(
        iter(detector.detect_many([pixels], names=["image"]))
    )
    with pytest.raises(ValueError, match=r"crops of 64, found"):
        explain(tiny_model().eval(), pixels, detector=detector)


def test_other_weights_give_another_heat_map() -> None:
    """What a map of edges alone would not do (Adebayo et al., "Sanity checks for saliency maps", 2018)."""
    maps = [explained(seed=seed) for seed in range(3)]
    for name in ("spatial", "frequency"):
        values = [getattr(one, name).values[one.scored] for one in maps]
        assert np.abs(np.corrcoef(values)[np.triu_indices(3, 1)]).max() < 0.9, name


def test_no_evidence_is_an_empty_map_and_still_a_figure() -> None:
    model = tiny_model().eval()
    for parameter in model.classifier.parameters():
        torch.nn.init.zeros_(parameter)
    one = explain(model, picture(), stability=False)
    assert (one.spatial.peak, one.spatial.values.max()) == (0, 0)
    parts = {part.name: part for part in all_parts(one)}
    assert parts["heat-map"].meaning.startswith("No place spoke for generated")
    assert figure_pixels(explanation_figure(one, "a.png"), dpi=40).std() > 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 500), (64, 64), (LONGEST_SIDE + 1, 70)])
def test_pictures_of_any_size(height: int, width: int) -> None:
    one = explained(picture(height, width))
    by = one.reduction
    assert by == (2 if height > LONGEST_SIDE else 1)
    assert one.picture.shape == (-(-height // by), -(-width // by), 3)
    assert one.spatial.values.shape == one.scored.shape == one.picture.shape[:2]
    names = {part.name for part in all_parts(one)}
    assert ("tile-scores" in names) == (len(one.detection.tiles) > 1)
    figure_pixels(explanation_figure(one, "a.png"), dpi=40)


def test_what_cannot_be_explained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected an APN"):
        explain(torch.nn.Linear(2, 2), picture())
    with pytest.raises(ValueError, match="eval"):
        explain(tiny_model().train(), picture())
    with pytest.raises(ImageError):
        explain(tiny_model().eval(), b"no picture")
    with pytest.raises(ImageError, match="expected RGB pixels"):
        explain(tiny_model().eval(), picture()[..., 0])


def test_a_file_in_any_form_is_explained_alike(tmp_path: Path, found: Explanation) -> None:
    Image.fromarray(picture()).save(tmp_path / "one.png")
    content, model = (tmp_path / "one.png").read_bytes(), tiny_model().eval()
    for source in (tmp_path / "one.png", bytearray(content), memoryview(content), io.BytesIO(content)):
        one = explain(model, source, stability=False)
        assert one.detection.logit == found.detection.logit
        np.testing.assert_array_equal(one.evidence.values, found.evidence.values)


def test_a_target_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="expected target generated or real, found 'fake'"):
        explain(tiny_model().eval(), picture(), target="fake")  # type: ignore[arg-type]


def test_explain_is_public_and_stays_a_function() -> None:
    assert apn.explain is explain
    assert apn.Explanation is Explanation


def texts(explanation: Explanation, name: str) -> list[str]:
    return [text.get_text() for text in explanation_figure(explanation, name).axes[0].texts]


def test_the_verdict_comes_first_and_is_never_cut(found: Explanation) -> None:
    said = replace(found.detection, verdict="real", probability=0.99991)
    for name in ("a.png", "WhatsApp Image " + "very long name " * 12 + ".jpg", "صورة القهوة.jpg"):
        title = texts(found._replace(detection=said), name)[0]
        assert title.startswith("Looks like a photograph, probability >0.999 of being AI-generated: ")
        assert title.endswith(name[-4:])
        assert len(title) <= 90


def test_the_figure_tells_that_only_one_of_several_pictures_was_scored(found: Explanation) -> None:
    animated = replace(found.detection, format="GIF", frames=7)
    said = "7 pictures in the file, only the first is scored"
    assert said in texts(found._replace(detection=animated), "a.gif")[1]


def test_the_figure_tells_what_the_detector_warned_of(found: Explanation) -> None:
    warned = replace(found.detection, warnings=("small: 9 x 9 pixels", "not stable: real as it is (JPEG 75: unsure)"))
    assert texts(found._replace(detection=warned), "a.png")[1].endswith("tiles; warning: small, not stable")
    assert "warning" not in texts(found._replace(detection=replace(found.detection, warnings=())), "a.png")[1]


def test_an_image_of_a_band_is_stretched_around_its_middle() -> None:
    image = np.array([-0.2, 0.0, 0.0, 0.0, 0.1])[:, None, None] * np.ones((5, 1, 3))
    np.testing.assert_allclose(stretch(image)[[0, 1, 4], 0, 0], [0, 0.5, 0.75], atol=0.01)
    np.testing.assert_allclose(stretch(np.full((4, 4, 3), 7.0)), 0.5)
    np.testing.assert_allclose(
        stretch(image + np.array([0, 9, 0])), stretch(image), atol=1e-9
    )  # frequency 0 of green alone


def test_file_names_are_safe_and_no_two_alike() -> None:
    names = FileNames()
    given = ["a/b.png", "c/b.jpg", "B.png", "<b> x.png", "../..", ".png", "ü" * 300 + ".png", "\udcff.png", "a\nb.png"]
    made = [names.name(path) for path in given]
    assert made[:4] == ["b", "b-2", "B-3", "_b__x"]
    assert [names.name(path) for path in ("caf\xe9.png", "cafe\u0301.png")] == [
        "caf\xe9",
        "cafe\u0301-2",
    ]  # as APFS does
    assert len({name.casefold() for name in made}) == len(made)
    for name in made:
        assert name.strip(".")
        assert not set(name) & set("/\\<>:\"'|?* \n\0")
        assert len(name.encode()) <= 130


def test_names_keep_the_marks_of_their_letters() -> None:
    names = FileNames()
    assert names.name("फोटो.jpg") == "फोटो"
    assert names.name("เชียงใหม่.jpg") == "เชียงใหม่"
    assert names.name("cafe\u0301.jpg") == "cafe\u0301"  # as macOS writes it
    assert names.name("❤\ufe0f.jpg") == "__"


def test_maps_of_a_panorama_stand_below_one_another() -> None:
    shapes = {}
    for width, height in (300, 200), (800, 200), (1600, 160):
        figure = explanation_figure(explained(picture(height, width)), "p.png")
        pictures = [image for image in figure.axes[0].images if image.get_array().shape[:2] == (height, width)]
        lefts, rights, *_ = zip(*(image.get_extent() for image in pictures), strict=True)
        shapes[width] = len(pictures), len(set(lefts)), max(np.subtract(rights, lefts))
        for one, other in combinations((image.get_extent() for image in figure.axes[0].images), 2):
            apart = one[1] <= other[0] or other[1] <= one[0] or one[2] <= other[3] or other[2] <= one[3]
            assert apart, (one, other)
    assert [shape[:2] for shape in shapes.values()] == [(5, 5), (5, 2), (5, 1)]
    assert shapes[800][2] > 3  # inches
    assert shapes[1600][2] > 6.5


def test_the_command_writes_figures_parts_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a<b> & $x^2$.png"
    Image.fromarray(picture(240, 500)).save(tmp_path / hostile)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        command([tmp_path / hostile, tmp_path / "broken.jpg"], out=out, formats="png, svg,json", stability=False)
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "broken.jpg" in said.err
    assert "being AI-generated" in said.out
    name = "a_b_____x_2_"
    assert {path.name for path in out.iterdir()} == {f"{name}.png", f"{name}.svg", f"{name}.json", f"{name}-parts"}

    text = (out / f"{name}.svg").read_text()
    assert "a&lt;b&gt; &amp; $x^2$.png" in text
    assert hostile not in text
    words = " ".join(
        element.text or "" for element in ElementTree.fromstring(text).iter() if "text" in str(element.tag)
    )
    assert "horizontal, cycles per pixel" in words

    parts = {path.stem: np.asarray(Image.open(path)) for path in (out / f"{name}-parts").iterdir()}
    maps = {"evidence-map", "heat-map", "frequency-heat-map", "tile-scores"}
    assert {"picture", *maps, "spectrum", "purified-1", "residual-3"} <= set(parts)
    assert all(pixels.std() > 0 for kind, pixels in parts.items() if not kind.startswith(("purified", "residual")))
    assert parts["heat-map"].shape == (240, 500, 3)
    with Image.open(out / f"{name}.png") as figure:
        assert figure.width >= 1400

    facts = json.loads((out / f"{name}.json").read_text())
    assert facts["sha256"] == hashlib.sha256((tmp_path / hostile).read_bytes()).hexdigest()
    assert abs(datetime.fromisoformat(facts["judged"]).timestamp() - time.time()) < 600
    described = apn.load().describe()
    assert facts["model"] == {
        **{key: described[key] for key in ("name", "version", "sha256")},
        **{key: described["thresholds"][key] for key in ("real_below", "generated_from")},
        "stability": False,
    }
    assert facts["unit"] == "cycles per pixel"
    assert set(facts["heat_map_peaks"]) == {"evidence", "spatial", "frequency"}
    assert facts["detection"]["path"].endswith(hostile)
    assert len(facts["bands"]) == 3
    for band in facts["bands"]:
        assert 0 <= band["weight"] <= 1
        assert all(-0.5 <= one["low"] <= one["high"] <= 0.5 for one in band["intervals"])


def test_a_file_that_is_replaced_once_it_is_explained_keeps_the_hash_of_what_was(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    sha256 = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    model = tiny_model(0).eval()
    explanation = explain(model, tmp_path / "a.png", stability=False)
    (tmp_path / "a.png").write_bytes(b"another file")
    detector = apn.load()
    assert explanation_json(explanation, detector, stability=False)["sha256"] == sha256
    assert explanation_json(explained(), detector, stability=False)["sha256"] is None


def test_the_image_itself_is_never_replaced(tmp_path: Path, found: Explanation) -> None:
    image = tmp_path / "photo.png"
    image.write_bytes(b"the photograph")
    named = found._replace(detection=replace(found.detection, path=str(image)))
    with pytest.raises(ValueError, match=r"photo.png is the image that is explained: expected another folder"):
        write_explanation(named, tmp_path, "photo", {Format.PNG}, apn.load("apn-mini"), stability=False)
    assert image.read_bytes() == b"the photograph"
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_the_command_knows_its_formats(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="json, png, svg, found 'gif'"):
        command([tmp_path], out=tmp_path, formats="gif")


def test_the_same_explanation_draws_the_same_svg(tmp_path: Path, found: Explanation) -> None:
    texts = []
    for name in ("one.svg", "two.svg"):
        apn.explain_files.save_figure(explanation_figure(found, "a.png"), tmp_path / name)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]


def test_the_spectrum_is_drawn_with_its_bands(found: Explanation) -> None:
    pixels = figure_pixels(spectrum_figure(found.bands), dpi=50)
    assert pixels.shape[2] == 3
    assert pixels.std() > 20


def test_the_spectrum_of_the_parts_is_cut_out_of_the_sheet(found: Explanation) -> None:
    """Where it is drawn alone is the reference: it shows the same, and the neighbours on the sheet are not in it."""
    sheet = explanation_sheet(found, "a.png", "", all_parts(found))
    part = sheet.spectrum_pixels(figure_pixels(sheet.figure, DPI)).astype(int)
    alone = figure_pixels(spectrum_figure(found.bands), DPI).astype(int)
    height, width = (min(sides) for sides in zip(part.shape[:2], alone.shape[:2], strict=True))
    assert max(abs(np.subtract(part.shape, alone.shape))) <= 1
    reach = [
        abs(np.roll(part, shift, axis=(0, 1))[:height, :width] - alone[:height, :width]).mean() for shift in _STEPS
    ]
    assert min(reach) < 8  # letters and edges lie between the dots of both, not at the same place
    for edge in part[:2], part[-2:], part[:, :1], part[:, -1:]:
        assert (edge == 255).all()


_STEPS = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
