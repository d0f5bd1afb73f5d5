"""The shortcut probe: what facts tell is found, what they do not tell is 0.5 exactly, and groups stay together."""

import json
from pathlib import Path

import numpy as np
import pytest
from data.trees import make_folder, picture
from hypothesis import given
from hypothesis import strategies as st

from apn.data.facts import read_facts
from apn.data.probe import FACTS, Folds, _folds, _held_out_scores, delivered_file, probe
from apn.data.samples import Sample, read_samples
from apn.image import load_image
from apn.metrics import auc
from apn.protocols import Protocol

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
SIZES = ("bytes", "bytes_per_pixel")


@pytest.fixture(scope="module")
def jpeg_and_png(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return read_samples(make_folder(tmp_path_factory.mktemp("formats"), 24, size=40))


@pytest.fixture(scope="module")
def all_png(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return read_samples(make_folder(tmp_path_factory.mktemp("png"), 24, size=40, formats=("PNG", "PNG")))


def alone(samples: list[Sample], fact: str, protocol: str = "native") -> float:
    found = probe(samples, protocol=Protocol(protocol, size=32))  # type: ignore[arg-type]
    return dict(found.facts)[fact]


def test_a_format_that_tells_the_label_is_found(jpeg_and_png: list[Sample]) -> None:
    found = probe(jpeg_and_png)
    assert (found.auc, found.interval) == (1.0, (1.0, 1.0))
    assert (found.real, found.generated, found.unreadable, found.folds) == (24, 24, 0, 5)
    alone = dict(found.facts)
    assert set(alone) == set(FACTS)
    assert [alone[name] for name in ("format", "quality", "subsampling", "progressive")] == [1.0] * 4
    assert [alone[name] for name in ("width", "height", "aspect", "mode")] == [0.5] * 4
    assert [fact.auc for fact in found.facts] == sorted(alone.values(), reverse=True)
    assert json.loads(json.dumps(found.as_dict()))["facts"]["format"] == 1.0


def test_aligned_files_tell_nothing_but_their_length(jpeg_and_png: list[Sample]) -> None:
    found = probe(jpeg_and_png, protocol=Protocol("aligned", size=32))
    assert {value for name, value in found.facts if name not in SIZES} == {0.5}
    bare = probe(jpeg_and_png, protocol=Protocol("aligned", size=32), without=SIZES)
    assert (bare.auc, bare.interval) == (0.5, (0.5, 0.5))
    assert [name for name, _ in bare.facts] == sorted(set(FACTS) - set(SIZES))
    assert "aligned" in bare.protocol


def test_fakes_as_jpeg_bring_the_shortcut_to_files_without_one(all_png: list[Sample]) -> None:
    assert probe(all_png, without=SIZES).auc == 0.5
    assert alone(all_png, "format", "fakes-jpeg") == 1.0


def test_qualities_tell_the_label_apart_from_the_format(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(240):
        path = tmp_path / f"{i}.jpg"
        # Two qualities of three are shared: 2/3 of each class are known, 1/3 is a coin toss.
        quality = int(rng.choice([70, 80] if i % 2 else [80, 90]))
        picture(i, False, 24).save(path, "JPEG", quality=quality)
        samples.append(Sample(path, i % 2, "", "", "", str(i)))
    qualities = [read_facts(sample.path).quality for sample in samples]
    labels = [sample.label for sample in samples]
    assert alone(samples, "quality") == pytest.approx(auc(labels, [-(q or 0) for q in qualities]), abs=0.05)
    assert alone(samples, "format") == 0.5


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol("native"),
        Protocol("fakes-jpeg", quality=80),
        Protocol("aligned", size=32),
        Protocol("aligned", size=64, codec="webp", quality=60),
        Protocol("aligned", size=32, codec="png"),
    ],
    ids=lambda protocol: protocol.title,
)
def test_the_file_measured_is_the_file_a_detector_sees(jpeg_and_png: list[Sample], protocol: Protocol) -> None:
    for sample in (jpeg_and_png[0], jpeg_and_png[-1]):
        seen = protocol.apply(load_image(sample.path).pixels, sample.label)
        np.testing.assert_array_equal(load_image(delivered_file(sample, protocol)).pixels, seen)
    facts = read_facts(delivered_file(jpeg_and_png[0], protocol))
    if protocol.name == "aligned":
        assert (facts.format, facts.width) == (
            {"jpeg": "JPEG"}.get(protocol.codec, protocol.codec.upper()),
            protocol.size,
        )


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=12, max_size=60),
    st.integers(0, 3),
)
def test_no_group_is_cut_and_every_image_is_held_out_once(rows: list[tuple[int, int]], seed: int) -> None:
    labels, groups = (np.array(column) for column in zip(*rows, strict=True))
    if min(len(set(groups[labels == label])) for label in (0, 1)) < 2:
        with pytest.raises(ValueError, match="expected at least 2 split groups of each class"):
            _folds(labels, groups, seed)
        return
    folds = _folds(labels, groups, seed)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(labels)))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert len(train) + len(test) == len(labels)


def test_what_only_names_the_group_is_worth_nothing() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 8)
    labels = rng.integers(0, 2, 60)[groups]
    width = rng.permutation(60).astype(float)[groups]  # one width a group: tells which group, nothing of the label

    def told(folds: Folds) -> float:
        return auc(labels, _held_out_scores({"width": width}, labels, folds, 0))

    assert told(_folds(labels, np.arange(len(labels)), 0)) > 0.95  # near copies on both sides
    assert abs(told(_folds(labels, groups, 0)) - 0.5) < 0.15


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_constant_facts_are_worth_exactly_nothing_whatever_the_class_shares(share: float) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(300) < share).astype(int)
    folds = _folds(labels, rng.integers(0, 23, 300), 0)
    columns = {"format": np.zeros(300), "width": np.full(300, 256.0), "quality": np.full(300, -1.0)}
    assert set(_held_out_scores(columns, labels, folds, 0)) == {0.5}
    assert len({labels[test].mean() for _, test in folds}) > 1


def test_files_without_facts_are_counted_and_left_out(tmp_path: Path) -> None:
    samples = read_samples(make_folder(tmp_path, 6, size=24))
    samples[2].path.write_bytes(b"broken")
    found = probe(samples)
    assert (found.real, found.generated, found.unreadable) == (5, 6, 1)
    for sample in samples[:6]:
        sample.path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"both classes .* 6 of 12 readable; .*000.JPEG: the file is empty"):
        probe(samples)


def test_a_limit_draws_by_the_seed(jpeg_and_png: list[Sample]) -> None:
    first, again = (probe(jpeg_and_png, limit=30, seed=1) for _ in range(2))
    assert first == again
    assert first.real + first.generated == 30


def test_what_cannot_be_probed_says_why(jpeg_and_png: list[Sample]) -> None:
    with pytest.raises(ValueError, match="found 24 real and 0 generated"):
        probe(jpeg_and_png[:24])
    with pytest.raises(ValueError, match=r"expected to leave out some of format, .* found pixels"):
        probe(jpeg_and_png, without=["pixels"])
    with pytest.raises(ValueError, match="expected to leave out some of"):
        probe(jpeg_and_png, without=FACTS)
    one_group = [sample._replace(split_group="g") if sample.label else sample for sample in jpeg_and_png]
    with pytest.raises(ValueError, match="found 24 of real and 1 of generated"):
        probe(one_group)


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.exists(), reason="the development corpus is not part of the repository")
def test_the_corpus_gives_its_label_away_until_it_is_aligned() -> None:
    samples = read_samples(CORPUS)
    assert probe(samples).auc > 0.98
    aligned = probe(samples, protocol=Protocol("aligned"), without=SIZES)
    assert aligned.auc == 0.5
