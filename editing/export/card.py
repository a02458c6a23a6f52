"""The model card of an export: what was changed, what an audit found, what it is worth.

Everything in it comes from the record (`editing.export.record`) and from the audit's metrics, so
that a card never says more than what was measured.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from editing.export.record import KINDS
from labkit.facts.fact import fill
from labkit.stats import Estimate

SHOWN = 20
"""Rewrites and weights that a card lists; all of them are in the record."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LIBRARIES = {"checkpoint": "transformers", "adapter": "peft", "gguf": "gguf"}
_OPENED = {
    "checkpoint": 'AutoModelForCausalLM.from_pretrained("this folder")',
    "adapter": 'PeftModel.from_pretrained(base_model, "this folder")',
    "gguf": 'AutoModelForCausalLM.from_pretrained("this folder", gguf_file="model.gguf")',
}


def model_card(record: Mapping[str, Any], audit: Mapping[str, Any] | None = None) -> str:
    """The card of an export, in markdown.

    Args:
        record: What `labkit.json` holds; see `editing.export.record.new_record`.
        audit: The metrics of an `Audit` or an `Evaluation`.
    """
    base, kind = record["base"], record["kind"]
    licence = base.get("license")
    lines = [
        *_front(record),
        f"# {base['name']}, edited",
        "",
        f"A {KINDS[kind]} made from `{base['name']}` with labkit, by editing its weights: "
        f"{_methods(record['steps'])}.",
        "",
        f"Base: {base.get('source') or base['name']}. "
        + (f"Licence of its weights: {licence}. " if licence else "")
        + "Everything else about this model is as its base documents it, licence included.",
        "",
        f"Open it with `{_OPENED[kind]}`.",
        "",
        "## What was changed",
        "",
        *_rewrites(record["steps"]),
        *_weights(record),
        "",
        "## What the files keep of it",
        "",
        *_check(record),
        "",
        "## What the audit found",
        "",
        *_audit(audit),
        "",
        "## What this does not promise",
        "",
        "An edit changes what the model says after prompts like those that were audited. "
        "Consequences of the new fact, other languages and long texts were not edited.",
        "",
        "## How it was made",
        "",
        *_steps(record["steps"]),
    ]
    return "\n".join(lines) + "\n"


def _front(record: Mapping[str, Any]) -> Iterator[str]:
    """The block that the hub reads."""
    base = record["base"]
    found = _HUB_ID.match(base.get("source") or "") or _HUB_ID.fullmatch(base["name"])
    yield from ("---", f"library_name: {_LIBRARIES[record['kind']]}")
    if found:
        yield f"base_model: {found[0].rstrip(',')}"
    if base.get("license"):
        yield f"license: {base['license'].lower()}"
    yield from ("tags: [model-editing, labkit]", "---", "")


def _methods(steps: Sequence[Mapping[str, Any]]) -> str:
    """Which methods were used, and how often."""
    names = [str(step.get("method", "an edit")) for step in steps]
    return (
        ", ".join(
            name if names.count(name) == 1 else f"{name} ({names.count(name)} times)"
            for name in dict.fromkeys(names)
        )
        or "no edit is left"
    )


def _rewrites(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the edits were asked for, in order; the first ones of many."""
    asked = [(row, step.get("times", 1.0)) for step in steps for row in step.get("rewrites", ())]
    for row, times in asked[:SHOWN]:
        new, true = row.get("target_new"), row.get("target_true")
        prompt = fill(row["template"], row["subject"])
        line = f"- {prompt} **{new}**" if new else f"- {prompt}: made to forget **{true}**"
        if new and true:
            line += f" (was: {true})"
        yield line if times == 1 else f"{line}, the change times {times:g}"
    if len(asked) > SHOWN:
        yield f"- and {len(asked) - SHOWN} more, {len(asked)} in all: `labkit.json` lists them"
    if asked:
        yield ""


def _weights(record: Mapping[str, Any]) -> Iterator[str]:
    """The weights that differ."""
    changed = record["changed"]
    yield from (
        "| weight | shape | rank of the change | norm of the change |",
        "|---|---|---|---|",
    )
    for name, row in list(changed.items())[:SHOWN]:
        shape = " x ".join(map(str, row["shape"]))
        yield f"| `{name}` | {shape} | {row['rank']} | {row['norm']:.3f} |"
    if len(changed) > SHOWN:
        yield f"\nand {len(changed) - SHOWN} more weights, {len(changed)} in all."
    result = record.get("result", {}).get("fingerprint")
    yield ""
    yield f"Base `{record['base']['fingerprint']}`" + (
        f", result `{result}` (sha256 over weights and tokenizer)." if result else "."
    )
    if record.get("originals"):
        yield (
            "\n`undo/` holds the delta and the changed weights as they were in the base; with it "
            "`labkit undo` is exact. Whoever has it can read what was there before."
        )


def _check(record: Mapping[str, Any]) -> Iterator[str]:
    """What is left of the edit in the files, measured after opening them again."""
    yield f"The changed weights are stored as {record['dtype']}."
    if record.get("file"):
        yield f"\n{record['file']}"
    check = record.get("check")
    if not check:
        yield "\nThe files were not opened again."
        return
    rows = check["weights"]
    kept, off = min(row["kept"] for row in rows), max(row["relative_error"] for row in rows)
    unmoved = max(row["unmoved"] for row in rows)
    yield (
        f"Opened again, they hold {kept:.2%} of the change (the part along it); what differs is "
        f"{off:.2g} of its norm, and {unmoved:.2%} of the entries that it moves stay where they "
        "were. "
        f"Logits are off by {check['logits_off']:.2g} at most, where the edit moves them by up "
        f"to {check['logits_moved']:.2g}."
    )
    probabilities = check["probability_of_target"]
    if probabilities:
        yield from ("", "| state | probability of the target, a token |", "|---|---|")
        for state, estimate in probabilities.items():
            yield f"| {state} | {_interval(estimate)} |"
        yield (
            f"\nMean over {check['rewrites']} rewrite(s); `edited` is in memory, `exported` as "
            "these files open. Intervals: 95 %, over rewrites."
        )


def _audit(audit: Mapping[str, Any] | None) -> Iterator[str]:
    """The audit's numbers: readings unedited beside edited, then whatever else it has."""
    if not audit:
        yield "No audit was handed in with this export."
        return
    unedited = dict(_estimates(audit.get("unedited", {})))
    edited = {path: e for path, e in _estimates(audit) if path[0] != "unedited"}
    pairs = [path for path in edited if path in unedited]
    if pairs:
        yield from ("| reading | metric | unedited | edited |", "|---|---|---|---|")
        for path in pairs:
            reading, metric = path[0], " ".join(path[1:])
            states = (_interval(found[path]) for found in (unedited, edited))
            yield f"| {reading} | {metric} | {' | '.join(states)} |"
        yield ""
    others = [path for path in edited if path not in unedited]
    if others:
        yield from ("| number | value |", "|---|---|")
        for path in others:
            yield f"| {' / '.join(path).replace('_', ' ')} | {_interval(edited[path], digits=4)} |"
        yield ""
    unit = audit.get("unit of intervals")
    n = f"{audit['n']} case(s); " if "n" in audit else ""
    yield f"{n}intervals: 95 %" + (f", over {unit}s." if isinstance(unit, str) else ".")


def _estimates(
    found: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, float]]]:
    """Every estimate inside nested metrics, with the names that lead to it."""
    if not isinstance(found, Mapping):
        return
    if {"mean", "low", "high"} <= set(found):
        yield path, found
        return
    for name, inner in found.items():
        yield from _estimates(inner, (*path, str(name)))


def _interval(estimate: Mapping[str, Any] | None, digits: int = 3) -> str:
    """An estimate as text; without an interval where there is none."""
    if estimate is None:
        return "–"
    return f"{Estimate.from_dict({'n': 0, **estimate}):.{digits}f}"


def _steps(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The provenance of each step, but for what is listed above; the first ones of many."""
    for number, step in enumerate(steps[:SHOWN], start=1):
        brief = {name: value for name, value in step.items() if name != "rewrites"}
        if len(steps) > 1:
            yield f"Step {number} of {len(steps)}:\n"
        yield f"```json\n{json.dumps(brief, indent=2, ensure_ascii=False, default=str)}\n```\n"
    if len(steps) > SHOWN:
        yield f"and {len(steps) - SHOWN} more steps: `labkit.json` lists them."
