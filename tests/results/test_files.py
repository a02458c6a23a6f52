"""Files are there whole or not at all, under the modes that a user's umask asks for."""

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from labkit.errors import OutputError
from labkit.files import (
    atomic_folder,
    atomic_write,
    require_free,
    require_writable,
)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_the_umask_whoever_writes(umask):
    before = os.umask(umask)
    try:
        with atomic_folder("out") as folder:
            (folder / "inner").mkdir()
            save_file({"a": torch.zeros(2)}, folder / "inner" / "w.safetensors")
            (folder / "text").write_text("x")
        atomic_write("file", "x")
    finally:
        os.umask(before)
    for name in ("out/inner/w.safetensors", "out/text", "file"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o666 & ~umask, name


def test_a_folder_is_put_where_a_link_leads():
    Path("far").mkdir()
    Path("link").symlink_to("far")
    with atomic_folder("link") as folder:
        (folder / "x").write_text("x")
    assert Path("link").is_symlink() and Path("far/x").is_file()


def test_long_names_in_any_script_fit():
    for letter in ("n", "é", "日", "🦙"):
        name = letter * (250 // len(letter.encode()))
        atomic_write(name, "x")
        assert Path(name).read_text() == "x"
    for check in (require_free, require_writable):
        with pytest.raises(OutputError, match="too long"):
            check("n" * 300)


@pytest.mark.parametrize("place", [".", "", "file", "file/x", "used", "/proc/x/y"])
def test_a_place_that_takes_nothing_is_refused_before_the_work(place):
    Path("file").write_text("x")
    Path("used").mkdir()
    Path("used/x").write_text("x")
    before = sorted(Path().rglob("*"))
    with pytest.raises(OutputError):
        require_free(place)
    assert sorted(Path().rglob("*")) == before
