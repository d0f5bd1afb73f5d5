"""What a command has written into its folder, so that its next run there leaves nothing of it behind."""

import json
from collections.abc import Iterable
from pathlib import Path

from apn.wholefile import write_whole

LIST = ".written.json"  # names below the folder, as JSON; of `apn report`
PLOTS = ".written-plots.json"  # of `apn plot`, which may share the folder
FIGURES = "figures"
_SUFFIXES = {".csv", ".html", ".json", ".md", ".png", ".svg"}


def leave_only(written: Iterable[Path], folder: Path, kept_in: str = LIST) -> None:
    """Lists what this run has written, and removes what the list before has besides: nothing else is touched.

    kept_in: the name of the list, one a command.
    """
    names = {path.relative_to(folder).as_posix() for path in written}
    for name in _listed(folder / kept_in) - names:
        path = Path(name)
        if path.suffix in _SUFFIXES and path in (Path(path.name), Path(FIGURES, path.name)):  # whatever a list says
            (folder / path).unlink(missing_ok=True)
    write_whole(folder / kept_in, json.dumps(sorted(names), indent=1).encode())


def _listed(file: Path) -> set[str]:
    """Nothing where there is no list that can be read: a file that may be another's is not removed."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()
