"""The web page: the files of page/ put together into one document, which needs no further request.

Its style and scripts stand in it, so that a Content-Security-Policy can name them by their hashes.
"""

import re
from importlib.resources import files

_NAMED = re.compile(r'<link rel="stylesheet" href="(?P<style>[^"]+)">|<script src="(?P<script>[^"]+)"></script>')


def one_document() -> str:
    """page.html with each style and script that it names in the place of its name."""
    folder = files(__package__) / "page"

    def content(named: re.Match[str]) -> str:
        tag = named.lastgroup
        assert tag is not None
        return f"<{tag}>\n{(folder / named[tag]).read_text('utf-8')}</{tag}>"

    return _NAMED.sub(content, (folder / "page.html").read_text("utf-8"))
