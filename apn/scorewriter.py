"""Writes a table of scores so that a killed run goes on where it stopped.

Rows are kept in parts, `<out>.parts/000001.parquet` and so on, each written whole or not at all, until every row is
there; then they are joined and replace `<out>` in one step. A row is a job: job j is sample j % N under condition
j // N. One run at a time: its lock is `.<out>.lock`. Dimensions: N samples, J jobs.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apn.data.samples import Sample
from apn.lock import alone
from apn.scoreparts import JOB, joined, row_groups
from apn.scoretable import METADATA_KEY, SCHEMA, TableFacts, read_facts
from apn.wholefile import UNFINISHED, open_whole, write_whole
from apn.words import as_utf8

PART_ROWS, PART_SECONDS = 4096, 10.0  # a kill loses at most this
TODO, SCORED, FAILED = 0, 1, 2
# Scores of two runs may stand in one table only where all of these agree.
_IDENTITY = (
    "sha256", "backend", "thresholds", "protocols", "degradations", "data_sha256", "images", "limit", "seed",
)  # fmt: skip
_SIGNATURE = "table.json"
_TEXTS = tuple(name for name in Sample._fields if name in SCHEMA.names and name not in ("path", "label"))


class Condition(NamedTuple):
    """How each sample is shown to the detector, in the words of the table."""

    protocol: str  # title
    degradation: str = ""
    level: str = ""


class ScoreWriter:
    """The only writer of a table as long as its `with` block runs; takes scores in any order.

    At the block's end the table is finished; where it fails (Ctrl-C too) what is known is kept for the next run.
    """

    def __init__(
        self,
        out: Path,
        samples: Sequence[Sample],
        conditions: Sequence[Condition],
        facts: TableFacts,
        *,
        columns: Sequence[pa.Field] = (),
        retry_errors: bool = False,
    ) -> None:
        """columns: further ones, behind those of SCHEMA; null where an image could not be scored.

        The block raises ValueError at its start where `out`, or what an earlier run left of it, holds scores of
        something else, and as `require_free` does.
        """
        self._out, self._samples, self._conditions, self._facts = out, samples, conditions, facts
        self._further, self._schema = tuple(columns), pa.schema([*SCHEMA, *columns])
        self._parts = _parts_of(out)
        self._rows: list[tuple[int, float | None, float | None, str | None, Mapping[str, Any]]] = []
        self._state = np.zeros(len(samples) * len(conditions), np.uint8)
        self._retry_errors, self._lock = retry_errors, ExitStack()

    def __enter__(self) -> Self:
        _require_parquet(self._out)
        with ExitStack() as lock:
            lock.enter_context(alone(_lock_of(self._out), self._out))
            self._resume()
            self._lock = lock.pop_all()
        self._flushed = time.monotonic()
        self.resumed = int((self._state != TODO).sum())
        self.todo = np.flatnonzero((self._state == TODO) | (self._retry_errors & (self._state == FAILED)))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            if kind is None:
                self.finish()
            else:
                self.flush()

    @property
    def failed(self) -> int:
        """Jobs without a score so far."""
        return int((self._state == FAILED).sum())

    def add(
        self,
        job: int,
        logit: float | None,
        probability: float | None,
        error: str | None,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        """One job's score, or why it has none. further: the values of the further columns by name."""
        self._rows.append((job, logit, probability, error, further or {}))
        self._state[job] = SCORED if error is None else FAILED
        if len(self._rows) >= PART_ROWS or time.monotonic() - self._flushed > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the rows taken since the last part as a part."""
        self._flushed = time.monotonic()
        if self._rows:
            self._sign()
            number = max((int(path.stem) for path in self._parts.glob("*.parquet")), default=0) + 1
            with open_whole(self._parts / f"{number:06}.parquet") as file:
                pq.write_table(self._table(), file, compression="zstd")
            self._rows = []

    def finish(self) -> None:
        """Joins the parts into the table, in the order of the jobs, and removes them."""
        self.flush()
        assert (self._state != TODO).all(), "finish() before every job was added"
        parts = self._parts_there()
        if parts:
            schema = self._schema.with_metadata({METADATA_KEY: self._facts.model_dump_json()})
            rows = joined(list(row_groups(self._out, parts)), len(self._state), schema.names)
            # Numbers of embeddings do not repeat: a dictionary of them would only be tried and given up.
            options = {"compression": "zstd", "use_dictionary": SCHEMA.names}
            with open_whole(self._out) as file, pq.ParquetWriter(file, schema, **options) as writer:
                for table in rows:
                    writer.write_table(table)
        for part in parts:  # the first one first: were this run killed here, a failure must not outlive its retry
            part.unlink()
        shutil.rmtree(self._parts, ignore_errors=True)

    def _resume(self) -> None:
        """Learns what earlier runs have done, and removes what a killed one has half written."""
        for path in self._out.parent.glob(f".{escape(self._out.name)}.*{UNFINISHED}"):
            path.unlink()
        for where in (self._out, self._parts):
            if (found := _facts_of(where)) is not None:
                self._require_same(found, where)
        self._require_columns()
        for group in row_groups(self._out, self._parts_there()):
            self._state[group.jobs] = np.where(group.read(["error"])["error"].is_null(), SCORED, FAILED)

    def _sign(self) -> None:
        """Says what the parts are scores of, before the first of them is there."""
        signature = self._parts / _SIGNATURE
        if not signature.is_file():
            write_whole(signature, self._facts.model_dump_json().encode())

    def _parts_there(self) -> list[Path]:
        return sorted(self._parts.glob("*.parquet"))

    def _require_same(self, found: TableFacts, where: Path) -> None:
        ours, theirs = (json.loads(facts.model_dump_json(include=set(_IDENTITY))) for facts in (self._facts, found))
        different = [name for name in _IDENTITY if ours[name] != theirs[name]]
        if different:
            listed = "; ".join(f"{name}: expected {ours[name]}, found {theirs[name]}" for name in different)
            raise ValueError(f"{where} holds scores of something else ({listed}): choose another --out, or delete it")

    def _require_columns(self) -> None:
        ours = set(self._schema.names)
        for path in (self._out, *self._parts_there()):
            found = set(pq.read_schema(path).names) - {JOB.name} if path.exists() else ours
            if found != ours:
                listed = ", ".join(sorted(found ^ ours))
                raise ValueError(
                    f"{path} is a table of another kind, they differ in {listed}: choose another --out, or delete it"
                )

    def _table(self) -> pa.Table:
        """The rows taken since the last part, with their jobs."""
        jobs, logits, probabilities, errors, further = zip(*self._rows, strict=True)
        samples = [self._samples[job % len(self._samples)] for job in jobs]
        conditions = [self._conditions[job // len(self._samples)] for job in jobs]
        columns: dict[str, Sequence[Any]] = {
            "path": [as_utf8(str(sample.path)) for sample in samples],
            "label": [sample.label for sample in samples],
            "logit": logits,
            "probability": probabilities,
            "error": [None if error is None else as_utf8(error) for error in errors],
            **{name: [as_utf8(getattr(sample, name)) for sample in samples] for name in _TEXTS},
            **{name: [getattr(condition, name) for condition in conditions] for name in Condition._fields},
            **{field.name: [values.get(field.name) for values in further] for field in self._further},
        }
        table = pa.table([pa.array(columns[field.name], field.type) for field in self._schema], self._schema)
        return table.append_column(JOB, pa.array(jobs, JOB.type))


def require_free(out: Path) -> None:
    """Raises ValueError where no table can be written to `out` now, as another run writes it or as it is no `.parquet`.

    For the start of commands that have long work to do before the first score.
    """
    _require_parquet(out)
    with alone(_lock_of(out), out):
        pass


def failures(table: Path) -> Iterator[tuple[str, str]]:
    """Path and reason of each file without a score, once, however many conditions it failed under; in order."""
    seen: set[tuple[str, str]] = set()
    with pq.ParquetFile(table) as file:
        for rows in file.iter_batches(columns=["path", "error"]):
            for row in rows.filter(rows["error"].is_valid()).to_pylist():
                failure = row["path"], row["error"]
                if failure not in seen:
                    seen.add(failure)
                    yield failure


def earlier_facts(out: Path) -> TableFacts | None:
    """What an earlier run said of the table `out`, finished or not; None where there was none."""
    return _facts_of(out) or _facts_of(_parts_of(out))


def _require_parquet(out: Path) -> None:
    if out.suffix != ".parquet":
        raise ValueError(f"expected a table to write that ends in .parquet, found {out}")


def _lock_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.lock")


def _parts_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _facts_of(where: Path) -> TableFacts | None:
    """Of a table, or of the parts of one."""
    if where.is_file():
        return read_facts(where)
    signature = where / _SIGNATURE
    return TableFacts.model_validate_json(signature.read_text(encoding="utf-8")) if signature.is_file() else None
