"""The result: a Parquet file a shard, a row an image, in the order of the shard's list."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from apn.detection import Detection, Verdict
from apn.scan.files import Store
from apn.scan.tally import Tally, kind_of, shortened
from apn.words import as_utf8

FOLDER = "parts"
ROWS_AT_ONCE = 4096  # of a part that are held as Python values
METADATA_KEY = "apn"
_WORD = pa.dictionary(pa.int32(), pa.string())  # texts that repeat
SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # of the file; TABLE#ROW and TAR#MEMBER for what is inside another file
        ("sha256", pa.string()),  # of the bytes that were judged, in hexadecimal; null where failed or not asked for
        ("verdict", _WORD),  # generated, real or unsure; null where failed
        ("probability", pa.float64()),  # calibrated, of being generated; null where failed
        ("logit", pa.float64()),  # generated minus real, before calibration; null where failed
        ("width", pa.int32()),  # pixels, upright
        ("height", pa.int32()),
        ("format", _WORD),
        ("stable", pa.bool_()),  # whether every re-delivery got the same verdict; null where none was tried
        ("warnings", _WORD),  # the first words of each, comma between; empty where there is none
        ("error", pa.string()),  # null where scored
        ("model", _WORD),  # sha256 of the weights
    ]
)


class Row(NamedTuple):
    """One image of the result; the fields are the columns of SCHEMA."""

    path: str
    sha256: str | None
    verdict: Verdict | None
    probability: float | None
    logit: float | None
    width: int | None
    height: int | None
    format: str | None
    stable: bool | None
    warnings: str
    error: str | None
    model: str


def to_row(name: str, found: Detection, sha256: str | None, model: str) -> Row:
    """What is kept of a detection."""
    return Row(
        path=as_utf8(name),
        sha256=sha256,
        verdict=found.verdict,
        probability=found.probability,
        logit=found.logit,
        width=found.width,
        height=found.height,
        format=found.format,
        # The detector tries deliveries where the verdict is not `unsure`, and makes it so where they disagree.
        stable=found.verdict != "unsure" if found.stability else None,
        warnings=",".join(warning.partition(":")[0] for warning in found.warnings),
        error=None if found.error is None else as_utf8(found.error),
        model=model,
    )


def part_file(number: int) -> str:
    """The name of a shard's part."""
    return f"{FOLDER}/part-{number:06d}.parquet"


def parts_done(store: Store) -> set[int]:
    """Numbers of the shards whose part is there."""
    found = (re.fullmatch(r"part-(\d{6,})\.parquet", name) for name in store.names(FOLDER))
    return {int(one[1]) for one in found if one}


def write_part(store: Store, number: int, rows: Iterable[Row]) -> Tally:
    """Writes a shard's part in one step once there is no more row, and says what it counted."""
    buffer, tally, errors = io.BytesIO(), Tally(), Counter[str]()
    verdicts = Counter[str]()
    with pq.ParquetWriter(buffer, SCHEMA, compression="zstd") as writer:
        for chunk in _chunks(rows):
            writer.write_table(_table(chunk))
            tally.images += len(chunk)
            verdicts.update(row.verdict for row in chunk if row.verdict is not None)
            errors.update(kind_of(row.error) for row in chunk if row.error is not None)
        tally = Tally(images=tally.images, verdicts=dict(verdicts), errors=dict(shortened(errors)))
        writer.add_key_value_metadata({METADATA_KEY: tally.model_dump_json()})
    store.write(part_file(number), buffer.getvalue())
    return tally


def read_tally(store: Store, number: int) -> Tally:
    """What a part counted, from its footer."""
    with store.open(part_file(number)) as file:
        metadata = pq.read_metadata(file).metadata
    return Tally.model_validate_json(metadata[METADATA_KEY.encode()])


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while chunk := list(islice(left, ROWS_AT_ONCE)):
        yield chunk


def _table(rows: list[Row]) -> pa.Table:
    columns = zip(SCHEMA, zip(*rows, strict=True), strict=True)
    return pa.table([_column(values, field.type) for field, values in columns], schema=SCHEMA)


def _column(values: Iterable[object], kind: pa.DataType) -> pa.Array:
    return pa.array(list(values), kind)
