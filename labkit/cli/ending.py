"""How a command line ends: an exit status, and one line on standard error unless all is well.

| status | what happened |
|---|---|
| 0 | what was asked for |
| 1 | the lab refused, or could not do it: a named error says why |
| 2 | the command line is not one: an unknown option, a number out of its range |
| 70 | nobody foresaw it: the line names a file with the traceback |
| 130 | Ctrl-C |
"""

import contextlib
import errno
import os
import platform
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import typer

from labkit.errors import InputError, LabkitError

DONE, REFUSED, USAGE, UNFORESEEN, INTERRUPTED = 0, 1, 2, 70, 130

PLACES = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""What a system says of a place that someone named, not of a program."""

LONGEST = 1000
"""Letters of a message that are shown: what it quotes may be a whole book."""

# Typer does not hand on the base of its own errors by name.
_UsageError: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)


def run(app: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Run a command line.

    Args:
        app: The application.
        arguments: The arguments after its name.

    Returns:
        The exit status.
    """
    _as_lines()
    try:
        _require_text(arguments)
        return app(args=list(arguments), prog_name="labkit", standalone_mode=False) or DONE
    except LabkitError as error:
        _say(f"error: {type(error).__name__}: {error}")
        return REFUSED
    except _UsageError as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # the help has been shown
            _say(f"error: {error.format_message()}{_see(error)}")  # type: ignore[attr-defined]
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in PLACES and error.filename:
            _say(f"error: {os.strerror(error.errno or 0)}: {error.filename}")
            return REFUSED
        if _is_out_of_memory(error):
            _say(
                f"error: OutOfMemory: there is not enough memory for this ({_first_line(error)}): "
                "ask for less, or take a smaller model"
            )
            return REFUSED
        _say(
            f"error: unforeseen {type(error).__name__}: {_first_line(error)}; "
            f"{_kept(error, arguments)}"
        )
        return UNFORESEEN


def main(app: Callable[..., Any], arguments: Sequence[str]) -> None:
    """Run a command line and leave the process with its exit status."""
    status = run(app, arguments)
    if status == INTERRUPTED:  # typer turns Ctrl-C into this status
        _say("interrupted; nothing was left half-written")
    if status != DONE:
        sys.exit(status)


def _as_lines() -> None:
    """Warnings as one line each; text that the terminal has no letters for as escapes."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {_one_line(str(message))}\n"
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _require_text(arguments: Sequence[str]) -> None:
    """Refuse what is no text, before anything is done with it.

    Raises:
        InputError: If an argument holds bytes that are not UTF-8.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{argument!a} is not UTF-8 text: write it as UTF-8") from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up: Python's, numpy's or torch's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "allocate memory" in said or "Storage size calculation overflowed" in said
    )


def _kept(error: BaseException, arguments: Sequence[str]) -> str:
    """Where the traceback is, as a half-sentence."""
    from labkit import __version__

    told = "".join(traceback.format_exception(error))
    text = (
        f"labkit {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"labkit {shlex.join(arguments)}\n\n{told}"
    )
    try:
        handle, path = tempfile.mkstemp(prefix="labkit-traceback-", suffix=".txt", text=True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as reason:
        return f"its traceback could not be written: {_first_line(reason)}"
    return f"the traceback is in {path}"


def _first_line(error: BaseException) -> str:
    """What an error says, to the first end of a line."""
    said = str(error).strip()
    return said.splitlines()[0][:200] if said else "no message"


def _see(error: Any) -> str:
    """Which help says more."""
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    return f" (see {path} --help)" if path else ""


def _say(line: str) -> None:
    """One line on standard error; a closed pipe is ignored."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(_one_line(line) + "\n")
        sys.stderr.flush()


def _one_line(said: str) -> str:
    """Without ends of lines and control codes, and not longer than a person reads."""
    flat = " ".join(part.strip() for part in said.splitlines() if part.strip())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in flat)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
