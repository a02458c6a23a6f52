"""In a notebook, an interrupt or a named error is shown at the lines of the cell itself.

What a user has to see is what was refused, and which line of theirs asked for it. An interrupt
falls anywhere, mostly deep in another library, and would be pages long. `%tb` shows all of it.
"""

import sys
from types import TracebackType
from typing import Any

from labkit.errors import LabkitError


def shorten_in_notebooks() -> None:
    """From now on; elsewhere nothing happens."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((KeyboardInterrupt, LabkitError), _show)


def _show(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> None:
    """Show an error without the library's own frames, and without the errors that it came of."""
    cause, suppressed = error.__cause__, error.__suppress_context__
    error.__cause__ = None  # hides the context too
    try:
        shell.showtraceback((kind, error, users_own(trace)), tb_offset=tb_offset)
    finally:
        error.__cause__, error.__suppress_context__ = cause, suppressed
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace


def users_own(trace: TracebackType | None) -> TracebackType | None:
    """The first frame (the shell's, which it leaves out itself) and those of cells."""
    frames: list[TracebackType] = []
    while trace is not None:
        if not frames or trace.tb_frame.f_globals.get("__name__") == "__main__":
            frames.append(trace)
        trace = trace.tb_next
    kept = None
    for each in reversed(frames):
        kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept
