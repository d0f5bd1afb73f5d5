"""Parts of a table of scores, joined in the order of their jobs with a few megabytes in memory.

A table is written from what an earlier run has finished, if there is that, and the parts after it; of the rows of one
job the last counts: a retry comes after the failure. Dimensions: J jobs, R rows of a row group.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

JOB = pa.field("job", pa.int64())  # the column that parts have and tables have not: there rows are in order
MOST_ROWS = 2**18  # of a row group
MOST_BYTES = 2**26  # of its rows, uncompressed; while a table is joined about three times this is held


class RowGroup(NamedTuple):
    """One of a finished table or of a part. jobs: (R,) of each row."""

    path: Path
    number: int
    jobs: np.ndarray
    bytes: int

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Its rows."""
        with pq.ParquetFile(self.path) as file:
            return file.read_row_group(self.number, columns=columns)


def row_groups(table: Path, parts: Sequence[Path]) -> Iterator[RowGroup]:
    """Those of a finished table, whose row j is job j, if it is there, and of the parts, in their order."""
    for path in [table] * table.exists() + list(parts):
        first = 0
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                facts = file.metadata.row_group(number)
                if path == table:
                    jobs = np.arange(first, first + facts.num_rows)
                else:
                    jobs = file.read_row_group(number, columns=[JOB.name])[JOB.name].to_numpy()
                yield RowGroup(path, number, jobs, facts.total_byte_size)
                first += facts.num_rows


def joined(groups: Sequence[RowGroup], jobs: int, columns: list[str]) -> Iterator[pa.Table]:
    """The last row of each of J jobs, in order, in tables of as many rows as MOST_ROWS and MOST_BYTES allow.

    Every job must have a row. A row group is read again for each table that needs rows of it.
    """
    group_of, row_of = np.full(jobs, -1, np.int32), np.empty(jobs, np.int32)
    for number, group in enumerate(groups):
        group_of[group.jobs], row_of[group.jobs] = number, np.arange(len(group.jobs))
    assert (group_of >= 0).all(), "a job without a row"
    at_once = _rows_at_once(groups)
    for first in range(0, jobs, at_once):
        those = slice(first, first + at_once)
        by_group = np.argsort(group_of[those], kind="stable")
        cuts = np.flatnonzero(np.diff(group_of[those][by_group])) + 1
        pieces = [
            groups[group_of[first + rows[0]]].read(columns).take(pa.array(row_of[first + rows]))
            for rows in np.split(by_group, cuts)
        ]
        yield pa.concat_tables(pieces).unify_dictionaries().take(pa.array(np.argsort(by_group)))


def _rows_at_once(groups: Sequence[RowGroup]) -> int:
    bytes_a_row = max((group.bytes / max(len(group.jobs), 1) for group in groups), default=0)
    return max(1, min(MOST_ROWS, int(MOST_BYTES / max(bytes_a_row, 1))))
