"""How long work tells how far it is: one callback, and a bar where nobody handed one over.

Everything that takes long has a parameter `progress`. In a notebook that has called
`labkit.use_in_notebooks()`, a cell that runs for more than a moment shows a bar by itself;
elsewhere work without a callback is silent.
"""

import html
import time
from collections.abc import Callable
from typing import Any

Progress = Callable[[str, float | None], None]
"""Called with what is being done and the share that is done, 0..1, or None if that is unknown."""

PATIENCE = 2.0
"""Seconds that a cell may take before it shows a bar."""

EVERY = 0.2
"""Seconds between two looks of a bar, at least."""


def _silent(what: str, share: float | None) -> None:
    """Nobody asked."""


class _Usual:
    """What work tells that nobody asked: a setting of the display, as plotly's renderer is."""

    told: Progress = staticmethod(_silent)


_usual = _Usual()


def listener(progress: Progress | None) -> Progress:
    """The callback that was handed over; without one, the notebook's bar, or nothing."""
    return _usual.told if progress is None else progress


def part_of(progress: Progress | None, start: float, size: float, before: str = "") -> Progress:
    """Progress of a part of some work, told as progress of the whole.

    Args:
        progress: Told of the whole.
        start: Share of the whole that is done when the part begins, 0..1.
        size: The part's share of the whole, 0..1.
        before: Put before what the part says it does.
    """
    told = listener(progress)
    return lambda what, share: told(before + what, start + size * (share or 0.0))


def onwards(progress: Progress | None) -> Progress:
    """Progress that never goes back, whatever the parts of the work count from."""
    told = listener(progress)
    furthest = 0.0

    def forward(what: str, share: float | None) -> None:
        nonlocal furthest
        furthest = max(furthest, min(1.0, share or 0.0))
        told(what, furthest)

    return forward


class CellBar:
    """One line with a bar below a notebook's cell, from its third second to its end."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A cell starts."""
        self._since = time.monotonic()
        self._looked = 0.0
        self._handle: Any = None

    def __call__(self, what: str, share: float | None) -> None:
        """Show how far it is, unless it has just been shown."""
        now = time.monotonic()
        if now - self._since < PATIENCE or now - self._looked < EVERY:
            return
        self._looked = now
        self._show(bar_html(what, share, now - self._since))

    def end(self) -> None:
        """The cell is done: its output stays, the bar does not."""
        if self._handle is not None:
            self._show("")
        self._handle = None

    def _show(self, text: str) -> None:
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(text), display_id=True)
        else:
            self._handle.update(HTML(text))


def bar_html(what: str, share: float | None, seconds: float) -> str:
    """A bar, what is being done, and since when."""
    value = "" if share is None else f' value="{min(1.0, max(0.0, share)):.3f}"'
    minutes, rest = divmod(int(seconds), 60)
    return (
        f'<progress max="1"{value} style="width:16em"></progress> '
        f"{html.escape(what)} <small>{minutes}:{rest:02d}</small>"
    )


def show_in_notebooks() -> None:
    """From now on, cells of this notebook show a bar; elsewhere nothing happens.

    Called twice, it does the work of once.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None or isinstance(_usual.told, CellBar):
        return
    bar = CellBar()
    _usual.told = bar
    shell.events.register("pre_run_cell", lambda *_: bar.begin())
    shell.events.register("post_run_cell", lambda *_: bar.end())
