"""What a run says in the terminal: every character of a path, and lines that hang together."""

import io

import pytest
from rich.console import Console

from apn.runconsole import say


def said(text: str, *, terminal: bool) -> list[str]:
    file = io.StringIO()
    say(Console(file=file, force_terminal=terminal, no_color=True, highlight=False, width=40), text)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_path_is_no_markup(terminal: bool) -> None:
    assert said("bad [bold]a[/x] :cat:\x1b[2J", terminal=terminal) == [r"bad [bold]a[/x] :cat:\x1b[2J"]


def test_a_long_line_hangs_on_a_terminal_and_stays_one_in_a_file() -> None:
    text = "validation: images of one class have no AUC, so there will be no best/"
    assert said(text, terminal=True) == [
        "validation: images of one class have no",
        "  AUC, so there will be no best/",
    ]
    assert said(text, terminal=False) == [text]
