"""From samples to batches: open a file, transform it, stack. The samples and the transform are the caller's choice.

Dimensions: B batch, S side of a crop. Labels: 0 real, 1 generated.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from apn.crops import Pixels
from apn.data.samples import Sample
from apn.data.sampling import BalancedBatches, Draw
from apn.data.transforms import Transform
from apn.image import ImageError, load_image


class Batch(NamedTuple):
    """What a model is trained and evaluated on."""

    image: torch.Tensor  # (B, 3, S, S) float32 RGB in [0, 1]
    label: torch.Tensor  # (B,) int64, 0 real, 1 generated
    index: torch.Tensor  # type: ignore[assignment]  # (B,) int64, into the samples


class Item(NamedTuple):
    """One element of a batch, as a data set gives it."""

    pixels: Pixels  # (S, S, 3) uint8 RGB
    label: int
    index: int  # type: ignore[assignment]


class ImageDataset(Dataset[Item]):
    """Samples, opened and transformed on demand.

    An int index draws the transform's random numbers from a seed of that number, a `Draw` from its own.
    ImageError names the file and the reason where one cannot be read: no image ever stands in for another.
    """

    def __init__(self, samples: Sequence[Sample], transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw | int) -> Item:
        index, seed = draw if isinstance(draw, Draw) else (draw, draw)
        sample = self.samples[index]
        return Item(self.transform(_pixels(sample), np.random.default_rng(seed)), sample.label, index)


def collate(items: Sequence[Item]) -> Batch:
    """Stack items into a batch."""
    return _to_float(_stack(items))


class BatchLoader(DataLoader[Item]):
    """A DataLoader that yields `Batch`, whose workers send uint8: a quarter of the shared memory of float32.

    It takes no number from torch's global generator, so that iterating it anew leaves a resumed run the same run. Its
    workers leave Ctrl-C, which reaches them too, to the trainer: it may need one more batch to end its step.
    """

    def __init__(self, dataset: ImageDataset, **options: Any) -> None:
        super().__init__(dataset, generator=torch.Generator(), worker_init_fn=_ignore_ctrl_c, **options)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return map(_to_float, super().__iter__())


def training_loader(
    samples: Sequence[Sample], transform: Transform, batches: BalancedBatches, *, num_workers: int = 0
) -> BatchLoader:
    """The batches that `batches` draws from these samples, the same for any `num_workers`."""
    return BatchLoader(
        ImageDataset(samples, transform), batch_sampler=batches, collate_fn=_stack, num_workers=num_workers
    )


def evaluation_loader(
    samples: Sequence[Sample], transform: Transform, batch_size: int = 32, *, num_workers: int = 0
) -> BatchLoader:
    """Every sample once, in order; the last batch may be smaller."""
    return BatchLoader(
        ImageDataset(samples, transform), batch_size=batch_size, collate_fn=_stack, num_workers=num_workers
    )


def _ignore_ctrl_c(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _pixels(sample: Sample) -> Pixels:
    try:
        return load_image(sample.path).pixels
    except ImageError as error:
        raise ImageError(f"cannot read image {sample.path} (label {sample.label}): {error}") from error


def _stack(items: Iterable[Item]) -> Batch:
    """A batch whose image is still (B, S, S, 3) uint8: the way it crosses from worker to trainer."""
    pixels, labels, indices = zip(*items, strict=True)
    return Batch(torch.from_numpy(np.stack(pixels)), torch.tensor(labels), torch.tensor(indices))


def _to_float(batch: Batch) -> Batch:
    return batch._replace(image=batch.image.permute(0, 3, 1, 2).contiguous().float().div_(255))
