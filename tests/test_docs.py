"""What README and docs/ list must be what there is."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from apn.detection import Detection
from apn.rows import Filed

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "demo" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SIZES = {"MiB": 2**20}


def rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table under a heading of a page of docs/, without its head."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        name, _, place = target.partition("#")
        there = page.parent / name if name else page
        assert there.is_file(), target
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE) if place else []
        assert not place or place in map(anchor, headings), target


def test_the_map_of_files_has_every_module():
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Map of files\n")[1].replace("\\", "")
    for file in (ROOT / "apn").glob("*.py"):
        assert file.name in shown, file
    for folder in ("data", "models"):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"| apn/{folder}/ |"))
        missing = {file.stem for file in (ROOT / "apn" / folder).glob("*.py")} - set(re.findall(r"\w+", line))
        assert missing == {"__init__"}, folder
    for folder, files in (("bench", "*.py"), ("docs", "*.md")):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"| {folder}/"))
        known = set(re.findall(r"[\w-]+", line.replace("model card", "model-card")))
        assert not {file.stem for file in (ROOT / folder).glob(files)} - known, folder


def test_what_is_to_be_installed_can_be_typed_in_every_shell():
    """zsh, that of macOS, takes bare brackets for a pattern; cmd of Windows, single quotes for a part of the name."""
    texts = {path: path.read_text(encoding="utf-8") for path in [*PAGES, *sorted((ROOT / "apn").rglob("*.py"))]}
    told = [
        (path, extra) for path, text in texts.items() for extra in re.findall(r"pip install (?:-e )?(\S*\[.)", text)
    ]
    assert len(told) > 10
    assert [one for one in told if not re.match(r'"(apn|\.)\[', one[1])] == []


def test_the_row_of_an_image_is_documented():
    listed = [name for row in rows("server.md", "The row of an image") for name in names(row[0])]
    assert sorted(listed) == sorted([*(field.name for field in fields(Detection)), *Filed._fields])


def test_settings_of_the_server_are_documented():
    settings = pytest.importorskip("apn.server.settings", exc_type=ImportError).ServerSettings
    defaults = {}
    for row in rows("server.md", "Settings"):
        values = re.split(r", (?=\d+ |0)", row[1])
        defaults |= dict(zip(names(row[0]), values * len(names(row[0])) if len(values) == 1 else values, strict=True))
    by_option = {"host", "port", "token", "insecure"}
    assert set(defaults) == settings.model_fields.keys() - by_option
    for name, shown in defaults.items():
        number, _, unit = shown.replace(",", "").partition(" ")
        expected = {"none": (), "false": False}.get(number)
        expected = float(number) * SIZES.get(unit, 1) if expected is None else expected
        assert settings.model_fields[name].default == expected, name
