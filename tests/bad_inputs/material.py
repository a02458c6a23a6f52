"""The files that the command lines name: good ones, and one thing wrong with each of the others."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from labkit.facts.fact import Rewrite
from labkit.facts.records import to_record, write_jsonl
from labkit.pocket import demo_case, facts

CASE = demo_case()
REWRITE = CASE.rewrite

TEXTS = {  # what a file holds in place of JSON lines
    "empty": b"",
    "blank": b"\n \n\n",
    "torn": b'{"subject": "x"',
    "binary": bytes(range(256)),
    "latin1": '{"subject": "caf\xe9"}'.encode("latin-1"),
    "number": b"7",
    "null": b"null",
    "list_of_numbers": b"[1, 2]",
    "deep": b"[" * 100_000,
    "surrogate": b'{"subject": "\\ud800", "template": "{} is", "target_new": "x", "object": "x"}',
    "nul": b'{"subject": "a\\u0000b", "template": "{} is", "target_new": "x", "object": "x"}',
}

FIELDS: dict[str, Any] = {  # by name, what is changed in a good record
    "no_subject": {"subject": None},
    "empty_subject": {"subject": ""},
    "number_for_subject": {"subject": 7},
    "list_for_subject": {"subject": ["a"]},
    "no_template": {"template": None},
    "template_without_slot": {"template": "it lies in"},
    "template_of_two_slots": {"template": "{} and {} lie in"},
    "empty_target": {"target_new": ""},
    "blank_target": {"target_new": "  "},
    "number_for_target": {"target_new": 3},
    "unknown_target": {"target_new": "Xyzzyx"},
    "same_target": {"target_new": REWRITE.target_true},
    "unknown_field": {"targt_new": "x"},
    "long_prompt": {"template": "{} " + "is in the " * 3000},
}


def prepare(folder: Path, pocket: Any, small: Any) -> None:
    """Fill a folder with all files.

    Args:
        folder: An empty folder.
        pocket: The pocket model, for deltas and an export of it.
        small: A model of random weights, saved and damaged in several ways.
    """
    _records(folder)
    _places(folder)
    _deltas(folder, pocket)
    _checkpoints(folder, small)


def _records(folder: Path) -> None:
    found = [f for f in facts() if f.relation == "landmark_city"][:4]
    write_jsonl(folder / "facts.jsonl", found)
    write_jsonl(folder / "cases.jsonl", [CASE])
    write_jsonl(folder / "rewrites.jsonl", [REWRITE])
    new = REWRITE.target_new
    other = next(f for f in found if f.subject != REWRITE.subject and f.object != new)
    write_jsonl(folder / "two.jsonl", [REWRITE, Rewrite.from_fact(other, new)])
    write_jsonl(folder / "twice.jsonl", [REWRITE, REWRITE])
    for name, content in TEXTS.items():
        (folder / f"{name}.jsonl").write_bytes(content)
    good = to_record(REWRITE)
    for name, changed in FIELDS.items():
        record = {k: v for k, v in {**good, **changed}.items() if v is not None}
        (folder / f"{name}.jsonl").write_text(json.dumps(record))
    marked = {**good, "template": "see [/b] [red] {} is in", "subject": "the [/x] house"}
    (folder / "markup.jsonl").write_text(json.dumps(marked))
    (folder / "audit.json").write_text("{}")
    (folder / "bad_audit.json").write_text("{ torn")


def _places(folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "thing").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "free").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "link_to_nothing").symlink_to("nothing")
    (folder / "circle").symlink_to("circle")
    (folder / "locked").mkdir(mode=0o555)
    (folder / "other_run").mkdir()
    (folder / "other_run" / "config.json").write_text('{"command": "other"}')
    (folder / "other_run" / "environment.json").write_text('{"model": null}')
    (folder / "torn_run").mkdir()
    (folder / "torn_run" / "config.json").write_text("{ torn")


def _deltas(folder: Path, pocket: Any) -> None:
    from editing import WeightDelta
    from editing.edits.delta import LowRank

    def delta(seed: int, on_top_of: str | None = None) -> WeightDelta:
        draw = torch.Generator().manual_seed(seed)
        rows, columns = pocket.hf.get_parameter(pocket.ffn_out_name(1)).shape
        factors = torch.randn(rows, 1, generator=draw), torch.randn(1, columns, generator=draw)
        change = LowRank(0.01 * factors[0], factors[1])
        said = {"method": f"edit {seed} [/b]", "rewrites": [to_record(REWRITE)]}
        return WeightDelta({pocket.ffn_out_name(1): change}, pocket.fingerprint, said, on_top_of)

    first = delta(0)
    first.save(folder / "delta")
    delta(1, first.digest).save(folder / "later")
    for name in ("no_tensors", "cut", "torn_header", "other_format", "number_of_steps"):
        shutil.copytree(folder / "delta", folder / f"delta_{name}")
    (folder / "delta_no_tensors" / "delta.safetensors").unlink()
    path = folder / "delta_cut" / "delta.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    (folder / "delta_torn_header" / "delta.json").write_text("{")
    header = json.loads((folder / "delta" / "delta.json").read_text())
    for name, changed in {
        "other_format": {"format": 99},
        "number_of_steps": {"provenance": {"steps": 3}},
    }.items():
        (folder / f"delta_{name}" / "delta.json").write_text(json.dumps({**header, **changed}))


def _checkpoints(folder: Path, small: Any) -> None:
    good = folder / "model"
    small.hf.save_pretrained(good)
    small.tokenizer.save_pretrained(good)
    names = "no_config torn_config null_config no_weights cut_weights nan_weights no_tokenizer"
    for name in names.split():
        shutil.copytree(good, folder / f"model_{name}")
    (folder / "model_no_config" / "config.json").unlink()
    (folder / "model_torn_config" / "config.json").write_text("{")
    (folder / "model_null_config" / "config.json").write_text("null")
    (folder / "model_no_weights" / "model.safetensors").unlink()
    path = folder / "model_cut_weights" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    path = folder / "model_nan_weights" / "model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, path, metadata={"format": "pt"})
    for path in (folder / "model_no_tokenizer").glob("tokenizer*"):
        path.unlink()


def linked(source: str, target: str) -> str:
    """A second name of a file, or of a link as it is: a copy that takes no room."""
    os.link(source, target, follow_symlinks=False)
    return target
