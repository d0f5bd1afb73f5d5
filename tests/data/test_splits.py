"""Splits: no group is cut, shares are kept, nothing depends on the order of the list."""

import json
import random
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apn.data.samples import Sample, read_samples
from apn.data.splits import Fold, leave_out, read_folds, split_by_group, stratum

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
needs_corpus = pytest.mark.skipif(not CORPUS.exists(), reason="the development corpus is not part of the repository")


def sample(i: int, label: int, origin: str, group: str) -> Sample:
    return Sample(Path(f"{i}.png"), label, origin if label else "", "", "" if label else origin, group)


sample_lists = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from("abc"), st.integers(0, 15)), min_size=8, max_size=60
).map(lambda rows: [sample(i, label, origin, f"g{group}") for i, (label, origin, group) in enumerate(rows)])


@given(sample_lists, st.sampled_from([0.1, 0.3, 0.5]), st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_split_cuts_no_group_and_ignores_order(
    samples: list[Sample], held_out: float, seed: int, shuffler: random.Random
) -> None:
    # A group of its own for one more image of each kind, so that there is always something to divide.
    samples = samples + [sample(100 + i, *key, f"own{i}") for i, key in enumerate(product((0, 1), "abc"))]
    train, kept = split_by_group(samples, held_out, seed)
    assert sorted(train + kept) == sorted(samples)
    assert not {s.split_group for s in train} & {s.split_group for s in kept}
    shuffled = samples.copy()
    shuffler.shuffle(shuffled)
    assert split_by_group(shuffled, held_out, seed) == (train, kept)


def test_without_ties_every_stratum_gives_its_share() -> None:
    sizes = {(0, "phone"): 200, (0, "web"): 40, (1, "adm"): 100, (1, "sd"): 60}
    samples = [sample(i, *key, f"{key}{i}") for key, size in sizes.items() for i in range(size)]
    train, kept = split_by_group(samples, 0.1, seed=3)
    assert Counter(map(stratum, kept)) == {key: size // 10 for key, size in sizes.items()}
    assert len(train) == 360
    assert kept != split_by_group(samples, 0.1, seed=4)[1]


def test_many_tiny_strata_still_give_the_share_of_each_class() -> None:
    samples = [sample(i, label, f"origin{i // 3}", f"{label}{i}") for label in (0, 1) for i in range(90)]
    kept = split_by_group(samples, 0.1, seed=0)[1]
    assert Counter(s.label for s in kept) == {0: 9, 1: 9}
    assert max(Counter(map(stratum, kept)).values()) == 1


def test_a_split_that_cannot_be_made_says_so() -> None:
    with pytest.raises(ValueError, match=r"2 samples in 1 split groups: .* found 2 and 0"):
        split_by_group([sample(0, 0, "a", "g"), sample(1, 1, "a", "g")], 0.2, seed=0)
    with pytest.raises(ValueError, match=r"between 0 and 1, found 1\.0"):
        split_by_group([], 1.0, seed=0)


def test_leave_out_takes_whole_groups_from_training() -> None:
    samples = [
        sample(0, 1, "sd", "prompt"),
        sample(1, 1, "adm", "prompt"),  # same prompt as a tested image: in neither part
        sample(2, 1, "adm", "other"),
        sample(3, 0, "phone", "p"),
        sample(4, 0, "sd", "q"),  # a real source with a generator's name stays in training
    ]
    train, test = leave_out(samples, ["sd"], ["phone"])
    assert test == [samples[0], samples[3]]
    assert train == [samples[2], samples[4]]


def test_leaving_out_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"generators: sd; real sources: none; found \['typo'\]"):
        leave_out([sample(0, 1, "sd", "g")], ["typo"], [])


@given(sample_lists, st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc")))
def test_leave_out_never_shares_a_group(samples: list[Sample], generators: set[str], sources: set[str]) -> None:
    generators &= {s.generator for s in samples if s.label}
    sources &= {s.source for s in samples if not s.label}
    train, test = leave_out(samples, generators, sources)
    assert not {s.split_group for s in train} & {s.split_group for s in test}
    assert not generators & {s.generator for s in train}
    assert not sources & {s.source for s in train}
    assert set(test) == {s for s in samples if (s.generator in generators if s.label else s.source in sources)}


def test_folds_read_and_refuse_unknown_fields(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    fold = {"left_out_generators": ["sd"], "left_out_real_sources": []}
    path.write_text(json.dumps({"one": fold}))
    assert read_folds(path) == {"one": Fold(("sd",), ())}
    for broken in ({"one": fold | {"typo": 1}}, {"one": {"left_out_generators": []}}, [fold]):
        path.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"folds\.json: expected JSON"):
            read_folds(path)
    with pytest.raises(ValueError, match="No such file"):
        read_folds(tmp_path / "nowhere.json")


@needs_corpus
@pytest.mark.parametrize("name", ["gan", "stable_diffusion", "diffusion", "vector_quantised", "closed"])
def test_the_corpus_folds(name: str) -> None:
    samples = read_samples(CORPUS)
    train, test = leave_out(samples, *read_folds(CORPUS / "folds.json")[name])
    assert {s.label for s in train} == {s.label for s in test} == {0, 1}
    assert not {s.split_group for s in train} & {s.split_group for s in test}
    assert {"imagenet_samples", "ffhq_realorfake_1024"} <= {s.source for s in train}


@needs_corpus
def test_a_corpus_split_keeps_the_share_of_every_origin() -> None:
    samples = read_samples(CORPUS)
    kept = Counter(map(stratum, split_by_group(samples, 0.1, seed=0)[1]))
    groups = Counter((stratum(s), s.split_group) for s in samples)
    for key, size in Counter(map(stratum, samples)).items():
        largest_group = max(n for (origin, _), n in groups.items() if origin == key)
        assert abs(kept[key] - 0.1 * size) <= 1 + largest_group / 2, key
    for label in (0, 1):
        share = sum(n for key, n in kept.items() if key[0] == label) / sum(s.label == label for s in samples)
        assert share == pytest.approx(0.1, abs=0.02)
