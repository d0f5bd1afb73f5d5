"""A run from its first step to its scores, which may be stopped at any time and goes on when asked for again.

What `apn matrix` and bench/compare.py repeat many times over.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from apn.backends import Device
from apn.checkpoint import read_checkpoint_config, read_training
from apn.clock import is_finished
from apn.config import Config
from apn.data.samples import Sample
from apn.detector import load
from apn.evaluate import data_sha256, measure_shortcuts, score_samples, show, table_facts
from apn.protocols import Protocol
from apn.scoretable import Shortcut, read_facts
from apn.train import train
from apn.wholefile import write_whole


def train_to_end(
    config: Config, run: Path, *, accelerator: str = "auto", command: str = "", console: Console | None = None
) -> Path:
    """The last checkpoint of the run folder, trained from where an earlier call left it, or from nothing.

    Raises ValueError where the folder holds a run with other settings; KeyboardInterrupt where a signal stopped the
    training, after it was saved.
    """
    last = run / "last"
    if last.is_dir() and (changed := _changed(read_checkpoint_config(last), config)):
        raise ValueError(
            f"{run} holds a run with other settings ({'; '.join(changed)}): choose another --out, or delete it"
        )
    if not is_finished(config.train, run):
        resume = run if last.is_dir() else None
        result = train(config, run, resume=resume, accelerator=accelerator, command=command, console=console)
        if result.interrupted:
            raise KeyboardInterrupt
    return last


def _changed(saved: Config, config: Config) -> list[str]:
    """A line for each setting that differs; a path of the data is the same however it is spelt."""
    before, now = saved.model_dump(), config.model_dump()
    for settings in (before, now):
        settings["data"]["train"] = os.path.abspath(settings["data"]["train"])
    lines = []
    for section, found in now.items():
        was = before[section]
        if isinstance(was, dict) and isinstance(found, dict):
            names = [name for name in {**was, **found} if was.get(name) != found.get(name)]
            lines += [f"{section}.{name} was {was.get(name)!r} and is {found.get(name)!r}" for name in names]
        elif was != found:
            lines.append(f"{section} was {was!r} and is {found!r}")
    return lines


def score_checkpoint(
    checkpoint: Path,
    tables: dict[Path, Sequence[Sample]],
    protocols: Sequence[Protocol],
    *,
    device: Device = "cpu",
    command: str = "",
    advance: Callable[[Path], None] = lambda table: None,
) -> None:
    """Scores each table's samples under the protocols, into Parquet at its path; what is there already is left alone.

    advance: called after each table. Raises ValueError where a table holds scores of something else.
    """
    missing = {
        table: samples for table, samples in tables.items() if not _is_scored(table, checkpoint, samples, protocols)
    }
    detector = load(checkpoint, backend="torch", device=device) if missing else None
    for table, samples in tables.items():
        if detector is not None and table in missing:
            table.parent.mkdir(parents=True, exist_ok=True)
            shown = [show(protocol) for protocol in protocols]
            facts = table_facts(detector, samples, shown, data=[table.stem], command=command)
            score_samples(detector, samples, shown, table, facts)
        advance(table)


def kept_shortcuts(file: Path, data: str, samples: Sequence[Sample], protocols: Sequence[Protocol]) -> list[Shortcut]:
    """`measure_shortcuts` of the samples, measured once and kept in a JSON file. data: what to call them."""
    key = {"data_sha256": data_sha256(samples), "protocols": [protocol.title for protocol in protocols]}
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if {name: kept[name] for name in key} == key:
            return [Shortcut(**one) for one in kept["shortcuts"]]
    found = measure_shortcuts(data, samples, protocols, seed=0)
    write_whole(file, json.dumps(key | {"shortcuts": [one.model_dump() for one in found]}, indent=1).encode())
    return found


def _is_scored(table: Path, checkpoint: Path, samples: Sequence[Sample], protocols: Sequence[Protocol]) -> bool:
    """Whether the whole table is there, of these weights, images and protocols."""
    if not table.is_file():
        return False
    facts = read_facts(table)
    return (facts.sha256, facts.data_sha256, facts.protocols) == (
        read_training(checkpoint)["sha256"],
        data_sha256(samples),
        tuple(protocol.title for protocol in protocols),
    )
