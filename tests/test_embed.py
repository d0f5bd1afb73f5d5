"""Tables of embeddings: the network's own numbers, a mean over tiles, resumable, and still tables of scores."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from data.trees import save
from tiny import noise, tiny_config, tiny_model
from torch import nn

from apn import scorewriter
from apn.backends import to_input
from apn.checkpoint import save_checkpoint
from apn.commands.embed import embed as command
from apn.commands.options import FAILURES_SHOWN
from apn.config import Config
from apn.crops import crop, tile_corners
from apn.data.samples import Sample
from apn.detection import Tile
from apn.detector import Detector
from apn.embed import axis_coverage, embed_samples, open_embedder
from apn.embeddings import COVERAGES, EMBEDDINGS, read_embeddings
from apn.evaluate import score_samples, show, table_facts
from apn.explain_bands import band_evidence
from apn.image import load_image
from apn.models.apn import APN
from apn.protocols import Protocol
from apn.scoretable import read_scores

NATIVE = Protocol("native")
CHANGES = {"frequency_weight": 0.3}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_checkpoint(folder, tiny_model(**CHANGES), Config(name="tiny", model=tiny_config(**CHANGES)), {})
    return folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Seven pictures of one to four tiles, the fourth of them broken."""
    folder, found = tmp_path_factory.mktemp("images"), []
    for number in range(7):
        path = folder / f"{number}.png"
        save(path, number, bool(number % 2), size=(64, 80, 130)[number % 3])
        generator = "adm" if number % 2 else ""
        found.append(Sample(path, number % 2, generator, "cat", "" if number % 2 else "camera", f"group {number // 2}"))
    found[3].path.write_bytes(b"no picture")
    return found


def run(weights: Path, samples: list[Sample], out: Path, **options: object):
    model, detector = open_embedder(weights)
    facts = table_facts(detector, samples, [show(NATIVE)], data=["made"])
    return embed_samples(model, detector.calibration, samples, NATIVE, out, facts, **options)  # type: ignore[arg-type]


def test_a_row_holds_the_means_of_the_networks_own_outputs(
    weights: Path, samples: list[Sample], tmp_path: Path
) -> None:
    counts = run(weights, samples, tmp_path / "e.parquet", batch_size=3)
    assert (counts.rows, counts.failed, counts.resumed) == (7, 1, 0)
    found = read_embeddings(tmp_path / "e.parquet")
    model, _ = open_embedder(weights)
    rows = [0, 1, 2, 4, 5, 6]
    assert [Path(path.as_py()) for path in found.scores.paths] == [samples[row].path for row in rows]
    for place, row in enumerate(rows):
        pixels = load_image(samples[row].path).pixels
        tiles = np.stack([crop(pixels, *corner, 64) for corner in tile_corners(*pixels.shape[:2], 64)])
        with torch.inference_mode():
            output = model(torch.from_numpy(to_input(tiles)))
        for name in EMBEDDINGS:
            expected = getattr(output, name).mean(dim=0).numpy()
            np.testing.assert_allclose(getattr(found, name)[place], expected, rtol=1e-4, atol=1e-5)
        margin = (output.logits[:, 1] - output.logits[:, 0]).mean()
        assert found.scores.logits[place] == pytest.approx(float(margin), abs=1e-5)
    assert found.heat_spatial is not None
    assert found.heat_spatial.shape == (6, 2, 2)
    mean = 0.7 * found.artifact_spatial + 0.3 * found.artifact_frequency
    np.testing.assert_allclose(found.part("artifact"), mean, rtol=1e-6)
    with torch.inference_mode():
        decided = model.classifier(torch.from_numpy(found.part("artifact")[:1])).diff().item()  # of a single tile
    assert found.scores.logits[0] == pytest.approx(decided, abs=1e-5)
    np.testing.assert_array_equal(found.part("irrelevant", "frequency"), found.irrelevant_frequency)
    np.testing.assert_allclose(found.frequencies[[0, 1, -1]], [0, 1 / 64, 0.5])


def test_the_logits_are_those_of_the_detector_and_reports_read_them(
    weights: Path, samples: list[Sample], tmp_path: Path
) -> None:
    run(weights, samples, tmp_path / "e.parquet", heat_maps=False)
    (scores,) = read_scores([tmp_path / "e.parquet"])
    _, detector = open_embedder(weights)
    rows = list(detector.detect_many([sample.path for sample in samples], stability=False))
    logits = [np.nan if row.logit is None else row.logit for row in rows]
    np.testing.assert_allclose(scores.logits, logits, atol=1e-5)
    assert scores.errors[3].as_py() == rows[3].error
    assert scores.generator.present() == ["adm"]
    assert scores.facts.backend == "torch"


@pytest.mark.parametrize("rows", ["half", "symmetric"])
def test_coverage_is_the_share_of_band_weight_that_the_intervals_of_an_explanation_select(rows: str) -> None:
    model = tiny_model(2, band_count=3, band_rows=rows).eval()
    for proposer in (model.frequency.amplitude_proposer, model.frequency.phase_proposer):
        for axis in (proposer.rows, proposer.columns):
            nn.init.normal_(axis.edges_head[-2].weight, std=20)  # type: ignore[arg-type]
    pixels = noise(1, seed=4)
    with torch.inference_mode():
        output = model(pixels)
        found = axis_coverage(model, output.proposals, output.band_weights)[0].numpy()
    bands = band_evidence(model, pixels[0], Tile(0, 0, 64, 0.5), 1).bands
    frequencies, total = np.arange(33) / 64, sum(band.weight for band in bands)
    for place, name in enumerate(COVERAGES):
        component, axis = name.split("_")
        expected = np.zeros(33)
        for band in bands:
            for one in band.intervals:
                if (one.component, one.axis) != (component, axis):
                    continue
                inside = (frequencies >= one.low) & (frequencies <= one.high)
                negative = inside if one.mirrored else (-frequencies >= one.low) & (-frequencies <= one.high)
                negative = np.where(np.isin(frequencies, (0, 0.5)), inside, negative)  # their own mirror images
                expected += band.weight * (inside.astype(float) + negative) / 2 / 3
        np.testing.assert_allclose(found[place], expected / total, atol=1e-5, err_msg=name)
    assert found.std() > 0.05


def test_a_stopped_run_goes_on_and_gives_the_same_table(
    weights: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(weights, samples, tmp_path / "whole.parquet")
    monkeypatch.setattr(scorewriter, "PART_ROWS", 2)
    done = iter(range(4))

    def stop() -> None:
        if next(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(weights, samples, tmp_path / "e.parquet", batch_size=1, advance=stop)
    assert not (tmp_path / "e.parquet").exists()
    assert run(weights, samples, tmp_path / "e.parquet").resumed == 4
    whole, resumed = (read_embeddings(tmp_path / f"{name}.parquet") for name in ("whole", "e"))
    for name in (*EMBEDDINGS, "coverage", "heat_spatial", "heat_frequency"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(whole, name), rtol=1e-4, atol=1e-5, err_msg=name)
    assert pq.read_schema(tmp_path / "e.parquet").equals(pq.read_schema(tmp_path / "whole.parquet"))


def test_tables_of_another_kind_are_refused(weights: Path, samples: list[Sample], tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    _, detector = open_embedder(weights)
    facts = table_facts(detector, samples, [show(NATIVE)], data=["made"])
    score_samples(detector, samples, [show(NATIVE)], out, facts)
    with pytest.raises(ValueError, match=r"another kind, they differ in .*artifact_frequency"):
        run(weights, samples, out)
    with pytest.raises(ValueError, match=r"not a table of embeddings.*found no .*artifact_spatial"):
        read_embeddings(out)
    run(weights, samples, tmp_path / "e.parquet", heat_maps=False)
    assert read_embeddings(tmp_path / "e.parquet").heat_spatial is None
    with pytest.raises(ValueError, match="differ in heat_frequency, heat_spatial"):
        run(weights, samples, tmp_path / "e.parquet")


def test_a_table_without_a_scored_image_is_refused(weights: Path, samples: list[Sample], tmp_path: Path) -> None:
    run(weights, [samples[3]], tmp_path / "e.parquet")
    with pytest.raises(ValueError, match="no image that was scored"):
        read_embeddings(tmp_path / "e.parquet")


def test_only_an_apn_can_be_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    monkeypatch.setattr("apn.embed.load_model", lambda folder, device: nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"expected weights of an APN.*found Linear"):
        open_embedder(weights)


def test_the_command_embeds_a_folder_under_the_aligned_protocol(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        save(
            tmp_path / "data" / ("real/camera", "generated/adm")[number % 2] / f"{number}.png", number, bool(number % 2)
        )
    command([str(tmp_path / "data")], out=tmp_path / "e.parquet", weights=str(weights))
    said = capsys.readouterr()
    assert ("4 images embedded, 0 failed" in said.out, "apn:" in said.err) == (True, False)
    found = read_embeddings(tmp_path / "e.parquet")
    assert found.scores.facts.protocols == ("aligned (64 px centre, JPEG q96)",)
    assert sorted(found.scores.labels.tolist()) == [0, 0, 1, 1]
    taken = found.take(found.scores.labels == 1)
    assert len(taken.scores.paths) == len(taken.artifact_spatial) == len(taken.coverage) == 2


def test_the_command_names_what_could_not_be_read(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "real"
    save(folder / "good.png", 0, False)
    (tmp_path / "data" / "generated").mkdir()
    for number in range(FAILURES_SHOWN + 1):
        (folder / f"{number:02}.png").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        command([str(tmp_path / "data")], out=tmp_path / "e.parquet", weights=str(weights))
    assert ended.value.code == 1
    *named, last = capsys.readouterr().err.splitlines()
    assert named == [f"apn: {folder / f'{number:02}.png'}: the file is empty" for number in range(FAILURES_SHOWN)]
    assert last == f"apn: further ones have an `error` in {tmp_path / 'e.parquet'}"


def test_the_embedder_is_the_network_of_the_weights(weights: Path) -> None:
    model, detector = open_embedder(weights)
    assert isinstance(model, APN)
    assert isinstance(detector, Detector)
    assert not model.training
    assert (detector.backend_name, detector.crop_size, detector.name) == ("torch", 64, "tiny")
