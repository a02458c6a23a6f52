"""Files that are either there or not: written beside their place, then moved into it.

A reader, or the next run, never meets half a file. Whatever stops a write (a full disk, an
exception, Ctrl-C) leaves the target as it was and no temporary file behind. What a killed
process (kill -9, a power cut) leaves is named after that process, and removed by the next one
that writes beside it.
"""

import contextlib
import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from labkit.errors import OutputError

# What the operating system says when the trouble is the place written to. Other OSErrors (a
# refused connection, a missing input) are not about the output and pass through unchanged.
_OUTPUT_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
}
STALE = 86_400
"""Seconds after which a temporary file that nobody wrote to belongs to nobody."""

# Writers in compiled code (safetensors, torch) wrap the operating system's message.
_DISK_FULL = os.strerror(errno.ENOSPC)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn failures to write at `path` into `OutputError`s that name it.

    Raises:
        OutputError: In place of an exception that the operating system raised because of the
            place written to (disk full, read-only, no permission, name too long...).
    """
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        if number in _OUTPUT_ERRNOS:
            raise OutputError(f"cannot write {path}: {os.strerror(number)}") from error
        if _DISK_FULL in str(error):
            raise OutputError(f"cannot write {path}: {_DISK_FULL}") from error
        raise


def is_free(path: str | Path) -> bool:
    """Whether `path` does not exist, or is an empty folder."""
    path = Path(path)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def require_free(path: str | Path) -> None:
    """Refuse an output folder that is in use, before any work is done for it.

    Raises:
        OutputError: If `path` is a file, or a folder that holds something.
    """
    if not is_free(path):
        raise OutputError(f"{path} exists and is not an empty folder; choose another place")


def atomic_write(path: str | Path, content: str | bytes) -> Path:
    """Write a file in one step, replacing the one that is there.

    Args:
        path: The file. Its folder must exist.
        content: Text (written as UTF-8) or bytes.

    Returns:
        The path written.

    Raises:
        OutputError: If it could not be written; the previous file, if any, is still there.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_beside(path)
    with output_errors(path):
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist")
        sweep(path.parent)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Fill a temporary folder and move it into place when the block ends well.

    If the block raises anything (Ctrl-C included), the temporary folder and the parent
    folders made for it are removed, and the target is as it was.

    Example:
        >>> with atomic_folder("out/delta") as folder:
        ...     (folder / "delta.json").write_text("{}")

    Args:
        path: The folder to make. May exist if it is empty.

    Yields:
        A new folder beside `path`, on the same file system.

    Raises:
        OutputError: If `path` holds something already, or could not be written.
    """
    path = Path(path)
    with output_errors(path):
        require_free(path)
        made = [folder for folder in path.parents if not folder.exists()]
        temporary = temporary_beside(path)
        sweep(path.parent)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            for folder in made:  # innermost first; stops mattering once one is in use
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise


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
