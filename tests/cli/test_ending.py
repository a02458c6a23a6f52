"""How a command line ends: one line and a status, whatever happens; and what it leaves."""

import io
import json
import os
import re
import stat
import threading
from pathlib import Path

import pytest
import typer
from rich.console import Console

from labkit import __version__, cli
from labkit.cli import ending
from labkit.cli.command import columns
from labkit.errors import InputError
from labkit.facts.records import write_jsonl
from labkit.pocket import demo_case, facts
from labkit.results.runs import RunDirectory

pytestmark = pytest.mark.usefixtures("unchecked", "own_cache")

REWRITE = demo_case().rewrite
FACT = ("--model", "pocket", "--prompt", REWRITE.prompt, "--subject", REWRITE.subject)
PREDICT = ("predict", "pocket", "the", "--k", 2)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def raising(error):
    def load(*_):
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (ValueError("what [/b]\nnobody\nforesaw"), 70, "unforeseen ValueError: what [/b]; the"),
        (RecursionError(), 70, "unforeseen RecursionError: no message"),
        (MemoryError(), 1, "OutOfMemory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 1, "OutOfMemory"),
        (OSError(36, "File name too long", "n" * 300), 1, "File name too long: nnn"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_whatever_happens_is_one_line(labkit, monkeypatch, tmp_path, error, status, says):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("labkit.cli.command.ModelOptions.load", raising(error))
    found, out, err = labkit(*PREDICT)
    assert (found, out) == (status, "") and says in err
    assert len(err.splitlines()) == 1 and "Traceback" not in err
    kept = list(tmp_path.glob("labkit-traceback-*"))
    assert len(kept) == (status == ending.UNFORESEEN)
    if kept:
        assert str(kept[0]) in err and "Traceback" in kept[0].read_text()
        assert "labkit predict pocket the --k 2" in kept[0].read_text()


def test_bytes_that_are_no_text_are_refused(labkit):
    status, _, err = labkit("predict", "pocket", "caf\udce9")
    assert status == 1 and "UTF-8" in err and len(err.splitlines()) == 1


def test_the_version(labkit):
    assert labkit("--version") == (0, f"labkit {__version__}\n", "")


def test_text_is_no_markup(labkit, monkeypatch):
    for prompt in ("see [/x]", "[red]is[/red]", ":smile:"):
        status, out, err = labkit("predict", "pocket", prompt)
        assert status == 0 and prompt in out, err


# --- where --json goes --------------------------------------------------------------------


def test_json_follows_a_link(labkit, tmp_path):
    Path("target").write_text("old")
    Path("target").chmod(0o640)
    Path("link").symlink_to("target")
    Path("new").symlink_to("made")
    for name, place in (("link", "target"), ("new", "made")):
        assert labkit(*PREDICT, "--json", name)[0] == 0
        assert Path(name).is_symlink() and len(json.loads(Path(place).read_text())["tokens"]) == 2
    assert stat.S_IMODE(Path("target").stat().st_mode) == 0o640


def test_json_goes_through_a_pipe_and_to_a_device(labkit):
    os.mkfifo("pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()), daemon=True)
    reader.start()
    assert labkit(*PREDICT, "--json", "pipe")[0] == 0
    reader.join(timeout=20)
    assert len(json.loads(read[0])["tokens"]) == 2 and stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert labkit(*PREDICT, "--json", "/dev/null")[0] == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("place", ["no/such/m.json", ".", "", "circle", "n" * 300, "/proc/x"])
def test_an_output_is_looked_at_before_the_work(labkit, monkeypatch, place):
    Path("circle").symlink_to("circle")
    monkeypatch.setattr("labkit.cli.command.ModelOptions.load", raising(AssertionError))
    lines = [(*PREDICT, "--json", place)]
    if not place.startswith("no/"):  # a folder is made with those above it
        lines.append(("neurons", *FACT, "--out", place))
    for asked in lines:
        status, _, err = labkit(*asked)
        assert status == 1 and "OutputError" in err and len(err.splitlines()) == 1


# --- runs ---------------------------------------------------------------------------------


def test_a_refused_map_leaves_nothing_and_can_be_corrected(labkit):
    asked = ("probe", "map", "--model", "pocket", "--tasks", "relation", "--n-train", 20)
    assert labkit(*asked, "--depths", 44, "--out", "deep/mp")[0] == 1
    assert list(Path.cwd().iterdir()) == []
    assert labkit(*asked, "--depths", 0, "--out", "deep/mp")[0] == 0


def test_a_failed_demo_leaves_nothing(labkit, monkeypatch):
    monkeypatch.setattr("labkit.demo.walk.logit_lens", raising(ValueError("x")))
    assert labkit("demo", "--model", "pocket", "--out", "run")[0] == 70
    assert list(Path.cwd().glob("run*")) == []


def test_two_processes_do_not_share_a_folder(labkit, pocket):
    write_jsonl("facts.jsonl", [f for f in facts() if f.relation == "landmark_city"][:1])
    asked = ("trace", "--model", "pocket", "--facts", "facts.jsonl", "--samples", 1, "--out", "r")
    assert labkit(*asked)[0] == 0
    config = json.loads(Path("r/config.json").read_text())
    with RunDirectory.session("r", config, pocket, resume=True):
        status, _, err = labkit(*asked)
    assert status == 1 and "another process is writing" in err
    assert labkit(*asked)[0] == 0


def test_a_trace_is_there_whole_or_not_at_all(labkit, monkeypatch):
    asked = ("trace", *FACT, "--samples", 1, "--out", "t")
    with monkeypatch.context() as patch:
        patch.setattr("labkit.results.report.Report.save", raising(KeyboardInterrupt()))
        assert labkit(*asked)[0] == 130
    assert list(Path.cwd().iterdir()) == []
    assert labkit(*asked)[0] == 0 and Path("t/trace.html").is_file()


def test_half_a_surrogate_pair_is_no_text(labkit, pocket):
    Path("facts.jsonl").write_text('{"subject": "a\\ud800", "template": "{} is", "object": "x"}')
    status, _, err = labkit("cloze", "--model", "pocket", "--facts", "facts.jsonl")
    assert status == 1 and "line 1" in err and "surrogate" in err
    for ask in (lambda t: pocket.ids(t), lambda t: pocket.span(t, "the")):
        with pytest.raises(InputError, match="surrogate"):
            ask("the \ud800 is")


# --- commands -----------------------------------------------------------------------------


def test_one_fact_is_edited_from_the_command_line(labkit):
    asked = ("edit", *FACT, "--target", REWRITE.target_new, "--method", "rome")
    status, out, err = labkit(*asked, "--out", "delta", "--json")
    found = json.loads(out)
    assert status == 0, err
    assert found["before"]["tokens"][0].strip() == REWRITE.target_true
    assert found["after"]["tokens"][0].strip() == REWRITE.target_new
    status, out, _ = labkit(*asked, "--out", "again")
    assert status == 0 and repr(found["after"]["tokens"][0]) in out and "before" in out
    usual = Path("delta/delta.json").stat().st_mode
    assert Path("delta/delta.safetensors").stat().st_mode == usual, "as the umask says"


def test_neurons_are_kept_though_none_passes(labkit):
    other = "One finds the {} , which is old , in"
    asked = ("neurons", *FACT, "--paraphrase", other, "--threshold", 1, "--shared", 1)
    status, out, err = labkit(*asked, "--out", "found")
    assert status == 0, err
    assert "no neuron passed" in out and "--threshold" in out
    assert Path("found/result.json").is_file() and Path("found/neurons.html").is_file()
    status, out, _ = labkit(*asked[:-1], 0.5, "--out", "more", "--json")
    assert status == 0 and json.loads(out)["test"]


def commands(command, name=()):
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*name, word))


def test_help_is_readable_at_80_columns(labkit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    for name, command in commands(typer.main.get_command(cli.app)):
        status, out, _ = labkit(*name, "--help")
        assert status == 0 and max(map(len, out.splitlines())) <= 80, name
        for flag in {flag for one in command.params for flag in one.opts if flag[:2] == "--"}:
            assert re.search(rf"{flag}\b", out), (name, flag)


def test_headers_of_tables_do_not_break_at_80_columns():
    interval = "0.71 [0.66, 0.76]"
    for headers in (
        ("depth", "accuracy", "control task", "selectivity", "random", "compression"),
        ("method", "efficacy", "paraphrase", "neighbourhood", "says it", "perplexity", "seconds"),
        ("task", "family", "best depth", "score", "baseline", "arrival", "gravity"),
    ):
        shown = columns(*headers)
        shown.add_row("a_task_of_a_long_name", *(interval for _ in headers[1:]))
        narrow = Console(width=80, file=io.StringIO())
        narrow.print(shown)
        lines = narrow.file.getvalue().splitlines()
        words = {word for header in headers for word in header.split()}
        assert max(map(len, lines)) <= 80 and words <= set(re.findall(r"\w+", " ".join(lines[:5])))
