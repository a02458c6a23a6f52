"""A cache that is damaged, full, read-only or left by a killed process never does harm."""

import dataclasses
import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch

from editing.edits.applying import applied
from editing.presets.preset_files import Preset, preset, preset_file, write_preset
from labkit import cache
from labkit.errors import MalformedRecord
from labkit.files import atomic_write
from labkit.models import registry
from labkit.models.in_effect import fingerprint
from labkit.temporary import sweep, temporary_beside
from tests.laws.cached import (
    CACHED,
    delta_of,
    features,
    files,
    moments,
    switch_to_empty_caches,
    triggers,
)


@pytest.fixture
def model(tiny):
    model = tiny("llama")
    yield model
    assert fingerprint(model.hf, model.tokenizer) == model.fingerprint == model.in_effect
    assert not model.is_patched


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Switches to an empty cache."""
    return switch_to_empty_caches(tmp_path, monkeypatch)


def swept(layer):
    return Preset(layer=layer, layers=(0, 1), source="a sweep", measured=True)


# --- damage -------------------------------------------------------------------------------


def flip(path, where):
    """Change one byte, at a share of the file's length."""
    data = bytearray(path.read_bytes())
    data[min(int(where * len(data)), len(data) - 1)] ^= 16
    path.write_bytes(data)


def zero(path):
    """The numbers become zeros, the header stays."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + bytes(len(data) - start))


DAMAGE = {
    "first byte": lambda path: flip(path, 0),
    "header": lambda path: flip(path, 60 / path.stat().st_size),
    "middle": lambda path: flip(path, 0.5),
    "last byte": lambda path: flip(path, 1),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "zeros": zero,
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("what", CACHED)
@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_found_named_and_measured_again(model, corpus, fresh, caplog, what, how):
    folder = fresh()
    before = CACHED[what](model, corpus)
    path = files(folder)[-1]
    for damaged in files(folder):
        DAMAGE[how](damaged)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(CACHED[what](model, corpus), before)
    assert str(path) in caplog.text and "damaged" in caplog.text
    caplog.clear()
    assert torch.equal(CACHED[what](model, corpus), before)
    assert not caplog.records, "what was measured again is sound"


@pytest.mark.parametrize("what", CACHED)
def test_two_files_that_changed_places_are_found(model, corpus, fresh, caplog, what):
    folder = fresh()
    outside = CACHED[what](model, corpus)
    own = set(files(folder))
    with applied(model, delta_of(model)):
        inside = CACHED[what](model, corpus)
        others = set(files(folder)) - own
    for one, other in zip(sorted(own), sorted(others), strict=True):
        shutil.move(one, folder / "aside")
        shutil.move(other, one)
        shutil.move(folder / "aside", other)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(CACHED[what](model, corpus), outside)
        with applied(model, delta_of(model)):
            assert torch.equal(CACHED[what](model, corpus), inside)
    assert caplog.text.count("damaged") >= 2


@pytest.mark.parametrize("change", [('"layer": 2', '"layer": 1'), ("a sweep", "a guess")])
def test_a_damaged_preset_is_named(model, fresh, change):
    path = write_preset(model, "rome", swept(2))
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(MalformedRecord, match=path.name):
        preset(model)
    path.unlink()
    with applied(model, delta_of(model)):
        other = write_preset(model, "rome", swept(0))
    shutil.move(other, preset_file(model))
    with pytest.raises(MalformedRecord, match=path.name):
        preset(model)


# --- a cache that cannot be used ----------------------------------------------------------


@pytest.mark.parametrize("what", CACHED)
@pytest.mark.parametrize("trouble", ["no folder", "full", "read-only"])
def test_without_a_usable_cache_the_work_goes_on_after_one_warning(
    model, corpus, fresh, caplog, monkeypatch, tmp_path, what, trouble
):
    before = CACHED[what](model, corpus)
    folder = fresh()
    if trouble == "no folder":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "file" / "cache"))
    else:
        folder.mkdir()
        error = OSError(*{"full": (28, "No space left"), "read-only": (30, "Read-only")}[trouble])

        def refuse(*given, **named):
            raise error

        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(CACHED[what](model, corpus), before)
    assert len(caplog.records) == 1 and "going on without it" in caplog.text


def test_what_was_used_longest_ago_makes_room_and_weights_stay(model, corpus, fresh):
    folder = fresh()
    for ask in (moments, triggers, features):
        ask(model, corpus)
    (folder / "models").mkdir()
    (folder / "models" / "weights.safetensors").write_bytes(bytes(1000))
    write_preset(model, "rome", swept(1))
    (read,) = (folder / "features").iterdir()
    for path in files(folder):
        os.utime(path, (1, 1))
    features(model, corpus)  # used now
    cache.forget_oldest(kept=1000 + read.stat().st_size + preset_file(model).stat().st_size)
    assert [path.parent.name for path in files(folder)] == ["features", "models", "presets"]
    cache.forget_oldest(kept=0)
    assert [path.parent.name for path in files(folder)] == ["models", "presets"]


def test_every_field_of_a_place_changes_its_name(model, fresh):
    names = {
        cache.place(other, kind, number, parts)
        for other in (model, dataclasses.replace(model, prepend_bos=not model.prepend_bos))
        for kind in ("moments", "triggers")
        for number in (1, 2)
        for parts in ({"layer": 1}, {"layer": 2}, {"layers": 1})
    }
    assert len(names) == 24


# --- what killed processes leave ----------------------------------------------------------


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    living = temporary_beside(tmp_path / "own.json")
    gone = living.name.replace(f".{os.getpid()}@", f".{dead.pid}@")
    elsewhere = living.name.replace("@", "@another-machine-")
    of_old = ".own.json.0123456789ab.tmp"
    for name in (living.name, gone, elsewhere, of_old, ".notes.tmp", "own.tmp"):
        (tmp_path / name).write_text("half a file")
    folder = tmp_path / gone.replace("own", "run")
    folder.mkdir()
    (folder / "part").write_text("")
    atomic_write(tmp_path / "other.json", "{}")
    kept = {living.name, elsewhere, of_old, ".notes.tmp", "own.tmp", "other.json"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    for name in (elsewhere, of_old):
        os.utime(tmp_path / name, (1, 1))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept - {elsewhere, of_old}


def test_a_load_sweeps_the_whole_cache(fresh):
    folder = fresh()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = temporary_beside(folder / "gguf" / "weights").name.replace(
        f".{os.getpid()}@", f".{dead.pid}@"
    )
    for name in ("gguf", "models", "features"):
        (folder / name / left).mkdir(parents=True)
    registry.resolve("pocket")
    assert not [path for path in folder.rglob("*.tmp")]
