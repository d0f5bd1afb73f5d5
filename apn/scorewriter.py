"""Writes a table of scores so that a killed run goes on where it stopped.

Rows are kept in parts, `<out>.parts/000001.parquet` and so on, each written whole or not at all, until every row is
there; then they are merged and replace `<out>` in one step. A row is a job: job j is sample j % N under condition
j // N. Dimensions: N samples, J jobs.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apn.data.samples import Sample
from apn.scoretable import METADATA_KEY, SCHEMA, TableFacts, read_facts
from apn.wholefile import write_whole
from apn.words import as_utf8

PART_ROWS, PART_SECONDS = 4096, 10.0  # a kill loses at most this
TODO, SCORED, FAILED = 0, 1, 2
# Scores of two runs may stand in one table only where all of these agree.
_IDENTITY = (
    "sha256", "backend", "thresholds", "protocols", "degradations", "data_sha256", "images", "limit", "seed",
)  # fmt: skip
_SIGNATURE = "table.json"
_JOB = pa.field("job", pa.int64())
_TEXTS = tuple(name for name in Sample._fields if name in SCHEMA.names and name not in ("path", "label"))


class Condition(NamedTuple):
    """How each sample is shown to the detector, in the words of the table."""

    protocol: str  # title
    degradation: str = ""
    level: str = ""


class ScoreWriter:
    """Takes scores in any order; `finish` makes the table.

    Raises ValueError at the start where `out`, or what an earlier run left of it, holds scores of something else.
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
        """columns: further ones, behind those of SCHEMA; null where an image could not be scored."""
        if out.suffix != ".parquet":
            raise ValueError(f"expected a table to write that ends in .parquet, found {out}")
        self._out, self._samples, self._conditions, self._facts = out, samples, conditions, facts
        self._further = tuple(columns)
        self._parts = _parts_of(out)
        self._rows: list[tuple[int, float | None, float | None, str | None, Mapping[str, Any]]] = []
        self._state = np.zeros(len(samples) * len(conditions), np.uint8)
        self._resume()
        self._flushed = time.monotonic()
        self.resumed = int((self._state != TODO).sum())
        self.todo = np.flatnonzero((self._state == TODO) | (retry_errors & (self._state == FAILED)))

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
            _write_whole(self._table(), self._parts / f"{number:06}.parquet")
            self._rows = []

    def finish(self) -> None:
        """Merges the parts into the table, in the order of the jobs, and removes them."""
        self.flush()
        assert (self._state != TODO).all(), "finish() before every job was added"
        if any(self._parts.glob("*.parquet")):
            joined = pa.concat_tables(self._earlier()).unify_dictionaries()
            # The last row of a job counts: a retry comes after the failure.
            jobs = joined[_JOB.name].to_numpy()
            _, from_the_end = np.unique(jobs[::-1], return_index=True)
            rows = joined.take(pa.array(len(jobs) - 1 - from_the_end)).drop_columns([_JOB.name])
            metadata = {METADATA_KEY: self._facts.model_dump_json()}
            _write_whole(rows.replace_schema_metadata(metadata), self._out)
        shutil.rmtree(self._parts, ignore_errors=True)

    def _resume(self) -> None:
        """Learns what earlier runs have done."""
        for where in (self._out, self._parts):
            if (found := _facts_of(where)) is not None:
                self._require_same(found, where)
        self._require_columns()
        for table in self._earlier(columns=["error"]):
            jobs, good = table[_JOB.name].to_numpy(), table["error"].is_null().to_numpy()
            self._state[jobs] = np.where(good, SCORED, FAILED)

    def _sign(self) -> None:
        """Says what the parts are scores of, before the first of them is there."""
        signature = self._parts / _SIGNATURE
        if not signature.is_file():
            write_whole(signature, self._facts.model_dump_json().encode())

    def _earlier(self, columns: list[str] | None = None) -> list[pa.Table]:
        """The finished table, if there is one, and the parts after it, with the job of each row."""
        tables = []
        if self._out.exists():
            table = pq.read_table(self._out, columns=columns).replace_schema_metadata(None)
            tables.append(table.append_column(_JOB, pa.array(np.arange(len(table)))))
        wanted = None if columns is None else [*columns, _JOB.name]
        tables += [pq.read_table(path, columns=wanted) for path in sorted(self._parts.glob("*.parquet"))]
        return tables

    def _require_same(self, found: TableFacts, where: Path) -> None:
        ours, theirs = (json.loads(facts.model_dump_json(include=set(_IDENTITY))) for facts in (self._facts, found))
        different = [name for name in _IDENTITY if ours[name] != theirs[name]]
        if different:
            listed = "; ".join(f"{name}: expected {ours[name]}, found {theirs[name]}" for name in different)
            raise ValueError(f"{where} holds scores of something else ({listed}): choose another --out, or delete it")

    def _require_columns(self) -> None:
        ours = {*SCHEMA.names, *(field.name for field in self._further)}
        for path in (self._out, *self._parts.glob("*.parquet")):
            found = set(pq.read_schema(path).names) - {_JOB.name} if path.exists() else ours
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
        schema = pa.schema([*SCHEMA, *self._further])
        table = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema)
        return table.append_column(_JOB, pa.array(jobs, pa.int64()))


def earlier_facts(out: Path) -> TableFacts | None:
    """What an earlier run said of the table `out`, finished or not; None where there was none."""
    return _facts_of(out) or _facts_of(_parts_of(out))


def _parts_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _facts_of(where: Path) -> TableFacts | None:
    """Of a table, or of the parts of one."""
    if where.is_file():
        return read_facts(where)
    signature = where / _SIGNATURE
    return TableFacts.model_validate_json(signature.read_text(encoding="utf-8")) if signature.is_file() else None


def _write_whole(table: pa.Table, path: Path) -> None:
    """Readers see the old file or the new one, whenever this process is killed."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    pq.write_table(table, unfinished, compression="zstd", row_group_size=2**18)
    os.replace(unfinished, path)
