"""Trained on one, tested on all: a network for each generator (or scene), scored on every generator (or scene).

The folder of a matrix, in which every step survives an interruption:
    data/<row>.jsonl        what the row's network is trained on
    runs/<row>/             its run, as `apn train` writes it
    scores/<row>/<column>.parquet    a table of scores for each cell, as `apn score` writes it
    probe/<column>.json     how well file facts alone tell the column's label
    matrix.md, matrix.csv, auc-*.png, accuracy-*.png    made from the scores alone
Dimensions: R rows (trained on), C columns (tested on).
"""

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc
from rich.console import Console

from apn.backends import Device
from apn.config import Config
from apn.data.layouts import parse_spec, read_data
from apn.data.names import GENIMAGE
from apn.data.samples import GENERATED, Sample, read_manifest, write_manifest
from apn.data.select import select
from apn.distributed import require_one_process
from apn.markdown import as_text, table_row
from apn.metrics import METRIC_TITLES, Metrics
from apn.protocols import Protocol, ProtocolName
from apn.report.build import estimate_metrics
from apn.report.results import Estimate, Threshold
from apn.report.tables import cell
from apn.resume import training_data_sha256
from apn.runs import kept_shortcuts, score_checkpoint, train_to_end
from apn.scoretable import Shortcut, read_scores

By = Literal["generator", "scene"]
SHOWN = ("auc", "accuracy")
HALF = Threshold(0.5, "probability", "0.5")
_TEST_SPLITS = ("test", "val")  # the first that there is, where the spec names none


class Cell(NamedTuple):
    """The images of one test set, and the metrics of one network on them."""

    real: int
    generated: int
    failed: int
    metrics: Metrics[Estimate]


class Matrix(NamedTuple):
    """One protocol's table.

    cells: R rows of C. mean, others: of each row, over all columns and over all but the one it was trained on. probe:
    AUC of each column's label told from file facts alone.
    """

    protocol: str  # title
    by: By
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    mean: tuple[Metrics[Estimate], ...]
    others: tuple[Metrics[Estimate], ...]
    probe: tuple[Estimate, ...]


Parts = dict[str, list[Sample]]


def read_parts(train: str, test: str, by: By) -> tuple[Parts, Parts]:
    """(rows, columns): the samples to train on and to test on, by name.

    train, test: data specs; without a split they mean the train split, and the test or val split. ValueError where the
    two share a file, however its path is spelt and whatever links lead to it, or a part lacks a class.
    """
    rows, columns = _divide(read_data(train, default_split="train"), by, train), _divide(_read_test(test), by, test)
    trained, tested = ({sample.path for part in parts.values() for sample in part} for parts in (rows, columns))
    learnt = {real for _, real in _without_links(trained)}
    shared = sorted(str(path) for path, real in _without_links(tested) if real in learnt)
    if shared:
        raise ValueError(
            f"{len(shared)} images are both trained and tested on, the first {shared[0]}: name the splits, as in "
            f"--train {train},split=train --test {test},split=val"
        )
    return rows, columns


def _without_links(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Each path, and what it is without links; each folder is asked once, which makes it ten times as fast."""
    folders: dict[str, str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real = os.path.join(folders[folder], name)
        yield path, os.path.realpath(real) if os.path.islink(real) else real


def _read_test(spec: str) -> list[Sample]:
    samples = read_data(spec)
    if parse_spec(spec).filters.split:
        return samples
    found = {sample.split for sample in samples}
    split = next((name for name in _TEST_SPLITS if name in found), "")
    return select(samples, split)


def _divide(samples: Sequence[Sample], by: By, spec: str) -> Parts:
    """Each generator with the real images it is compared with, or each scene; GenImage's generators in its order."""
    found = dict.fromkeys(getattr(s, by) for s in samples if by == "scene" or s.label == GENERATED)
    order = {name: place for place, name in enumerate(GENIMAGE)}
    names = sorted((name for name in found if name), key=lambda name: order.get(name, len(order)))
    if not names:
        raise ValueError(f"no {by} is named in {spec}: expected a data set that says each image's {by}")
    parts = {
        name: select(samples, generators=(name,)) if by == "generator" else select(samples, scenes=(name,))
        for name in names
    }
    for name, part in parts.items():
        generated = sum(sample.label for sample in part)
        if not 0 < generated < len(part):
            raise ValueError(
                f"{by} {name} of {spec} has {len(part) - generated} real and {generated} generated images: "
                "a row and a column need both"
            )
    return parts


def fill(
    config: Config,
    train: str,
    test: str,
    out: Path,
    *,
    by: By = "generator",
    protocols: Sequence[ProtocolName] = ("native", "aligned"),
    device: Device = "cpu",
    accelerator: str = "auto",
    command: str = "",
    resamples: int = 1000,
    console: Console | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Matrix]:
    """Trains and scores whatever is not there yet, then measures. One matrix a protocol.

    config: of every network; its data.train and fold give way to the row's samples. Raises KeyboardInterrupt where a
    signal stopped a training (saved by then), ValueError where `out` holds a matrix of other settings or data, and in
    one of several processes of torchrun.
    """
    require_one_process("a matrix")
    rows, columns = read_parts(train, test, by)
    shown = [Protocol(name, size=config.model.image_size) for name in protocols]
    files = dict(zip([*rows, *columns], _file_names([*rows, *columns]), strict=True))
    for number, (row, samples) in enumerate(rows.items(), start=1):
        manifest = out / "data" / f"{files[row]}.jsonl"
        _require_same_images(samples, manifest, out / "runs" / files[row])
        settings = _row_config(config, row, samples, manifest)
        say(f"row {number} of {len(rows)}: trained on {row}, {len(samples)} images")
        checkpoint = train_to_end(
            settings, out / "runs" / files[row], accelerator=accelerator, command=command, console=console
        )
        tables = {_table(out, files, row, column): part for column, part in columns.items()}
        score_checkpoint(
            checkpoint, dict(tables), shown, device=device, command=command, advance=lambda table: say(f"  {table}")
        )
    probes = {
        column: kept_shortcuts(out / "probe" / f"{files[column]}.json", column, part, shown)
        for column, part in columns.items()
    }
    return measure_matrices(out, by, list(rows), probes, resamples=resamples)


def _require_same_images(samples: Sequence[Sample], manifest: Path, run: Path) -> None:
    """ValueError where the run there is of other images than these, which no longer trains once it is finished."""
    if not (run.is_dir() and manifest.is_file()):
        return
    before = read_manifest(manifest)
    if training_data_sha256(before) != training_data_sha256(samples):
        raise ValueError(
            f"{run} is trained on other images, {len(before)} listed by {manifest}, than the {len(samples)} there are "
            "now: choose another --out, or delete it"
        )


def _row_config(config: Config, row: str, samples: Sequence[Sample], manifest: Path) -> Config:
    manifest.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(samples, manifest)
    data = config.data.model_copy(update={"train": str(manifest), "folds": None, "leave_out_fold": None})
    return config.model_copy(update={"name": f"{config.name}, trained on {row}", "data": data})


def _table(out: Path, files: dict[str, str], row: str, column: str) -> Path:
    return out / "scores" / files[row] / f"{files[column]}.parquet"


def _file_names(names: Sequence[str]) -> list[str]:
    """A file name for each name, the same for the same; told apart by a number where only odd characters differ."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "unnamed"
        used = {file.lower() for other, file in found.items() if other != name}
        numbered = (plain if i == 1 else f"{plain}-{i}" for i in range(1, len(names) + 2))
        found.setdefault(name, next(file for file in numbered if file.lower() not in used))
    return [found[name] for name in names]


# Measuring -----------------------------------------------------------------------------------------------------------


def measure_matrices(
    out: Path,
    by: By,
    rows: Sequence[str],
    probes: dict[str, list[Shortcut]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Matrix]:
    """A matrix for each protocol, from the tables of scores alone. probes: of each column, one a protocol."""
    columns = list(probes)
    protocols = [one.protocol for one in probes[columns[0]]]
    files = dict(zip([*rows, *columns], _file_names([*rows, *columns]), strict=True))
    measured = {
        row: _measure_row([_table(out, files, row, one) for one in columns], row, columns, protocols, resamples, seed)
        for row in rows
    }
    return [
        Matrix(
            title,
            by,
            tuple(rows),
            tuple(columns),
            cells=tuple(measured[row][title][0] for row in rows),
            mean=tuple(measured[row][title][1] for row in rows),
            others=tuple(measured[row][title][2] for row in rows),
            probe=tuple(_estimate(probes[column][number]) for column in columns),
        )
        for number, title in enumerate(protocols)
    ]


def _estimate(shortcut: Shortcut) -> Estimate:
    return Estimate(*(np.nan if number is None else number for number in (shortcut.auc, shortcut.low, shortcut.high)))


_Row = tuple[tuple[Cell, ...], Metrics[Estimate], Metrics[Estimate]]


def _measure_row(
    tables: Sequence[Path], row: str, columns: Sequence[str], protocols: Sequence[str], resamples: int, seed: int
) -> dict[str, _Row]:
    """By protocol: the cells of one network, their mean, and the mean of those that it was not trained on."""
    (joined,) = read_scores(tables)  # an image of several cells counts once
    members = [read_scores([table])[0].paths for table in tables]
    found = {}
    for title in protocols:
        part = joined.take(joined.protocol.where(title))
        sets = [pc.is_in(part.paths, value_set=paths).to_numpy(zero_copy_only=False) for paths in members]
        everything = np.ones(len(part.labels), bool)
        (_, *each), mean = estimate_metrics(part, [everything, *sets], HALF, resamples=resamples, seed=seed)
        foreign = [one for one, column in zip(sets, columns, strict=True) if column != row]
        _, others = estimate_metrics(part, [everything, *foreign], HALF, resamples=resamples, seed=seed)
        cells = []
        for one, metrics in zip(sets, each, strict=True):
            generated = int((part.labels[one & ~part.failed] == GENERATED).sum())
            failed = int((one & part.failed).sum())
            cells.append(Cell(int(one.sum()) - failed - generated, generated, failed, metrics))
        found[title] = tuple(cells), mean, others
    return found


# Writing -------------------------------------------------------------------------------------------------------------


def write_matrices(matrices: Sequence[Matrix], name: str, folder: Path) -> list[Path]:
    """matrix.md, matrix.csv (a line a cell and protocol, all metrics) and heat maps; the files written."""
    from apn.report.canvas import save_png
    from apn.report.figures import matrix_figure

    written = [folder / "matrix.md", folder / "matrix.csv"]
    written[0].write_text(markdown(matrices, name), encoding="utf-8")
    lines = list(_csv_lines(matrices))
    with written[1].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    for matrix in matrices:
        for metric in SHOWN:
            estimates = [[getattr(one.metrics, metric) for one in row] for row in matrix.cells]
            figure = matrix_figure(
                np.array([[one.value for one in row] for row in estimates]),
                np.array([[(one.low, one.high) for one in row] for row in estimates]),
                matrix.rows,
                matrix.columns,
                f"{name}, {matrix.protocol}",
                label=_title(metric),
            )
            written.append(folder / f"{metric}-{matrix.protocol.split(' ')[0]}.png")
            save_png(figure, written[-1])
    return written


def markdown(matrices: Sequence[Matrix], name: str) -> str:
    """A table for each protocol and shown metric; rows are what was trained on."""
    blocks = [f"# {as_text(name)}: trained on one {matrices[0].by}, tested on each"]
    for matrix in matrices:
        for metric in SHOWN:
            header = ["trained on", *matrix.columns, "mean", "mean of the others"]
            lines = [
                f"## {_title(metric)}, {as_text(matrix.protocol)}",
                "",
                table_row(header),
                table_row(["---"] * len(header)),
            ]
            for row, cells, *means in zip(matrix.rows, matrix.cells, matrix.mean, matrix.others, strict=True):
                estimates = [getattr(m, metric) for m in (*(one.metrics for one in cells), *means)]
                lines.append(table_row([row, *map(cell, estimates)]))
            if metric == "auc":
                lines.append(table_row(["shortcut probe", *map(cell, matrix.probe), "", ""]))
                counts = [f"{one.real} + {one.generated}" for one in matrix.cells[0]]
                lines.append(table_row(["real + generated", *counts, "", ""]))
            blocks.append("\n".join(lines))
    failed = sum(one.failed for matrix in matrices for row in matrix.cells for one in row)
    blocks.append(
        f"{failed} scores are missing in all cells together. Accuracy at 0.5, uncalibrated. "
        "Shortcut probe: the label told from file facts alone, no pixel seen. In brackets 95 % "
        "intervals, bootstrap over split groups; they do not cover how another training seed would do."
    )
    return "\n\n".join(blocks) + "\n"


def _csv_lines(matrices: Sequence[Matrix]) -> Iterator[dict[str, str | int | float]]:
    for matrix in matrices:
        for row, cells in zip(matrix.rows, matrix.cells, strict=True):
            for column, one in zip(matrix.columns, cells, strict=True):
                yield {
                    "protocol": matrix.protocol,
                    "trained_on": row,
                    "tested_on": column,
                    "real": one.real,
                    "generated": one.generated,
                    "failed": one.failed,
                    **{
                        f"{metric}{suffix}": "" if np.isnan(number) else number
                        for metric, estimate in one.metrics._asdict().items()
                        for suffix, number in zip(("", "_low", "_high"), estimate, strict=True)
                    },
                }


def _title(metric: str) -> str:
    return str(getattr(METRIC_TITLES, metric))
