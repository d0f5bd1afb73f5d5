"""Explanation figures in a report: of the worst mistakes, as they were scored, never in the way of the page."""

import builtins
import re
from pathlib import Path
from typing import Any

import pytest
from data.trees import save
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_config, tiny_model

from apn.checkpoint import save_checkpoint
from apn.config import Config
from apn.data.samples import Sample
from apn.detector import load
from apn.evaluate import score_samples, show, table_facts
from apn.protocols import Protocol
from apn.report.build import build_report
from apn.report.explained import Explainer, protocol_of
from apn.report.page import write_page
from apn.scoretable import Scores, read_scores

ALIGNED = Protocol("aligned", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint and the table of its scores; one picture was moved away since."""
    folder = tmp_path_factory.mktemp("explained")
    save_checkpoint(folder / "tiny", tiny_model(3), Config(name="tiny", model=tiny_config()), {})
    samples = []
    for number in range(24):
        save(folder / f"{number}.png", number, bool(number % 2))
        samples.append(Sample(folder / f"{number}.png", number % 2, "", "", "", f"group {number}"))
    detector = load(folder / "tiny")
    facts = table_facts(detector, samples, [show(ALIGNED)], data=["made"])
    score_samples(detector, samples, [show(ALIGNED)], folder / "scores.parquet", facts)
    return folder


@pytest.fixture(scope="module")
def scores(folder: Path) -> list[Scores]:
    return read_scores([folder / "scores.parquet"])


def page(scores: list[Scores], out: Path, **options: Any) -> str:
    return write_page(build_report(scores, resamples=5), scores, out, **options)[0].read_text(encoding="utf-8")


def test_the_worst_mistakes_are_explained_as_they_were_scored(
    folder: Path, scores: list[Scores], tmp_path: Path
) -> None:
    text = page(scores, tmp_path, explained=2, explain_weights=[str(folder / "tiny")])
    shown = re.findall(r'<details class="why"><summary>(false alarm|miss): ', text)
    report = build_report(scores, resamples=5)
    assert 0 < len(shown) <= 4
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="Explanation figure', text)) == len(shown)
    found = Explainer([str(folder / "tiny")])(scores[0], report.tables[0], 1)
    assert all(one.figure for one in found)


def test_a_picture_that_is_gone_is_told(folder: Path, scores: list[Scores]) -> None:
    report, explainer = build_report(scores, resamples=5), Explainer([str(folder / "tiny")])
    first = explainer(scores[0], report.tables[0], 1)[0]
    path = folder / first.title.split("/")[-1]
    path.rename(path.with_suffix(".away"))
    try:
        again = explainer(scores[0], report.tables[0], 1)[0]
    finally:
        path.with_suffix(".away").rename(path)
    assert (again.title, again.figure) == (first.title, None)
    assert "no such file" in again.note


def test_nothing_is_explained_unless_asked_for(scores: list[Scores], tmp_path: Path) -> None:
    text = page(scores, tmp_path)
    assert 'class="why"' not in text
    assert "No explanation figures" not in text


def test_without_the_checkpoint_the_page_says_so(scores: list[Scores], tmp_path: Path) -> None:
    text = page(scores, tmp_path, explained=1)
    sha = scores[0].facts.sha256[:12]
    assert f"No explanation figures: no checkpoint of tiny with SHA-256 {sha} found" in text
    with pytest.raises(ValueError, match="no weights 'nowhere'"):
        Explainer(["nowhere"])(scores[0], build_report(scores, resamples=5).tables[0], 1)


def test_without_torch_the_page_is_made_all_the_same(
    scores: list[Scores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "apn.report.explained":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    text = page(scores, tmp_path, explained=1)
    assert "they need torch, pip install &#34;apn[explain]&#34;" in text
    assert "Worst mistakes" in text


@given(
    st.sampled_from(("native", "aligned", "fakes-jpeg")),
    st.integers(1, 2000),
    st.sampled_from(("jpeg", "webp", "png")),
    st.integers(1, 100),
)
def test_a_protocol_is_found_by_its_title(name: Any, size: int, codec: Any, quality: int) -> None:
    protocol = Protocol(name, size, codec, quality)
    assert protocol_of(protocol.title).title == protocol.title


def test_other_titles_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the title of a protocol"):
        protocol_of("upside down")
