"""Carry an edit away: a full Hugging Face checkpoint with a card that says what changed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editing.delta import WeightDelta, applied
from labkit.facts import fill
from labkit.models import LabModel, fingerprint
from labkit.results import atomic_folder, atomic_write, dumps
from labkit.runs import environment


def export_hf(
    model: LabModel,
    delta: WeightDelta,
    out: str | Path,
    *,
    audit: Mapping[str, Any] | None = None,
) -> Path:
    """Write the edited model as a checkpoint that plain `transformers` opens.

    The folder holds config, weights (safetensors, in the model's dtype), tokenizer, a
    model card (`README.md`), and `labkit.json` with the delta's provenance and the
    fingerprints of base and result.

    Args:
        model: The model that the delta was made for; afterwards it is what it was.
        delta: The change.
        out: A folder that does not exist or is empty.
        audit: Metrics to state in the card, as `Evaluation.metrics()` gives them.

    Raises:
        FingerprintMismatch: If the delta belongs to another model.
        OutputError: If the folder holds something, or cannot be written; nothing is left.
    """
    delta.require(model)
    with atomic_folder(out) as folder, applied(model, delta):
        result = fingerprint(model.hf, model.tokenizer)
        model.hf.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        record = {
            "base": {"name": model.name, "fingerprint": delta.base},
            "result": {"fingerprint": result},
            "changed": {n: {"rank": c.rank} for n, c in delta.changes.items()},
            "provenance": dict(delta.provenance),
            "environment": environment(),
        }
        atomic_write(folder / "labkit.json", dumps(record) + "\n")
        atomic_write(folder / "README.md", model_card(model, delta, result, audit))
    return Path(out)


def model_card(
    model: LabModel, delta: WeightDelta, result: str, audit: Mapping[str, Any] | None = None
) -> str:
    """The card of an edited checkpoint, in markdown."""
    rewrites = delta.provenance.get("rewrites", [])
    lines = [
        "---",
        "library_name: transformers",
        "tags: [model-editing, labkit]",
        "---",
        "",
        f"# {model.name}, edited",
        "",
        f"Made from `{model.name}` by {delta.provenance.get('method', 'an edit')} with labkit. "
        "Everything else about this model is as its base documents it, licence included.",
        "",
        "## What was changed",
        "",
        *[
            f"- {fill(r['template'], r['subject'])} **{r['target_new']}**"
            + (f" (was: {r['target_true']})" if r.get("target_true") else "")
            for r in rewrites
        ],
        "",
        "| weight | shape | rank of the change | norm of the change |",
        "|---|---|---|---|",
        *[
            f"| `{name}` | {c.shape[0]} x {c.shape[1]} | {c.rank} | {c.dense().norm():.3f} |"
            for name, c in delta.changes.items()
        ],
        "",
        f"Base `{delta.base}`, result `{result}` (sha256 over weights and tokenizer).",
        "",
        "## What the audit found",
        "",
        *_audit_lines(audit),
        "",
        "## What this does not promise",
        "",
        "An edit changes what the model says behind prompts like those that were audited. "
        "Consequences of the new fact, other languages and long texts were not edited.",
        "",
        "## How it was made",
        "",
        "```json",
        json.dumps(dict(delta.provenance), indent=2, ensure_ascii=False, default=str),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _audit_lines(audit: Mapping[str, Any] | None) -> list[str]:
    """The audit's numbers as a table, unedited beside edited."""
    if not audit:
        return ["No audit was handed in with this export."]
    lines = ["| reading | metric | unedited | edited |", "|---|---|---|---|"]
    for reading in ("success", "accuracy", "generation"):
        for metric, after in audit.get(reading, {}).items():
            before = audit["unedited"].get(reading, {}).get(metric)
            lines.append(f"| {reading} | {metric} | {_interval(before)} | {_interval(after)} |")
    unit = audit["unit of intervals"]
    return [*lines, "", f"{audit['n']} case(s); intervals: 95 %, over {unit}s."]


def _interval(estimate: Mapping[str, float] | None) -> str:
    """An estimate as text."""
    if estimate is None:
        return "–"
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
