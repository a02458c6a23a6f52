"""What a notebook shows of an interrupt, or of an error that the lab names."""

import sys

import pytest

from labkit.errors import InputError
from labkit.notebook_errors import shorten_in_notebooks


def deep(n, error):
    """Raise an error many calls below, while another one is being handled."""
    if n:
        return deep(n - 1, error)
    try:
        return 1 / 0
    except ZeroDivisionError as reason:
        raise error from reason


@pytest.fixture
def shell(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    shell.user_ns["deep"] = deep
    shell.colors = "nocolor"
    shorten_in_notebooks()
    return shell


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("layer 9: choose one of 0..5")])
def test_only_the_cells_own_lines_are_shown(shell, capsys, error):
    shell.user_ns["error"] = error
    result = shell.run_cell("first = 1\n\ndeep(30, error)")
    shown = capsys.readouterr().out
    assert result.error_in_exec is error
    assert "deep(30, error)" in shown and str(error) in shown and type(error).__name__ in shown
    assert "deep(n - 1, error)" not in shown and "ZeroDivisionError" not in shown
    assert len(shown.splitlines()) < 12
    # All of it is still there, for %tb.
    assert sys.last_value is error and isinstance(
        error.__cause__ or error.__context__, ZeroDivisionError
    )


def test_other_errors_are_shown_as_ever(shell, capsys):
    shell.run_cell("deep(3, ValueError('x'))")
    assert "deep(n - 1, error)" in capsys.readouterr().out
