"""The table of scores: a row an image and condition, written by `apn score`, read by `apn report` and `apn calibrate`.

Parquet, with what the scores came from as JSON under the key `apn` of the file's metadata (`TableFacts`). CSV and JSON
lines with the same columns can be read too; of these, only `label` and `logit` must be there.
Dimensions: N rows of one detector. Labels: 0 real, 1 generated.
"""

import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

_WORD = pa.dictionary(pa.int32(), pa.string())  # texts that repeat
SCHEMA = pa.schema(
    [
        ("path", pa.large_string()),
        ("label", pa.int8()),
        ("generator", _WORD),
        ("scene", _WORD),
        ("source", _WORD),
        ("split", _WORD),
        ("split_group", pa.large_string()),
        ("subset", _WORD),
        ("protocol", _WORD),  # title, with its settings
        ("degradation", _WORD),  # "" where there is none
        ("level", _WORD),
        ("logit", pa.float64()),  # generated minus real; null where failed
        ("probability", pa.float64()),
        ("error", pa.large_string()),  # null where scored
    ]
)
UNSTATED = "protocol not stated"  # title of what was scored nobody says how
WORDS = tuple(field.name for field in SCHEMA if field.type == _WORD)
METADATA_KEY = b"apn"
SUFFIXES = (".parquet", ".csv", ".jsonl")
ROUNDING = 1e-3  # how far the logits of one image may lie apart: on some devices the last digits follow the batch size


class Thresholds(BaseModel):
    """Probabilities that the detector's verdicts change at, and what they were chosen for (apn.calibration)."""

    model_config = ConfigDict(frozen=True)
    real_below: float = 0.5
    generated_from: float = 0.5
    target_fpr: float | None = None
    target_fnr: float | None = None
    fitted_on: str = ""


class Shortcut(BaseModel):
    """AUC, with its 95 % interval, of the label told from file facts alone, for one data spec (apn.data.probe)."""

    model_config = ConfigDict(frozen=True)
    data: str
    protocol: str  # title: what was done to the files before
    auc: float | None  # None where it cannot be known, for want of a class
    low: float | None = None
    high: float | None = None


class TableFacts(BaseModel):
    """Where a table's scores come from. Empty where a CSV does not say."""

    model_config = ConfigDict(frozen=True)
    weights: str
    sha256: str = ""
    backend: str = ""
    protocols: tuple[str, ...] = ()  # titles
    degradations: tuple[str, ...] = ()  # "name level", "" for none
    thresholds: Thresholds = Thresholds()
    data: tuple[str, ...] = ()  # specs as typed
    data_sha256: str = ""  # of the list of samples
    images: int = 0
    limit: int | None = None
    seed: int = 0
    version: str = ""
    command: str = ""
    shortcuts: tuple[Shortcut, ...] = ()


class Category(NamedTuple):
    """A column of texts that repeat: row i says names[codes[i]]."""

    codes: np.ndarray  # (N,) int32
    names: tuple[str, ...]

    def where(self, *names: str) -> np.ndarray:
        """Mask (N,) of the rows that say one of these."""
        return np.isin(self.codes, [code for code, name in enumerate(self.names) if name in names])

    def present(self, rows: np.ndarray | slice = slice(None)) -> list[str]:
        """The texts that some of these rows have, sorted; without ""."""
        return sorted(name for code in np.unique(self.codes[rows]) if (name := self.names[code]))


class Scores(NamedTuple):
    """The rows of one detector, failed ones too, column by column; arrays of N."""

    facts: TableFacts
    paths: pa.Array  # of text
    labels: np.ndarray  # int8
    generator: Category
    scene: Category
    source: Category
    split: Category
    subset: Category
    protocol: Category
    degradation: Category
    level: Category
    groups: np.ndarray  # int32 codes of split_group, of the path where there is none
    logits: np.ndarray  # float64, nan where failed
    probabilities: np.ndarray  # float64, nan where failed
    errors: pa.Array  # of text, null where scored

    @property
    def failed(self) -> np.ndarray:
        """Mask (N,) of the rows without a score."""
        return np.isnan(self.logits)

    def take(self, rows: np.ndarray) -> "Scores":
        """Some rows, by mask or index, in that order."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns: dict[str, Any] = self._asdict()
        for name, column in columns.items():
            if isinstance(column, Category):
                columns[name] = column._replace(codes=column.codes[index])
            elif isinstance(column, pa.Array):
                columns[name] = column.take(pa.array(index))
            elif isinstance(column, np.ndarray):
                columns[name] = column[index]
        return Scores(**columns)


def read_scores(paths: Iterable[str | Path]) -> list[Scores]:
    """Scores of each detector in tables of any kind, in the order of the tables.

    Tables of the same weights, backend and thresholds are put under one header; a row that two of them have counts
    once. Raises ValueError that names the file where one is not a table of scores or has a bad row, and where two
    tables score one image differently.
    """
    tables = [read_table(Path(path)) for path in paths]
    keys = list(dict.fromkeys(_detector(facts) for _, facts in tables))
    tables.sort(key=lambda pair: keys.index(_detector(pair[1])))
    found = []
    for _, same in groupby(tables, key=lambda pair: _detector(pair[1])):
        parts = list(same)
        facts = _joined([facts for _, facts in parts])
        table = pa.concat_tables([table for table, _ in parts]).unify_dictionaries()
        found.append(_columns(table if len(parts) == 1 else _without_repeats(table, facts.weights), facts))
    return found


def read_table(path: Path) -> tuple[pa.Table, TableFacts]:
    """One table with every column of SCHEMA, and its facts; ValueError as in `read_scores`."""
    readers = {".parquet": pq.read_table, ".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise ValueError(f"{path} is not a table of scores: expected {', '.join(SUFFIXES)}, as `apn score` writes it")
    with path.open("rb"):  # an OSError that names the file, where it is not there
        pass
    try:
        raw = readers[path.suffix](path)
        facts = _facts(path, raw)
        if missing := {"label", "logit"} - set(raw.column_names):
            found = ", ".join(raw.column_names)
            raise ValueError(
                f"expected columns {', '.join(SCHEMA.names)}, found no {', '.join(sorted(missing))} in {found}"
            )
        return _checked(_completed(raw, path)), facts
    except (pa.ArrowException, ValidationError, ValueError) as error:
        raise ValueError(f"{path} is not a table of scores: {error}") from error


def read_facts(path: Path) -> TableFacts:
    """What a Parquet table says of itself, without reading its rows."""
    try:
        return _facts(path, pq.read_schema(path))
    except (pa.ArrowException, ValidationError) as error:
        raise ValueError(f"{path} is not a table of scores: {error}") from error


def _facts(path: Path, table: pa.Table | pa.Schema) -> TableFacts:
    metadata = (table.schema if isinstance(table, pa.Table) else table).metadata or {}
    if METADATA_KEY not in metadata:
        return TableFacts(weights=path.stem)
    return TableFacts.model_validate_json(metadata[METADATA_KEY])


def _read_csv(path: Path) -> pa.Table:
    types = {name: pa.string() for name in SCHEMA.names} | {"label": pa.int8()}
    types |= {"logit": pa.float64(), "probability": pa.float64()}
    options = pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    return pyarrow.csv.read_csv(
        path, convert_options=options, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
    )


def _read_jsonl(path: Path) -> pa.Table:
    plain = pa.schema([pa.field(f.name, pa.string() if f.name in WORDS else f.type) for f in SCHEMA])
    options = pyarrow.json.ParseOptions(explicit_schema=plain, unexpected_field_behavior="ignore")
    table = pyarrow.json.read_json(path, parse_options=options)
    if table["logit"].null_count == len(table) > 0:  # a column that no row has comes back as nulls
        table = table.drop_columns(["logit"])
    return table


def _completed(raw: pa.Table, path: Path) -> pa.Table:
    """Every column of SCHEMA in its type; missing texts are "", missing paths those of the rows, probabilities a
    softmax."""
    columns = {name: raw[name] if name in raw.column_names else pa.nulls(len(raw)) for name in SCHEMA.names}
    if columns["path"].null_count:
        rows = pa.array([f"{path}, row {number}" for number in range(1, len(raw) + 1)])
        columns["path"] = pc.coalesce(columns["path"].cast(pa.string()), rows)
    for name in (*WORDS, "split_group"):
        text = columns[name]
        columns[name] = pc.fill_null(text if pa.types.is_dictionary(text.type) else text.cast(pa.string()), "")
    if not pa.types.is_dictionary(columns["protocol"].type):  # a table of somebody else's
        stated = pc.greater(pc.utf8_length(columns["protocol"]), 0)
        columns["protocol"] = pc.if_else(stated, columns["protocol"], UNSTATED)
    if columns["probability"].null_count == len(raw):
        with np.errstate(invalid="ignore"):  # of logits that are not there
            softmax = np.exp(-np.logaddexp(0, -_floats(raw["logit"])))
        columns["probability"] = pa.array(softmax, from_pandas=True)  # nan means null
    unset = pc.equal(pc.utf8_length(columns["split_group"]), 0)
    columns["split_group"] = pc.if_else(unset, columns["path"].cast(pa.string()), columns["split_group"])
    return pa.table({field.name: _cast(columns[field.name], field.type) for field in SCHEMA})


def _cast(column: Any, kind: pa.DataType) -> Any:
    if pa.types.is_dictionary(kind):
        return column if pa.types.is_dictionary(column.type) else column.dictionary_encode().cast(kind)
    return column.cast(kind)


def _checked(table: pa.Table) -> pa.Table:
    labels = table["label"].fill_null(-1).to_numpy()
    logits = _floats(table["logit"])
    scored = table["error"].is_null().to_numpy()
    probabilities = _floats(table["probability"])
    for bad, expected in (
        (~np.isin(labels, (0, 1)), "a label of 0 or 1"),
        (scored & ~np.isfinite(logits), "a finite logit, or an error"),
        (scored & ~((probabilities >= 0) & (probabilities <= 1)), "a probability in [0, 1]"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            found = table.slice(row, 1).select(["label", "logit", "probability", "error"]).to_pylist()[0]
            raise ValueError(f"row {row + 1}: expected {expected}, found {found}")
    return table


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy().astype(float)  # null becomes nan


def _columns(table: pa.Table, facts: TableFacts) -> Scores:
    errors = table["error"].combine_chunks()
    failed = errors.is_valid().to_numpy(zero_copy_only=False)
    return Scores(
        facts=facts,
        paths=table["path"].combine_chunks(),
        labels=table["label"].to_numpy(),
        groups=table["split_group"].dictionary_encode().combine_chunks().indices.to_numpy(),
        logits=np.where(failed, np.nan, _floats(table["logit"])),
        probabilities=np.where(failed, np.nan, _floats(table["probability"])),
        errors=errors,
        **{name: _category(table[name]) for name in WORDS},
    )


def _category(column: pa.ChunkedArray) -> Category:
    joined = column.unify_dictionaries().combine_chunks()
    if isinstance(joined, pa.ChunkedArray):  # of no chunk at all
        return Category(np.empty(0, np.int32), ())
    return Category(joined.indices.to_numpy(), tuple(joined.dictionary.to_pylist()))


def _detector(facts: TableFacts) -> tuple[str, str, str, str]:
    return facts.weights, facts.sha256, facts.backend, facts.thresholds.model_dump_json()


def _joined(facts: list[TableFacts]) -> TableFacts:
    """Facts of tables put under one header: lists are joined, the rest is the first one's."""
    lists = {
        name: tuple(dict.fromkeys(item for one in facts for item in getattr(one, name)))
        for name in ("protocols", "degradations", "data", "shortcuts")
    }
    return facts[0].model_copy(update={**lists, "images": sum(one.images for one in facts)})


def _without_repeats(table: pa.Table, weights: str) -> pa.Table:
    """Rows that two tables share, once; ValueError where their logits differ by more than rounding."""
    key = ["path", "protocol", "degradation", "level"]
    rows = table.append_column("row", pa.array(np.arange(len(table))))
    found = rows.group_by(key).aggregate([("row", "min"), ("logit", "min"), ("logit", "max")])
    spread = pc.subtract(found["logit_max"], found["logit_min"])
    different = found.filter(pc.greater(spread, ROUNDING))
    if len(different):
        first = json.dumps(different.select(key).slice(0, 1).to_pylist()[0])
        raise ValueError(f"expected one score each, found two for {len(different)} of {weights}, the first {first}")
    return table.take(pa.array(np.sort(found["row_min"].to_numpy())))
