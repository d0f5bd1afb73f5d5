"""From scores to what figures draw, and the worst mistakes."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from made import ALIGNED, NATIVE
from made_tables import GENERATORS, made_rows, write_table
from PIL import Image
from sklearn.metrics import auc

from apn.report import series
from apn.report.build import build_report
from apn.report.mistakes import SHOWN, SIDE, worst
from apn.report.results import Report, Table
from apn.scoretable import Scores, read_scores

NAMES = [f"photos/{i}.jpg" for i in range(120)]


def made(path: Path, names: list[str] = NAMES, **options: float) -> tuple[Report, Scores, Table]:
    parts = [made_rows(names, NATIVE, quality=3), made_rows(names, ALIGNED, **options)]
    parts.append(made_rows(names, ALIGNED, quality=-9, degradation="jpeg", level="30"))
    (scores,) = read_scores([write_table(path / "scores.parquet", parts)])
    report = build_report([scores], resamples=20)
    (table,) = (table for table in report.tables if table.protocol == ALIGNED and table.by == "generator")
    return report, scores, table


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Scores, Table]:
    return made(tmp_path_factory.mktemp("usual"))


def test_each_protocol_is_shown_once_however_many_tables_it_has(usual: tuple[Report, Scores, Table]) -> None:
    report, _, _ = usual
    assert len(report.tables) == 4
    assert [(number, table.protocol) for number, table in series.overall_tables(report)] == [(0, NATIVE), (0, ALIGNED)]


def test_the_curve_has_the_area_of_the_table_without_degraded_images(usual: tuple[Report, Scores, Table]) -> None:
    _, scores, table = usual
    curve = series.roc(scores, table)
    assert curve is not None
    assert auc(curve.fpr, curve.tpr) == pytest.approx(table.rows[0].metrics.auc.value)
    assert series.roc(scores.take(scores.labels == 1), table) is None


def test_a_curve_of_many_images_is_thinned_and_keeps_its_shape(tmp_path: Path) -> None:
    _, scores, table = made(tmp_path, [f"{i}.jpg" for i in range(6000)], quality=2)
    curve = series.roc(scores, table)
    assert curve is not None
    assert len(curve.fpr) <= 400
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert auc(curve.fpr, curve.tpr) == pytest.approx(curve.auc.value, abs=1e-3)
    assert (curve.fpr < 0.01).sum() > 10


def test_bins_hold_every_image_once(usual: tuple[Report, Scores, Table]) -> None:
    _, scores, table = usual
    found = series.reliability(scores, table)
    assert found.images.sum() == len(NAMES)
    assert (found.images * found.observed).sum() == pytest.approx(60)
    rows = series.scored(scores, ALIGNED)
    assert (found.images * found.predicted).sum() == pytest.approx(scores.probabilities[rows].sum())
    assert ((found.low <= found.observed) & (found.observed <= found.high)).all()


def test_histograms_are_the_real_images_then_each_generators(usual: tuple[Report, Scores, Table]) -> None:
    _, scores, table = usual
    groups = series.histograms(scores, table)
    assert [(group.label, group.generated, len(group.probabilities)) for group in groups] == [
        ("real", False, 60),
        *((name, True, 20) for name in sorted(GENERATORS)),
    ]


def test_rows_of_the_dot_plot_go_from_best_to_worst(usual: tuple[Report, Scores, Table]) -> None:
    report, _, _ = usual
    tables = [table for table in report.tables if table.by == "generator"]
    names, dots = series.auc_by_group(tables)
    assert sorted(names) == sorted(GENERATORS)
    means = np.mean([[estimate.value for estimate in one.estimates] for one in dots], axis=0)
    assert (np.diff(means) <= 0).all()
    assert [one.label for one in dots] == [NATIVE, ALIGNED]


def test_mistakes_are_on_the_wrong_side_the_most_confident_first(tmp_path: Path) -> None:
    paths = [tmp_path / "images" / f"{i}.png" for i in range(120)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        if number % 3:
            Image.new("RGB", (400, 200), (number, 2 * number, 0)).save(path)
    _, scores, table = made(tmp_path, [str(path) for path in paths], quality=0.3)
    for label, mistakes in enumerate(worst(scores, table)):
        probabilities = [one.probability for one in mistakes]
        assert len(mistakes) == SHOWN
        assert probabilities == sorted(probabilities, reverse=label == 0)
        rows = series.scored(scores, ALIGNED) & (scores.labels == label)
        assert probabilities[0] == (scores.probabilities[rows].min() if label else scores.probabilities[rows].max())
        assert all((probability >= 0.6) == (label == 0) for probability in probabilities)
        for one in mistakes:
            number = int(one.name.removeprefix("images/").removesuffix(".png"))
            if number % 3:
                assert one.thumbnail is not None
                data = base64.b64decode(one.thumbnail.removeprefix("data:image/jpeg;base64,"))
                with Image.open(io.BytesIO(data)) as thumbnail:
                    assert thumbnail.size == (SIDE, SIDE // 2)
                    assert np.array(thumbnail).mean(axis=(0, 1)) == pytest.approx([number, 2 * number, 0], abs=3)
            else:
                assert (one.thumbnail, one.note) == (None, "no such file")
    assert {one.origin for one in worst(scores, table)[0]} == {"camera"}
    assert {one.origin for one in worst(scores, table)[1]} <= set(GENERATORS)
