"""Files that are either there or not: written beside their place, then moved into it.

A reader, or the next run, never meets half a file. Whatever stops a write (a full disk, an
exception, Ctrl-C) leaves the target as it was and no temporary file behind. What a killed
process (kill -9, a power cut) leaves is named after that process, and removed by the next one
that writes beside it.

Links are followed, and what is no regular file (a pipe, a device) is written straight through.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from labkit.errors import OutputError
from labkit.temporary import sweep, temporary_beside

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
    errno.ELOOP,
    errno.EPIPE,
    errno.ETXTBSY,
}

DEVICES = ("/dev/", "/proc/")
# Writers in compiled code (safetensors, torch) wrap the operating system's message.
_DISK_FULL = os.strerror(errno.ENOSPC)


@contextlib.contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
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
    """Whether `path` does not exist, or is an empty folder.

    Raises:
        OutputError: If that cannot be found out: a name too long, no permission to look.
    """
    path = Path(path)
    with output_errors(path):
        try:
            kind = os.stat(path).st_mode
        except FileNotFoundError:
            return not path.is_symlink()
        return stat.S_ISDIR(kind) and not any(path.iterdir())


def require_free(path: str | Path) -> None:
    """Refuse an output folder that is in use, before any work is done for it.

    Raises:
        OutputError: If `path` is a file, or a folder that holds something; if it is the folder
            that one stands in, or no folder could be made there.
    """
    if not str(path).strip():
        raise OutputError("the output folder has no name; choose one")
    if not is_free(path):
        raise OutputError(f"{path} exists and is not an empty folder; choose another place")
    with output_errors(path):
        if os.path.realpath(path) == os.path.realpath("."):
            raise OutputError(f"{path} is the folder that you stand in; name a new one")
        _require_name(Path(path))
        above = next(folder for folder in Path(path).absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise OutputError(f"cannot write {path}: {above} is not a folder")
        _try_to_make_something(above, path)


def require_writable(path: str | Path) -> None:
    """Refuse an output file that could not be written, before any work is done for it.

    Raises:
        OutputError: If its folder does not exist, it is a folder itself, or permission lacks.
    """
    if not str(path).strip():
        raise OutputError("the output file has no name; choose one")
    with output_errors(path):
        target = _target(Path(path))
        if target.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file")
        _require_name(target)
        folder = target.parent
        if not folder.is_dir():
            raise OutputError(f"cannot write {path}: the folder {folder} does not exist")
        if _is_replaced(target):
            _try_to_make_something(folder, path)
        elif not os.access(target, os.W_OK):
            raise OutputError(f"cannot write {path}: no permission to write it")


def _try_to_make_something(folder: Path, path: str | Path) -> None:
    """Refuse a place where nothing can be made, by making something.

    Permissions do not tell: a file system may be read-only, or none at all (`/proc`).

    Raises:
        OutputError: If nothing could be made.
    """
    trial = temporary_beside(folder / "trial")
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {folder} says {error.strerror}") from error


def _require_name(path: Path) -> None:
    """Refuse a name that no file system takes; a look at it raises what the system says."""
    for part in (path, *path.parents):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(part)


def _target(path: Path) -> Path:
    """Where a link leads, also one that leads to nothing yet; other paths as they are."""
    if not path.is_symlink() or str(path.absolute()).startswith(DEVICES):
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OutputError(f"cannot write {path}: it is a symbolic link that points to itself")
    return target


def _is_replaced(path: Path) -> bool:
    """Whether writing puts a new file in the place; not for pipes and devices."""
    if str(path.absolute()).startswith(DEVICES):
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


def atomic_write(path: str | Path, content: str | bytes) -> Path:
    """Write a file in one step, replacing the one that is there.

    A link is followed. What is no regular file, such as a pipe, is written straight through.

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
    with output_errors(path):
        target = _target(path)
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {path}: the folder {target.parent} does not exist")
        if not _is_replaced(target):
            with target.open("wb", buffering=0) as file:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
            return path
        temporary = temporary_beside(target)
        sweep(target.parent)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
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
        path = _target(path)
        made = [folder for folder in path.parents if not folder.exists()]
        temporary = temporary_beside(path)
        sweep(path.parent)
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _usual_modes(temporary)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            for folder in made:  # innermost first; stops mattering once one is in use
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise


def _usual_modes(folder: Path) -> None:
    """Let files be read by whom the user's umask lets read, whatever their writer chose.

    Writers in compiled code (safetensors) keep theirs to the owner.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            usual = stat.S_IMODE(path.parent.stat().st_mode) & 0o666
            if stat.S_IMODE(path.stat().st_mode) & 0o666 != usual:
                path.chmod(usual)
