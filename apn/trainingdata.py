"""The data of a training run: which samples train, which validate, and the loaders of each process's part."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from apn.config import Config, DataConfig
from apn.data.dataset import BatchLoader, evaluation_loader, training_loader
from apn.data.layouts import parse_spec, read_data
from apn.data.samples import REAL, Sample, require_both_classes
from apn.data.sampling import BalancedBatches
from apn.data.splits import Fold, leave_out, read_folds, split_by_group
from apn.data.transforms import (
    AlignedTransform,
    CentreTransform,
    DeliveredTransform,
    GridsTransform,
    TrainTransform,
    Transform,
)
from apn.data.verify import quarantine
from apn.distributed import rank, world_size
from apn.step import club_steps

APN_STREAM, CLUB_STREAM, LABEL_STREAM = 0, 1, 2  # random streams of batches: the two halves', the soft labels'
EVALUATION_BATCH = 32
SPREAD_BATCHES = 40
LABEL_CROPS: dict[str, Callable[[int], Transform]] = {
    "centre": CentreTransform,
    "grids": GridsTransform,
    "delivered": DeliveredTransform,
}  # others: training crops


class Splits(NamedTuple):
    """train and validation share no split_group; test is the left-out fold, empty without one."""

    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    quarantined: list[tuple[Sample, str]]


def read_splits(config: DataConfig, seed: int) -> Splits:
    """The samples of an experiment. Raises ValueError for data that do not hold both classes."""
    if not config.train:
        raise ValueError("no training data: set data.train to a folder with real/ and generated/, or to a manifest")
    samples = read_data(config.train, default_split="train")
    require_both_classes(samples, config.train)
    test: list[Sample] = []
    fold = Fold((), ())
    if config.leave_out_fold:
        folds = read_folds(config.folds or parse_spec(config.train).root.parent / "folds.json")
        if config.leave_out_fold not in folds:
            raise ValueError(f"no fold {config.leave_out_fold!r}: expected one of {', '.join(folds)}")
        fold = folds[config.leave_out_fold]
        samples, test = leave_out(samples, *fold)
        require_both_classes(samples, f"what fold {config.leave_out_fold!r} leaves of {config.train}")
    bad: list[tuple[Sample, str]] = []
    if config.quarantine:
        samples, bad = quarantine(samples)
        require_both_classes(samples, f"the files of {config.train} that decode")
    train, validation = split_by_group(samples, config.validation, seed) if config.validation else (samples, [])
    require_both_classes(train, f"what data.validation = {config.validation:g} leaves of {config.train}")
    aligned = read_aligned(config.aligned, train) if config.aligned_share else []
    aligned = [sample for sample in aligned if sample.generator not in fold.left_out_generators]
    if config.quarantine:
        aligned, more = quarantine(aligned)
        bad = bad + more
    return Splits(train + aligned, validation, test, bad)


def read_aligned(manifests: Sequence[str], photographs: Sequence[Sample]) -> list[Sample]:
    """Fakes of these photographs, of no other: what is made from held-out pictures stays out. Their `original` is
    spelt as the photograph's path is.

    Raises ValueError where a manifest lists a fake without saying what it was made from, or where none is of these.
    """
    known = {os.path.realpath(sample.path): str(sample.path) for sample in photographs}
    fakes = [sample for manifest in manifests for sample in read_data(manifest)]
    for sample in fakes:
        if not sample.original or sample.label == REAL:
            raise ValueError(f"expected fakes with their `original`, as `apn synthesize` lists them: {sample.path}")
    found = [(sample, known.get(os.path.realpath(sample.original))) for sample in fakes]
    kept = [sample._replace(original=original) for sample, original in found if original is not None]
    if fakes and not kept:
        raise ValueError(
            f"expected fakes of the training photographs in {', '.join(manifests)}, found {len(fakes)} of others, the "
            f"first of {fakes[0].original}"
        )
    return kept


def training_loaders(
    config: Config, samples: Sequence[Sample], start: int, club_start: int
) -> tuple[BatchLoader, BatchLoader]:
    """This process's part of the network's batches and, in a random stream of their own, of the CLUB half's.

    start, club_start: batches of either that the run has seen already.
    """
    club = club_steps(config) if config.train.club_data == "fresh" else 0
    return (
        _loader(config, samples, APN_STREAM, config.train.steps, start),
        _loader(config, samples, CLUB_STREAM, config.train.steps * club, club_start if club else 0),
    )


def label_loader(config: Config, samples: Sequence[Sample]) -> BatchLoader:
    """This process's part of the batches that soft labels are fitted on."""
    chosen = LABEL_CROPS.get(config.loss.soft_label_crops)
    transform = chosen(config.model.image_size) if chosen else None
    return _loader(config, samples, LABEL_STREAM, config.loss.soft_label_batches, transform=transform)


def spread_loader(config: Config, samples: Sequence[Sample]) -> BatchLoader:
    """This process's part of the batches that `train.unit_spread` is measured on."""
    return _loader(config, samples, LABEL_STREAM, SPREAD_BATCHES)


def _loader(
    config: Config,
    samples: Sequence[Sample],
    stream: int,
    count: int,
    start: int = 0,
    transform: Transform | None = None,
) -> BatchLoader:
    """transform: None is that of training crops."""
    batches = BalancedBatches(
        samples,
        config.train.batch_size,
        count,
        seed=config.train.seed,
        stream=stream,
        start=start,
        rank=rank(),
        world_size=world_size(),
        balance=config.data.balance,
        pair_share=config.data.aligned_share,
    )
    transform = transform or TrainTransform(config.data.degradations, config.model.image_size)
    return training_loader(samples, transform, batches, num_workers=config.data.workers if count else 0)


def validation_loader(config: Config, samples: Sequence[Sample]) -> BatchLoader | None:
    """This process's part of a fixed, evenly spread part of the held-out samples; None where there are none."""
    if not samples:
        return None
    most = min(len(samples), config.data.validation_images)
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, most).round().astype(int)]
    return evaluation_loader(
        chosen[rank() :: world_size()],
        AlignedTransform(config.model.image_size),
        EVALUATION_BATCH,
        num_workers=config.data.workers,
    )
