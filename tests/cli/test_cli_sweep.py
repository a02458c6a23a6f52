"""`labkit sweep`: what it shows, where it writes, what it refuses."""

import json

import pytest

from editing.presets.preset_files import preset
from labkit.cli.sweep import layer_range
from labkit.errors import InputError
from labkit.facts.records import write_jsonl
from labkit.models.loading import load
from labkit.pocket import demo_case
from tests.reference import is_interval

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def labkit(labkit, monkeypatch, tmp_path, own_cache):
    """The command line, in a folder of its own that holds one case."""
    monkeypatch.chdir(tmp_path)
    write_jsonl("cases.jsonl", [demo_case()])
    return labkit


def test_the_preset_is_written_shown_and_resumed(labkit, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    command = ["sweep", "--model", "pocket", "--cases", "cases.jsonl", "--layers", "0,1"]
    status, out, _ = labkit(*command, "--out", "run", "--json", "-")
    summary = json.loads(out)
    assert status == 0 and summary["written"].startswith(str(tmp_path / "cache"))
    found = preset(load("pocket"))
    assert (found.layer, list(found.layers)) == (
        summary["preset"]["layer"],
        summary["preset"]["layers"],
    )
    assert found.source.startswith("sweep of pocket")
    assert {row["layer"] for row in found.evidence} == {0, 1}
    assert all(is_interval(row) for row in found.evidence)
    layers = [path.name for path in (tmp_path / "run").iterdir() if path.is_dir()]
    assert sorted(layers) == ["layer-000", "layer-001"]
    status, out, _ = labkit(*command, "--out", "run")
    assert status == 0 and "preset written to" in out and "margin" in out
    assert len((tmp_path / "run" / "layer-000" / "cases.jsonl").read_text().splitlines()) == 1


def test_nothing_is_written_where_nothing_is_to_be_kept(labkit, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    command = ["sweep", "--model", "pocket", "--cases", "cases.jsonl", "--layers", "0", "--no-keep"]
    status, out, _ = labkit(*command)
    assert status == 0 and "preset written" not in out
    assert not (tmp_path / "cache" / "presets").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--layers", "three"], "InputError"),
        (["--layers", "5-2"], "InputError"),
        (["--layers", "0-99"], "LayerOutOfRange"),
        (["--method", "in_context"], "InputError"),
        (["--method", "romé"], "InputError"),
        (["--cases", "gone.jsonl"], "MissingFile"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(labkit, tmp_path, arguments, error):
    status, out, err = labkit("sweep", "--model", "pocket", "--cases", "cases.jsonl", *arguments)
    assert status == 1 and f"error: {error}" in err and "Traceback" not in err
    assert not out


def test_ranges_of_layers():
    assert layer_range("0-3") == [0, 1, 2, 3]
    assert layer_range("2, 4,6-7") == [2, 4, 6, 7]
    for wrong in ("", "-1", "1-", "a"):
        with pytest.raises(InputError):
            layer_range(wrong)
