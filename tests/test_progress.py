"""Progress is told by one callback; a notebook shows it by itself."""

import pytest

from labkit import progress
from labkit.progress import CellBar, bar_html, listener, onwards, part_of


def test_parts_are_told_as_shares_of_the_whole():
    told = []
    whole = lambda what, share: told.append((what, share))  # noqa: E731
    half = part_of(whole, 0.5, 0.5, "second: ")
    half("reading", 0.0)
    part_of(half, 0.5, 0.5)("writing", 1.0)
    half("waiting", None)
    assert told == [("second: reading", 0.5), ("second: writing", 1.0), ("second: waiting", 0.5)]


def test_progress_does_not_go_back():
    told = []
    forward = onwards(lambda what, share: told.append(share))
    for share in (0.2, None, 0.1, 0.6, 1.7):
        forward("", share)
    assert told == [0.2, 0.2, 0.2, 0.6, 1.0]


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_bar_comes_after_two_seconds_and_goes_with_the_cell(clock, monkeypatch):
    shown = []
    monkeypatch.setattr(CellBar, "_show", lambda self, text: shown.append(text))
    bar = CellBar()
    bar.begin()
    bar("tracing", 0.1)
    assert shown == []
    clock[0] += 2.5
    bar("tracing", 0.4)
    bar("tracing", 0.41)  # a moment later: not shown again
    assert len(shown) == 1 and 'value="0.400"' in shown[0] and "tracing" in shown[0]
    bar._handle = object()
    bar.end()
    assert shown[-1] == "" and bar._handle is None
    bar.begin()
    bar("quick", 0.9)
    assert len(shown) == 2


def test_words_of_users_are_not_markup():
    assert "<b>" not in bar_html("fact <b>", None, 61.0)
    assert "value" not in bar_html("unknown", None, 61.0) and "1:01" in bar_html("", None, 61.0)


def test_in_a_notebook_work_without_a_callback_is_shown(monkeypatch):
    """`use_in_notebooks` twice registers once; a callback that is handed over comes first."""
    registered = []

    class Events:
        def register(self, event, function):
            registered.append(event)

    class Shell:
        events = Events()

    monkeypatch.setattr("IPython.get_ipython", Shell)
    silent = listener(None)
    monkeypatch.setattr(progress._usual, "told", silent, raising=False)
    progress.show_in_notebooks()
    progress.show_in_notebooks()
    assert registered == ["pre_run_cell", "post_run_cell"]
    assert isinstance(listener(None), CellBar)
    own = lambda what, share: None  # noqa: E731
    assert listener(own) is own
