"""What comes from outside reads in a Markdown table as it is, and breaks nothing around it."""

from html import unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apn.markdown import Marked, as_text, table_row
from apn.words import printable

NAMES = [
    "a|b",
    r"a\|b",
    "<img src=x onerror=alert(1)>",
    "*bold* **bold** _bold_ __init__.py",
    "`code`",
    "two\nlines\r\n| of | them |",
    "[a link](https://example.org) ![a picture](x.png)",
    "~~gone~~",
    "&lt; &#60; AT&T",
    "back\\slash\\",
    r"C:\*\new",
]


def shown(cells: list[str]) -> list[str]:
    """What a reader of Markdown sees in the cells of a row."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    lines = [table_row(["column"] * len(cells)), table_row(["---"] * len(cells)), table_row(cells)]
    html = markdown.render("\n".join(lines)).partition("<tbody>")[2].partition("</tbody>")[0]
    assert "\n".join(lines).count("\n") == 2
    return [unescape(cell.partition("</td>")[0]) for cell in html.split("<td>")[1:]]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_reads_as_it_is(name: str) -> None:
    assert shown([name, "after"]) == [printable(name).strip(), "after"]


@given(st.text(st.characters(codec="ascii", categories=["P", "S", "L", "N"]), min_size=1, max_size=12))
@example("\\`")
def test_any_name_reads_as_it_is(name: str) -> None:
    assert shown([name, "after"]) == [name, "after"]


def test_names_without_a_sign_that_means_something_are_left_alone() -> None:
    for name in ("stable_diffusion_v1_4", "ADM-256 (real)", "0.940 (0.906 to 0.965)", "größe.png", "–"):
        assert as_text(name) == name


def test_our_own_markup_stays() -> None:
    assert table_row(["a*b", Marked("**0.940**")]) == r"| a\*b | **0.940** |"
