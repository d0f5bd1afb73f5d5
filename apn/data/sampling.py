"""Which images make up the batch of a step: a pure function of (seed, stream, step), so a resumed run is the same run.

All draws of a run are numbered: slot k of the run is slot k - n * batch_size of step n. The slots deal out the classes
in turn, a class deals out its origins (generators, or real sources) in shuffled rounds, and an origin deals out its
images in shuffled passes, so that nothing comes twice before everything came once; balanced by the "root" of sizes, an
origin of weight n comes n times in a round. Nothing is stored in between.

A share of each batch may be aligned pairs: a photograph and a fake made from it (`Sample.original`), drawn with one
seed, so that a transform cuts and degrades both alike. These fakes then come in pairs only.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from torch.utils.data import Sampler

from apn.data.samples import Sample, require_both_classes
from apn.data.splits import stratum

Balance = Literal["none", "class", "root", "generator"]
Images = TypeVar("Images", bound=Sequence[Any] | np.ndarray)

# What a random number is for; keeps the streams of numbers apart (see _rng).
_AUGMENTATION, _ORIGINS, _IMAGES, _PAIR_SOURCES, _PAIR_PHOTOS, _PAIR_FAKES, _PAIR_AUGMENTATION = range(7)


class Draw(NamedTuple):
    """One element of a batch."""

    index: int  # type: ignore[assignment]  # into the samples (hides tuple.index, which nobody asks of a draw)
    seed: int  # drives every random choice of this draw's transform; in [0, 2 ** 63)


class Origins(NamedTuple, Generic[Images]):
    """What a class deals out: the images of each origin, and the origin of each place of a round."""

    images: Sequence[Images]
    places: np.ndarray


class BalancedBatches(Sampler[list[Draw]]):
    """A batch sampler: yields the draws of steps `start` .. `steps` - 1, and the same ones each time it is iterated.

    `batch_size` counts the batch over all `world_size` processes. Each rank yields its own part of it: consecutive
    pairs, and consecutive places of the rest, so that every part is as mixed as the whole. A step's batch is the same
    for any `world_size`.
    `stream` tells apart batches of the same run that serve different ends (an APN step, a CLUB step).
    `balance`: "generator" half real and half generated, evenly over real sources and over generators;
    "root" the same, but by the square root of their sizes, so that three images are not seen as often as 300;
    "class" half and half; "none" every sample equally often.
    `pair_share`: share of the batch that is aligned pairs, balanced over real sources; it comes first in the batch.
    ValueError for sizes that do not fit, or if a class has no sample (except with "none").
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        batch_size: int,
        steps: int,
        *,
        seed: int,
        stream: int = 0,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        balance: Balance = "generator",
        pair_share: float = 0.0,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"expected a batch size divisible by {world_size} processes, found {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank from 0 to {world_size - 1}, found {rank}")
        if not 0 <= start <= steps:
            raise ValueError(f"expected a start from 0 to {steps} steps, found {start}")
        self.batch_size, self.steps, self.start = batch_size, steps, start
        self.seed, self.stream, self.rank, self.world_size = seed, stream, rank, world_size
        self.pairs = round(batch_size * pair_share / 2)  # in a batch
        part, most = batch_size // world_size, 2 * math.ceil(self.pairs / world_size)
        if most > part:
            raise ValueError(
                f"expected parts of a batch that hold {most} places for pairs, found {part}: no pair is divided"
            )
        self._pairs = _aligned_pairs(samples, balance) if self.pairs else Origins([], np.array([]))
        paired = {fake for photographs in self._pairs.images for _, fakes in photographs for fake in fakes}
        self._classes = _classes(samples, balance, paired)
        self._permutations: dict[tuple[int, ...], tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        return map(self.batch, range(self.start, self.steps))

    def batch(self, step: int) -> list[Draw]:
        """This rank's draws of one step: batch_size / world_size of them."""
        first_pair, end_pair = self._pairs_before(self.rank), self._pairs_before(self.rank + 1)
        first, end = self._others_before(self.rank), self._others_before(self.rank + 1)
        paired = [self._draw_pair(step * self.pairs + place) for place in range(first_pair, end_pair)]
        others = step * (self.batch_size - 2 * self.pairs)
        return [*chain.from_iterable(paired), *(self._draw(others + place) for place in range(first, end))]

    def _pairs_before(self, rank: int) -> int:
        """Pairs of a batch that go to lower ranks."""
        return self.pairs * rank // self.world_size

    def _others_before(self, rank: int) -> int:
        """The others that do: whatever fills up equal parts."""
        return self.batch_size // self.world_size * rank - 2 * self._pairs_before(rank)

    def _draw_pair(self, number: int) -> tuple[Draw, Draw]:
        source, before = self._turn(self._pairs, number, _PAIR_SOURCES)
        photographs = self._pairs.images[source]
        turn, place = divmod(before, len(photographs))
        photograph, fakes = photographs[self._shuffled(turn, len(photographs), _PAIR_PHOTOS, source)[place]]
        fake = fakes[self._rng(_PAIR_FAKES, number).integers(len(fakes))]
        seed = int(self._rng(_PAIR_AUGMENTATION, number).integers(2**63))
        return Draw(photograph, seed), Draw(fake, seed)

    def _draw(self, slot: int) -> Draw:
        turn, label = divmod(slot, len(self._classes))
        origins = self._classes[label]
        origin, before = self._turn(origins, turn, _ORIGINS, label)
        images = origins.images[origin]
        turn, place = divmod(before, len(images))
        index = images[self._shuffled(turn, len(images), _IMAGES, label, origin)[place]]
        return Draw(int(index), int(self._rng(_AUGMENTATION, slot).integers(2**63)))

    def _turn(self, origins: Origins[Any], number: int, *purpose: int) -> tuple[int, int]:
        """Whose turn draw `number` is, and how many images that origin gave before."""
        turn, place = divmod(number, len(origins.places))
        order = origins.places[self._shuffled(turn, len(origins.places), *purpose)]
        origin = order[place]
        return int(origin), turn * np.sum(order == origin) + np.sum(order[:place] == origin)

    def _shuffled(self, turn: int, size: int, *purpose: int) -> np.ndarray:
        """The order of round `turn` of one deck; the latest one is kept, since slots mostly come in order."""
        kept = self._permutations.get(purpose)
        if kept is None or kept[0] != turn:
            kept = turn, self._rng(*purpose, turn).permutation(size)
            self._permutations[purpose] = kept
        return kept[1]

    def _rng(self, *purpose: int) -> np.random.Generator:
        key = tuple(map(int, (self.stream, *purpose)))
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


def _aligned_pairs(samples: Sequence[Sample], balance: Balance) -> Origins[list[tuple[int, list[int]]]]:
    """By real source: each photograph that fakes were made from, with its fakes, as indices of samples."""
    fakes: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if sample.original:
            fakes[sample.original].append(index)
    sources: dict[str, list[tuple[int, list[int]]]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if made := fakes.get(str(sample.path)):
            sources[stratum(sample)[1]].append((index, made))
    if not sources:
        raise ValueError("expected fakes with the photograph they were made from (`original`) among the samples")
    return _weighed([sources[name] for name in sorted(sources)], balance)


def _classes(samples: Sequence[Sample], balance: Balance, paired: Collection[int]) -> list[Origins[np.ndarray]]:
    """Indices of samples by class, then origin, in the order of their names; those of fakes in pairs are left out."""
    indices = [index for index in range(len(samples)) if index not in paired]
    if balance == "none":
        if not indices:
            raise ValueError("expected samples to draw from, found none")
        return [Origins([np.array(indices)], np.zeros(1, int))]
    require_both_classes([samples[index] for index in indices])
    members: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index in indices:
        label, origin = stratum(samples[index])
        members[label, origin if balance in ("generator", "root") else ""].append(index)
    classes = [[np.array(members[key]) for key in sorted(members) if key[0] == label] for label in (0, 1)]
    return [_weighed(origins, balance) for origins in classes]


def _weighed(origins: list[Images], balance: Balance) -> Origins[Images]:
    """Each origin as often as its weight says: evenly, or by the square root of its size."""
    smallest = min(map(len, origins))
    weights = [round(math.sqrt(len(images) / smallest)) if balance == "root" else 1 for images in origins]
    return Origins(origins, np.repeat(np.arange(len(origins)), weights))
