"""Batches: what a step draws, by counting; and that a step never depends on the steps before it."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apn.data.samples import Sample
from apn.data.sampling import BalancedBatches, Draw
from apn.data.splits import stratum

SIZES = {(0, "phone"): 7, (0, "web"): 30, (1, "adm"): 3, (1, "gan"): 11, (1, "sd"): 50}
SAMPLES = [
    Sample(Path(f"{origin}{i}.png"), label, origin * label, "", origin * (1 - label), f"{origin}{i}")
    for (label, origin), size in SIZES.items()
    for i in range(size)
]


def indices(batches: BalancedBatches) -> list[int]:
    return [draw.index for draw in chain.from_iterable(batches)]


def test_every_batch_is_half_and_half_and_origins_come_evenly() -> None:
    batches = list(BalancedBatches(SAMPLES, 12, 50, seed=0))
    for batch in batches:
        counts = Counter(stratum(SAMPLES[draw.index]) for draw in batch)
        assert counts == {key: 3 if key[0] == 0 else 2 for key in SIZES}


def test_root_balance_draws_origins_by_the_square_root_of_their_sizes() -> None:
    drawn = Counter(stratum(SAMPLES[i]) for i in indices(BalancedBatches(SAMPLES, 10, 210, seed=0, balance="root")))
    # 7 and 30 photographs: once and twice a round. 3, 11 and 50 generated: once, twice and four times.
    assert drawn == {(0, "phone"): 350, (0, "web"): 700, (1, "adm"): 150, (1, "gan"): 300, (1, "sd"): 600}


def test_an_odd_batch_size_is_even_over_two_steps() -> None:
    first, second = BalancedBatches(SAMPLES, 5, 2, seed=0)
    assert Counter(SAMPLES[draw.index].label for draw in first + second) == {0: 5, 1: 5}


@pytest.mark.parametrize("balance", ["none", "class", "root", "generator"])
def test_one_pass_over_a_group_has_no_repeats(balance: str) -> None:
    drawn = indices(BalancedBatches(SAMPLES, 4, 100, seed=1, balance=balance))  # type: ignore[arg-type]
    key = {
        "none": lambda i: "all",
        "class": lambda i: SAMPLES[i].label,
        "root": lambda i: stratum(SAMPLES[i]),
        "generator": lambda i: stratum(SAMPLES[i]),
    }[balance]
    sizes = Counter(map(key, range(len(SAMPLES))))
    for group, size in sizes.items():
        sequence = [i for i in drawn if key(i) == group]
        passes = [sequence[start : start + size] for start in range(0, len(sequence) - size + 1, size)]
        assert passes
        for one_pass in passes:
            assert len(set(one_pass)) == size
        if len(passes) > 1 and size > 5:
            assert passes[0] != passes[1]


def test_without_balance_every_sample_comes_equally_often() -> None:
    assert set(Counter(indices(BalancedBatches(SAMPLES, len(SAMPLES), 3, seed=0, balance="none"))).values()) == {3}


@given(st.integers(0, 20), st.integers(0, 3), st.integers(0, 2**40))
def test_starting_late_equals_skipping(start: int, stream: int, seed: int) -> None:
    whole = list(BalancedBatches(SAMPLES, 6, 20, seed=seed, stream=stream))
    late = BalancedBatches(SAMPLES, 6, 20, seed=seed, stream=stream, start=start)
    assert list(late) == whole[start:] == list(late)  # iterating again gives the same again
    assert len(late) == 20 - start


def test_steps_may_be_asked_for_in_any_order() -> None:
    batches = BalancedBatches(SAMPLES, 6, 40, seed=0)
    assert [batches.batch(step) for step in reversed(range(40))] == list(batches)[::-1]


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_ranks_together_give_the_single_process_batch(world_size: int) -> None:
    ranks = [BalancedBatches(SAMPLES, 12, 9, seed=5, rank=r, world_size=world_size) for r in range(world_size)]
    joined = [list(chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)]
    assert joined == list(BalancedBatches(SAMPLES, 12, 9, seed=5))


def test_seeds_and_streams_give_other_draws() -> None:
    runs = [
        tuple(chain.from_iterable(BalancedBatches(SAMPLES, 8, 10, seed=seed, stream=stream)))
        for seed in (0, 1)
        for stream in (0, 1)
    ]
    assert len(set(runs)) == 4
    seeds = [draw.seed for draw in chain.from_iterable(runs)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_draw_is_pinned() -> None:
    """A changed value here means that no old run can be resumed or repeated."""
    assert BalancedBatches(SAMPLES, 2, 1, seed=0).batch(0) == [
        Draw(34, 5559497400832831700),
        Draw(58, 4102243074232940917),
    ]


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="divisible by 2 processes, found 5"):
        BalancedBatches(SAMPLES, 5, 1, seed=0, world_size=2)
    with pytest.raises(ValueError, match="rank from 0 to 1, found 2"):
        BalancedBatches(SAMPLES, 4, 1, seed=0, rank=2, world_size=2)
    with pytest.raises(ValueError, match="start from 0 to 3 steps, found 4"):
        BalancedBatches(SAMPLES, 4, 3, seed=0, start=4)
    with pytest.raises(ValueError, match="found 37 real and 0 generated"):
        BalancedBatches(SAMPLES[:37], 4, 3, seed=0)
    with pytest.raises(ValueError, match="found none"):
        BalancedBatches([], 4, 3, seed=0, balance="none")


PAIRED = SAMPLES + [
    sample._replace(path=Path(f"{kind}/{sample.path}"), label=1, generator=kind, original=str(sample.path))
    for kind in ("ae", "gan-ae")
    for sample in SAMPLES
    if sample.label == 0 and not sample.path.stem.endswith("3")  # not every photograph has a fake
]


def test_a_pair_is_a_photograph_and_a_fake_of_it_drawn_with_one_seed() -> None:
    batches = BalancedBatches(PAIRED, 12, 40, seed=0, pair_share=1 / 3)
    assert batches.pairs == 2
    for batch in batches:
        for photograph, fake in (batch[0:2], batch[2:4]):
            assert PAIRED[fake.index].original == str(PAIRED[photograph.index].path)
            assert photograph.seed == fake.seed
        assert Counter(stratum(PAIRED[i.index])[1] for i in batch[0:4:2]) == {"phone": 1, "web": 1}
        rest = [PAIRED[draw.index] for draw in batch[4:]]
        assert not any(sample.original for sample in rest)
        assert Counter(sample.label for sample in rest) == {0: 4, 1: 4}


def test_every_photograph_is_paired_once_before_one_is_paired_twice_and_with_every_kind_of_fake() -> None:
    drawn = [draw for batch in BalancedBatches(PAIRED, 4, 60, seed=0, pair_share=1) for draw in batch]
    photographs = [draw.index for draw in drawn[::2] if stratum(PAIRED[draw.index]) == (0, "phone")]
    assert len(set(photographs[:6])) == 6  # phone0 .. phone6 without phone3
    assert set(photographs[:6]) == set(photographs[6:12])
    assert {PAIRED[draw.index].generator for draw in drawn[1::2]} == {"ae", "gan-ae"}


def test_without_pairs_a_fake_with_an_original_is_an_image_like_any_other() -> None:
    named = [sample._replace(original="photo.jpg") if sample.label else sample for sample in SAMPLES]
    assert indices(BalancedBatches(named, 8, 30, seed=3)) == indices(BalancedBatches(SAMPLES, 8, 30, seed=3))
    drawn = indices(BalancedBatches(PAIRED, 8, 60, seed=3))
    assert {PAIRED[index].generator for index in drawn} >= {"ae", "gan-ae"}


def test_among_pairs_a_fake_without_its_photograph_is_drawn_alone() -> None:
    lonely = [*PAIRED, PAIRED[-1]._replace(path=Path("lonely.png"), generator="lonely", original="not here.jpg")]
    drawn = [draw.index for batch in BalancedBatches(lonely, 12, 20, seed=0, pair_share=1 / 3) for draw in batch]
    assert len(lonely) - 1 in drawn


@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 2**40))
def test_ranks_share_a_batch_without_loss_or_repetition_and_divide_no_pair(
    world_size: int, part: int, pair_share: float, seed: int
) -> None:
    size = 2 * part * world_size  # of even parts, so that any number of pairs fits
    whole = BalancedBatches(PAIRED, size, 4, seed=seed, pair_share=pair_share)
    ranks = [
        BalancedBatches(PAIRED, size, 4, seed=seed, pair_share=pair_share, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for step in range(4):
        parts = [rank.batch(step) for rank in ranks]
        assert [len(draws) for draws in parts] == [2 * part] * world_size
        assert Counter(chain.from_iterable(parts)) == Counter(whole.batch(step))
        if not whole.pairs:
            continue
        paired = [sum(bool(PAIRED[draw.index].original) for draw in draws) for draws in parts]
        assert sum(paired) == whole.pairs
        assert max(paired) - min(paired) <= 1  # each part is as mixed as the whole
        for draws in parts:  # a fake stands beside its photograph
            for place, draw in enumerate(draws):
                original = PAIRED[draw.index].original
                assert not original or str(PAIRED[draws[place - 1].index].path) == original


def test_parts_that_hold_no_whole_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="parts of a batch that hold 4 places for pairs, found 3"):
        BalancedBatches(PAIRED, 6, 1, seed=0, pair_share=1, world_size=2)


def test_pairs_need_fakes_with_their_original() -> None:
    with pytest.raises(ValueError, match="original"):
        BalancedBatches(SAMPLES, 12, 5, seed=0, pair_share=0.5)
