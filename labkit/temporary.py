"""Temporary files: named after who writes them, and swept up when nobody does any more."""

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

STALE = 86_400
"""Seconds after which a temporary file that nobody wrote to belongs to nobody."""


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, gone at the end; if the process is killed, with the next one."""
    sweep(path.parent)
    folder = temporary_beside(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_beside(path: Path) -> Path:
    """A hidden name next to `path` that nobody else uses, and that says who uses it."""
    name = os.fsencode(path.name)[:100].decode(errors="ignore")
    return path.with_name(f".{name}.{uuid4().hex[:12]}.{os.getpid()}@{_host()}.tmp")


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder.

    Those of a process of this machine that runs no more; those of another machine (or of
    version 0.5, which did not say whose they are) when nobody wrote to them for a day.
    """
    try:
        found = [entry for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name)]
    except OSError:  # there is no such folder, or it may not be read
        return
    for entry in found:
        with contextlib.suppress(OSError):
            if _is_stale(entry):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}(?:\.(?P<pid>\d+)@(?P<host>[\w-]*))?\.tmp")


def _is_stale(entry: "os.DirEntry[str]") -> bool:
    """Whether nobody works on a temporary file any more."""
    named = _TEMPORARY.fullmatch(entry.name)
    assert named is not None
    # Where there is no POSIX, asking after a process would end it.
    if named["pid"] is None or named["host"] != _host() or os.name != "posix":
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE
    try:
        os.kill(int(named["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # somebody else's, and running
        return False
    return False


def _host() -> str:
    """Name of this machine, as far as it can stand in a file's name."""
    return re.sub(r"[^\w-]", "", socket.gethostname())[:40]
