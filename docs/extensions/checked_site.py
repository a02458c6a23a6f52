"""After a build: links within the site lead somewhere, and nothing comes from elsewhere."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
"""Elements whose address is fetched when a page is opened; of `link`, see `Page`."""
OUTSIDE = re.compile(r"(?:https?:)?//")
IN_STYLES = re.compile(r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")\s]+)")


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at the pages once they are written."""
    app.connect("build-finished", look, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Page(HTMLParser):
    """Ids, links and fetched addresses of a page."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take up one element."""
        values = {name: value for name, value in attrs if value is not None}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        if tag == "link" and values.get("rel") not in ("next", "prev", "canonical"):
            self.fetched.add(values.get("href", ""))
        if tag in FETCHED and FETCHED[tag] in values:
            self.fetched.add(values[FETCHED[tag]])


def look(app: Sphinx, failure: Exception | None) -> None:
    """Warn of every link that leads nowhere and of everything that would be fetched."""
    if failure is None and app.builder.format == "html":
        for problem in problems(Path(app.outdir)):
            logger.warning(problem)


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with a site, a line each."""
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in folder.rglob("*.html")}
    for path, page in sorted(pages.items()):
        where = path.relative_to(folder.resolve())
        for address in sorted(page.fetched):
            if OUTSIDE.match(address):
                yield f"{where} fetches {address}"
        for address in sorted(page.links | page.fetched):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or not address:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{where} links to {address}, which is not there"
                continue
            ids = pages[target].ids if target in pages else {parts.fragment}
            if parts.fragment and not {parts.fragment, unquote(parts.fragment)} & ids:
                yield f"{where} links to {address}, and nothing there has that name"
    for path in sorted(folder.rglob("*.css")):
        for address in IN_STYLES.findall(path.read_text("utf-8")):
            yield f"{path.relative_to(folder)} fetches {address}"
