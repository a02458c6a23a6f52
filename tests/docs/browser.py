"""Pages of the built site in a real browser: what they complain about and what they ask for."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from choreographer import Browser
from choreographer.errors import ChromeNotFoundError

OURS = ("file:", "data:", "blob:", "about:")
"""What a page may ask for: files beside it, and what it holds itself."""

ALL_DRAWN = """(async () => {
  const places = [...document.querySelectorAll(".lab-figure")];
  for (const place of places) {
    place.scrollIntoView();
    for (let i = 0; i < 300 && !place.querySelector(".main-svg"); i++)
      await new Promise((done) => setTimeout(done, 10));
  }
  const missing = places.filter((place) => !place.querySelector(".main-svg")).length;
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  window.scrollTo(0, 0);
  return JSON.stringify([missing, wide]);
})()"""
"""Scrolls to every figure; then how many were not drawn, and by how much the page is too wide."""


ALL_FOUND = """(async () => {
  const done = () => /Search finished/.test(document.querySelector("#search-results").innerText);
  for (let i = 0; i < 1000 && !done(); i++) await new Promise((go) => setTimeout(go, 10));
  return document.querySelectorAll("#search-results li").length;
})()"""
"""Waits for the search to end; then how many entries it lists."""


class Tab:
    """One page after another, each with what it complained about."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.complaints: list[str] = []

    async def begin(self) -> None:
        """Listen."""
        for name, told in {
            "Runtime.exceptionThrown": self._thrown,
            "Runtime.consoleAPICalled": self._said,
            "Log.entryAdded": self._logged,
            "Network.requestWillBeSent": self._asked,
        }.items():
            self.tab.subscribe(name, told)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")

    async def send(self, command: str, **values: Any) -> dict[str, Any]:
        """A command of the browser's protocol, and its result."""
        answer = await self.tab.send_command(command, params=values)
        assert "error" not in answer, answer
        return answer["result"]

    async def look_as(self, *, width: int, dark: bool) -> None:
        """From now on, in a window so wide, and in these colours."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self.send("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, page: Path) -> list[str]:
        """Everything that is wrong with a page once all of its figures are drawn."""
        self.complaints = []
        loaded = self.tab.subscribe_once("Page.loadEventFired")
        await self.send("Page.navigate", url=page.resolve().as_uri())
        await asyncio.wait_for(loaded, 60)
        found = await self.send("Runtime.evaluate", expression=ALL_DRAWN, awaitPromise=True)
        missing, wide = json.loads(found["result"]["value"])
        if missing:
            self.complaints.append(f"{missing} figures were not drawn")
        if wide > 0:
            self.complaints.append(f"{wide} pixels wider than the window")
        return self.complaints

    async def found(self, search: Path, words: str) -> int:
        """How many pages the search of the site lists for some words."""
        self.complaints = []
        loaded = self.tab.subscribe_once("Page.loadEventFired")
        await self.send("Page.navigate", url=f"{search.resolve().as_uri()}?q={quote_plus(words)}")
        await asyncio.wait_for(loaded, 60)
        answer = await self.send("Runtime.evaluate", expression=ALL_FOUND, awaitPromise=True)
        return int(answer["result"]["value"])

    async def _thrown(self, told: dict[str, Any]) -> None:
        self.complaints.append(str(told["params"]["exceptionDetails"]["exception"]))

    async def _said(self, told: dict[str, Any]) -> None:
        if told["params"]["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(told["params"]["args"]))

    async def _logged(self, told: dict[str, Any]) -> None:
        if told["params"]["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["params"]["entry"]["text"])

    async def _asked(self, told: dict[str, Any]) -> None:
        url = told["params"]["request"]["url"]
        if not url.startswith(OURS):
            self.complaints.append(f"asks for {url}")


@asynccontextmanager
async def a_tab() -> AsyncIterator[Tab]:
    """A browser with one tab, closed afterwards.

    Raises:
        ChromeNotFoundError: Where there is no Chromium.
    """
    async with Browser(headless=True) as browser:
        tab = Tab(await browser.create_tab())
        await tab.begin()
        yield tab


def complaints(pages: Iterable[Path], *, width: int, dark: bool) -> dict[str, list[str]]:
    """By page, what is wrong with it; pages that are as they should be are left out."""

    async def walk() -> dict[str, list[str]]:
        async with a_tab() as tab:
            await tab.look_as(width=width, dark=dark)
            return {str(page): found for page in pages if (found := await tab.open(page))}

    return asyncio.run(walk())


def search(page: Path, words: str) -> tuple[int, list[str]]:
    """How many entries the site's search lists, and what the page complained about."""

    async def ask() -> tuple[int, list[str]]:
        async with a_tab() as tab:
            return await tab.found(page, words), tab.complaints

    return asyncio.run(ask())


def no_browser() -> bool:
    """Whether this machine has no Chromium."""

    async def start() -> None:
        async with a_tab():
            pass

    try:
        asyncio.run(start())
    except ChromeNotFoundError:
        return True
    return False
