"""Files to batches: values, order, the same for any number of workers, and nothing skipped silently."""

import gc
import multiprocessing
import os
import signal
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apn.crops import center_crop
from apn.data.dataset import Batch, ImageDataset, Item, collate, evaluation_loader, training_loader
from apn.data.samples import Sample, read_samples
from apn.data.sampling import BalancedBatches, Draw
from apn.data.transforms import DegradationConfig, NativeTransform, TrainTransform
from apn.image import ImageError

TRAIN = TrainTransform(DegradationConfig(downscale=0.5, blur=0.5), 32)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    for i in range(10):
        folder = tmp_path / ("generated/sd" if i % 2 else "real/phone")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return read_samples(tmp_path)


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        for tensor, expected in zip(batch, other, strict=True):
            assert torch.equal(tensor, expected)


def test_an_item_is_the_transformed_file(samples: list[Sample]) -> None:
    dataset = ImageDataset(samples, NativeTransform(32))
    assert len(dataset) == 10
    for index in (0, 9):
        pixels, label, found = dataset[index]
        np.testing.assert_array_equal(pixels, center_crop(np.array(Image.open(samples[index].path)), 32))
        assert (label, found) == (samples[index].label, index)


def test_a_draws_seed_decides_the_augmentation(samples: list[Sample]) -> None:
    dataset = ImageDataset(samples, TRAIN)
    first, again, other = (dataset[Draw(3, seed)].pixels for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_ctrl_c_does_not_take_the_worker_from_a_step_that_ends(samples: list[Sample]) -> None:
    """The terminal sends it to all processes; the trainer decides."""
    batches = BalancedBatches(samples, 4, 40, seed=0)
    loaded = iter(training_loader(samples, TRAIN, batches, num_workers=1))
    expected = list(training_loader(samples, TRAIN, batches))
    found = [next(loaded)]
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    found.extend(loaded)
    assert_same(found, expected)


def test_collate_gives_rgb_planes_from_zero_to_one() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1] = (255, 51, 0)
    batch = collate([Item(pixels, 1, 7), Item(pixels, 0, 2)])
    assert batch.image.shape == (2, 3, 2, 2)
    assert batch.image.is_contiguous()
    assert (batch.image.dtype, batch.label.dtype, batch.index.dtype) == (torch.float32, torch.int64, torch.int64)
    torch.testing.assert_close(batch.image[0, :, 0, 1], torch.tensor([1.0, 0.2, 0.0]))
    assert (batch.label.tolist(), batch.index.tolist()) == ([1, 0], [7, 2])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker:UserWarning")  # on one core
def test_training_batches_do_not_depend_on_the_workers(samples: list[Sample]) -> None:
    batches = BalancedBatches(samples, 4, 6, seed=1)
    runs = [list(training_loader(samples, TRAIN, batches, num_workers=n)) for n in (0, 1, 2)]
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])
    drawn = [draw.index for draw in chain.from_iterable(batches)]
    assert torch.cat([batch.index for batch in runs[0]]).tolist() == drawn


def test_a_resumed_loader_goes_on_where_it_stopped(samples: list[Sample]) -> None:
    whole = training_loader(samples, TRAIN, BalancedBatches(samples, 4, 5, seed=1))
    resumed = training_loader(samples, TRAIN, BalancedBatches(samples, 4, 5, seed=1, start=3))
    assert (len(whole), len(resumed)) == (5, 2)
    assert_same(list(resumed), list(whole)[3:])


def test_two_ranks_share_one_global_batch(samples: list[Sample]) -> None:
    def run(**options: int) -> list[Batch]:
        return list(training_loader(samples, TRAIN, BalancedBatches(samples, 4, 3, seed=1, **options)))

    whole = run()
    ranks = [run(rank=rank, world_size=2) for rank in (0, 1)]
    joined = [Batch(*map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)]
    assert_same(joined, whole)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker:UserWarning")  # on one core
def test_evaluation_takes_every_sample_once_in_order(samples: list[Sample]) -> None:
    batches = list(evaluation_loader(samples, NativeTransform(32), 4))
    assert [len(batch.label) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(10))
    assert torch.cat([batch.label for batch in batches]).tolist() == [sample.label for sample in samples]
    assert_same(list(evaluation_loader(samples, NativeTransform(32), 4, num_workers=2)), batches)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_file_stops_evaluation_and_is_named(
    samples: list[Sample], num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After an error the loader is a reference cycle, and collecting it waits so many seconds for each worker.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    samples[6].path.write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"cannot read image .*generated.*\.png \(label 1\)"):
        list(evaluation_loader(samples, NativeTransform(32), 4, num_workers=num_workers))
    gc.collect()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        ImageDataset([Sample(tmp_path / "nowhere.png", 0, "", "", "", "")], NativeTransform())[0]
