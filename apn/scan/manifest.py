"""What a scan is of and with what, kept in OUT/scan.json: rows of two different scans never stand in one result."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from apn.scan.fetching import MAX_BYTES
from apn.scan.files import Store
from apn.scan.shards import FOLDER as SHARDS
from apn.version import __version__

FILE = "scan.json"


class Manifest(BaseModel):
    """Everything that a row depends on, but the pixels."""

    model_config = ConfigDict(frozen=True)
    sources: tuple[str, ...]  # addresses, in the order given
    column: str | None = None  # of tables
    sample: int | None = None  # images to draw; None for all
    seed: int = 0  # of the sample
    shard_images: int = 4096  # at most
    stability: bool = True
    allow_truncated: bool = False
    max_pixels: int = 200_000_000
    max_bytes: int = MAX_BYTES  # of a file that is held in memory
    sha256: bool = False  # of each file
    model: dict[str, Any]  # `Detector.describe`
    version: str = __version__


def claim(store: Store, ours: Manifest, *, resume: bool) -> None:
    """Makes OUT this scan's.

    Raises ValueError where it is another one's, or holds other files, or is this one's and `resume` is not given.
    """
    text = store.read(FILE)
    if text is None and (found := sorted(store.names_that_count())[:5]):
        raise ValueError(f"expected a new or empty folder for --out, found {', '.join(found)} in {store.location}")
    if text is None or not store.names_that_count(SHARDS):  # nothing listed: a scan that never began may become another
        store.write(FILE, (ours.model_dump_json(indent=2) + "\n").encode())
        return
    theirs = Manifest.model_validate_json(text)  # a setting that an earlier version did not have is at its default
    different = _differences(json.loads(ours.model_dump_json()), json.loads(theirs.model_dump_json()))
    if different:
        raise ValueError(f"{store.location} holds another scan ({'; '.join(different)}): choose another --out")
    if not resume:
        raise ValueError(f"{store.location} holds this scan already: --resume to go on with it, or another --out")


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """`name: expected ..., found ...` for each field that is not the same; a newer version of ours may go on."""
    told = []
    for name in ours.keys() - {"version"}:
        one, other = ours[name], theirs.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            without = {key: value for key, value in one.items() if key != "version"}
            told += [f"{name} {one}" for one in _differences(without, other)]
        elif one != other:
            told.append(f"{name}: expected {one}, found {other}")
    return sorted(told)
