"""A report into the folder of an earlier one: nothing of the earlier one stays, and nothing else goes."""

import json
from pathlib import Path

from made import ALIGNED, NATIVE
from made_tables import made_rows, write_table

from apn.commands.evaluate import report
from apn.report.folder import LIST, leave_only


def test_what_only_the_report_before_wrote_goes(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(40)]
    degraded = made_rows(names, ALIGNED, degradation="jpeg", level="30")
    full = write_table(tmp_path / "full.parquet", [made_rows(names, NATIVE), made_rows(names, ALIGNED), degraded])
    plain = write_table(tmp_path / "plain.parquet", [made_rows(names, NATIVE)])
    out = tmp_path / "report"
    report([full], out=out, resamples=5)
    assert (out / "robustness.md").is_file()
    mine = [out / "notes.md", out / "figures" / "mine.png"]
    for path in mine:
        path.write_text("mine")

    report([plain], out=out, resamples=5)
    fresh = tmp_path / "fresh"
    report([plain], out=fresh, resamples=5)
    assert files(out) == files(fresh) | {"notes.md", "figures/mine.png"}
    assert not [name for name in files(fresh) if "robustness" in name or "aligned" in name]

    report([plain], out=out, resamples=5, page=False)
    assert not (out / "index.html").exists()
    assert [path.read_text() for path in mine] == ["mine", "mine"]


def test_a_list_cannot_reach_beyond_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    inside = [folder / name for name in ("old.md", "scores.parquet", "other/x.png", "figures/a/x.png")]
    outside = [tmp_path / "x.md", tmp_path / "figures" / "x.png"]
    for path in (*inside, *outside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    names = [path.relative_to(folder).as_posix() for path in inside]
    (folder / LIST).write_text(json.dumps([*names, "../x.md", str(outside[0]), "figures/../../x.md", 3]))
    leave_only([], folder)
    assert [path.exists() for path in (*inside, *outside)] == [False, True, True, True, True, True]
    assert json.loads((folder / LIST).read_text()) == []
    (folder / LIST).write_text("no list")
    leave_only([folder / "new.md"], folder)
    assert json.loads((folder / LIST).read_text()) == ["new.md"]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
