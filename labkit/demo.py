"""The whole path on one fact: read, locate, edit, audit, locate again, export, report.

It sits on top of everything, like the command line that calls it, and holds nothing but
the order of the steps: each one is a call that a notebook can make.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open

from labkit.errors import OutputError, SelfCheckFailed
from labkit.facts.fact import Case, Fact
from labkit.facts.worlds import demo_case_of
from labkit.locate import CausalTrace, TraceResult
from labkit.models.model import LabModel
from labkit.plots import predictions_bar, trace_curves
from labkit.progress import Progress, listener
from labkit.readout import LensResult, Predictions, logit_lens, predict
from labkit.results.report import Report
from labkit.results.result import RunDirectory
from labkit.running.logits import next_token_logits

TOLERANCE = 1e-5
"""Largest difference of logits allowed between the lab and the reloaded checkpoint."""

RELOAD = """
import json, sys
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
folder, ids, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
model = AutoModelForCausalLM.from_pretrained(
    folder, dtype="auto", trust_remote_code=False
).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits[0, -1].float()
save_file({"logits": logits}, out)
print(json.dumps({"says": tokenizer.decode([int(logits.argmax())])}))
"""
"""Run in a process of its own, with plain transformers: nothing of the lab is imported."""


ISOLATED = ("-P",)
"""How it is started: a file of the working folder named like a module is not run instead."""


@dataclass(frozen=True, kw_only=True)
class Reload:
    """What a separate process found in the exported checkpoint.

    Attributes:
        says: The most probable next token.
        largest_difference: Of its logits from those of the edited model in the lab.
        changed: Names of the weights that differ from the base.
    """

    says: str
    largest_difference: float
    changed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Everything the demo made, for a report or a summary.

    Attributes:
        case: The rewrite and the prompts that judge it.
        before: Next tokens of the unedited model.
        after: Next tokens of the edited model.
        lens: Logit lens of the unedited model.
        located: Causal trace of the true answer in the unedited model.
        relocated: Causal trace of the new answer in the edited model.
        delta: The edit.
        audit: The audit.
        reload: What came back from the exported checkpoint.
        run: The run directory.
        seconds: By step, how long it took.
    """

    case: Case
    before: Predictions
    after: Predictions
    lens: LensResult
    located: TraceResult
    relocated: TraceResult
    delta: Any
    audit: Any
    reload: Reload
    run: RunDirectory
    seconds: dict[str, float]


def run_demo(
    model: LabModel,
    out: str | Path,
    *,
    samples: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Demo:
    """Run the lab's main job on one fact and leave a run directory.

    Args:
        model: The model; afterwards it is what it was.
        out: A folder that does not exist or is empty.
        samples: Noise draws of the causal traces.
        seed: Seed of the run.
        progress: Called with what is being done and the share that is done.

    Raises:
        OutputError: If the folder holds something or cannot be written.
        SelfCheckFailed: If the exported checkpoint does not come back as the edited model.
    """
    from editing import ROME

    case = demo_case_of(model)
    rewrite = case.rewrite
    fact = Fact(subject=rewrite.subject, template=rewrite.template, object=rewrite.target_true)
    new = Fact(subject=rewrite.subject, template=rewrite.template, object=rewrite.target_new)
    method, tracer = ROME(seed=seed), CausalTrace(samples=samples, seed=seed)
    config = {
        "command": "demo",
        "case": asdict(case),
        "rome": asdict(method),
        "trace": asdict(tracer),
        "seed": seed,
    }
    with RunDirectory.session(out, config, model) as run:
        return _walked(model, run, case, method, tracer, fact, new, progress)


def _walked(
    model: LabModel,
    run: RunDirectory,
    case: Case,
    method: Any,
    tracer: CausalTrace,
    fact: Fact,
    new: Fact,
    progress: Progress | None,
) -> Demo:
    """The steps of the path, one after the other, what they leave in the run directory."""
    from editing import applied, audit, export_hf

    rewrite = case.rewrite
    clock = _Clock(progress)

    clock.step("reading the model's next tokens, and the logit lens")
    before = predict(model, rewrite.prompt)
    lens = logit_lens(model, rewrite.prompt, answer=rewrite.target_true)
    clock.step("locating the fact by causal tracing")
    located = tracer(model, fact)
    clock.step("measuring which FFN keys occur (cached after the first time)")
    prepared = method.prepare(model)
    clock.step(f"rewriting {rewrite.target_true} to {rewrite.target_new} with ROME")
    delta = method(model, [rewrite], prepared=prepared)
    clock.step("auditing: rewrite, paraphrases, neighbours, free text, perplexity")
    found = audit(model, delta, case)
    with applied(model, delta):
        clock.step("locating the new fact in the edited model")
        after = predict(model, rewrite.prompt)
        relocated = tracer(model, new)
        edited_logits = next_token_logits(model, [rewrite.prompt])[0].float().cpu()
    clock.step("exporting the delta and a full checkpoint")
    delta.save(run.path / "delta")
    export_hf(model, delta, run.path / "checkpoint", audit=found.metrics())
    clock.step("reloading the checkpoint with plain transformers, in another process")
    reload = reloaded(model, run.path / "checkpoint", rewrite.prompt, edited_logits)
    clock.step("writing the report")
    for record in case_records(found):
        run.append_case(record)
    result = Demo(
        case=case,
        before=before,
        after=after,
        lens=lens,
        located=located,
        relocated=relocated,
        delta=delta,
        audit=found,
        reload=reload,
        run=run,
        seconds=clock.seconds,
    )
    run.write_metrics(metrics(result))
    run.write_text("report.html", report(result).html())
    clock.done()
    return result


class _Clock:
    """Says which step is running, and keeps how long each took."""

    STEPS = 9

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._told = listener(progress)
        self._name: str | None = None
        self._since = 0.0

    def step(self, name: str) -> None:
        """Begin a step."""
        self._end()
        self._name, self._since = name, time.perf_counter()
        self._told(name, len(self.seconds) / self.STEPS)

    def done(self) -> None:
        """End the last step."""
        self._end()
        self._told("done", 1.0)

    def _end(self) -> None:
        if self._name is not None:
            self.seconds[self._name] = time.perf_counter() - self._since


def reloaded(model: LabModel, checkpoint: Path, prompt: str, edited_logits: torch.Tensor) -> Reload:
    """Open an exported checkpoint with plain transformers in a separate process.

    Args:
        model: The unedited base.
        checkpoint: The exported folder.
        prompt: The prompt to compare at.
        edited_logits: What the edited model in the lab answers, `[vocab]`.

    Raises:
        SelfCheckFailed: If it cannot be opened, or answers something else.
    """
    out = checkpoint.parent / "reloaded.safetensors"
    command = [sys.executable, *ISOLATED, "-c", RELOAD]
    command += [str(checkpoint), json.dumps(model.ids(prompt))]
    done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SelfCheckFailed(f"{checkpoint} does not open in transformers:\n{done.stderr[-2000:]}")
    try:
        with safe_open(out, framework="pt") as file:
            logits = file.get_tensor("logits")
    finally:
        out.unlink(missing_ok=True)
    gap = float((logits - edited_logits).abs().max())
    if not gap <= TOLERANCE * max(1.0, float(edited_logits.abs().max())):
        raise SelfCheckFailed(f"the reloaded checkpoint's logits are off by {gap:.2e}")
    says = json.loads(done.stdout.strip().splitlines()[-1])["says"]
    return Reload(says=says, largest_difference=gap, changed=changed_weights(model, checkpoint))


def changed_weights(model: LabModel, checkpoint: Path) -> tuple[str, ...]:
    """Names of the weights in which a checkpoint differs from a model, bit for bit."""
    own = model.hf.state_dict()
    changed = []
    for file_path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file_path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if not torch.equal(file.get_tensor(name), own[name].cpu()):
                    changed.append(name)
    if not list(checkpoint.glob("*.safetensors")):
        raise OutputError(f"{checkpoint} holds no weights")
    return tuple(changed)


def case_records(found: Any) -> list[dict[str, Any]]:
    """One record a prompt of the audit, for `cases.jsonl`."""
    return [
        {"case_id": f"{number:03d}", **row}
        for number, row in enumerate(found.prompts().to_dict(orient="records"))
    ]


def metrics(demo: Demo) -> dict[str, Any]:
    """The demo's numbers, JSON-ready."""
    return {
        "audit": demo.audit.metrics(),
        "located": _strongest(demo.located),
        "relocated": _strongest(demo.relocated),
        "edit": dict(demo.delta.provenance),
        "reload": asdict(demo.reload),
        "seconds": demo.seconds,
    }


def _strongest(trace: TraceResult) -> dict[str, Any]:
    """Where a trace is strongest, and its effects there."""
    pos, layer = trace.peak()
    return {
        "peak": {"pos": pos, "layer": layer},
        "indirect_effect": trace.indirect_effect(pos, layer).to_dict(),
        "total_effect": trace.total_effect.to_dict(),
    }


def report(demo: Demo) -> Report:
    """The demo as a page for a reader who was not there."""
    from editing.readings.asking import EXPLAINED

    rewrite, audit = demo.case.rewrite, demo.audit
    where, layer = demo.located.peak()
    effect = demo.located.indirect_effect(where, layer)
    new_where, new_layer = demo.relocated.peak()
    edited = next(iter(demo.delta.changes))
    page = Report(f"{rewrite.subject}: {rewrite.target_true} → {rewrite.target_new}")
    page.paragraph(
        f"The fact “{rewrite.prompt} {rewrite.target_true}” was located in {demo.before.model}, "
        f"rewritten to “{rewrite.target_new}” with ROME, audited, located again, and exported."
    )
    page.heading("In short")
    page.paragraph("\n".join(f"{line[0].upper()}{line[1:]}." for line in audit.verdict))
    page.heading("What the model says")
    both = pd.concat(
        [
            demo.before.to_frame().assign(state="before"),
            demo.after.to_frame().assign(state="after"),
        ]
    )
    page.figure(predictions_bar(both, title=rewrite.prompt))
    page.heading("Layer by layer: the logit lens")
    page.paragraph(
        "The state after each block, read through the model's own final norm and unembedding. "
        "A state that reads as a word need not be used as that word by later blocks."
    )
    page.figure(demo.lens.figure_at_last())
    page.figure(demo.lens.figure())
    page.heading("Where the fact is")
    page.paragraph(
        f"Noise on the subject's embeddings destroys the answer; restoring one clean state "
        f"brings it back. Among the subject's tokens the state after layer {layer} at token "
        f"{where} ({demo.located.tokens[where]!r}) restores most: indirect effect {effect} in "
        "probability, interval over noise draws. The trace shows what suffices to carry the "
        "fact in this run; it does not tell where an edit works best."
    )
    page.figure(demo.located.figure())
    page.heading("The edit")
    provenance = demo.delta.provenance
    (n_keys,) = provenance["keys_behind_C"].values()
    page.paragraph(
        f"One weight changed, by a matrix of rank one: {edited}. The covariance behind it was "
        f"estimated from {n_keys:,} keys ({provenance['corpus']})."
    )
    page.heading("The audit")
    page.paragraph(
        "Success: the wanted object is likelier than its rival. Argmax accuracy: every token of "
        "it is the most probable one. Generation: a free greedy continuation contains it. "
        "Intervals are 95 % over the prompts of this one case."
    )
    measured = set(audit.to_frame()["metric"])
    page.paragraph("\n".join(f"{m}: {w}" for m, w in EXPLAINED.items() if m in measured))
    page.figure(audit.figure())
    shares = audit.table().rename(columns={"n": "prompts"})
    page.table(shares, caption="Shares of prompts that pass, with 95 % intervals")
    page.paragraph(
        f"Perplexity on held-out text: {audit.perplexity('before')} before, "
        f"{audit.perplexity('after')} after; change in nats per token {audit.nll_change}, "
        "paired over pieces of 64 tokens."
    )
    page.table(audit.prompts(), caption="Every prompt; P is per token of the wanted object")
    page.heading("What it writes")
    page.table(
        pd.DataFrame(
            {
                "prompt": audit.openings,
                "before": [text.strip() for text in audit.written_before],
                "after": [text.strip() for text in audit.written_after],
            }
        ),
        caption="Greedy continuations",
    )
    page.heading("Where the new fact is")
    page.paragraph(
        f"The same trace in the edited model, now for “{rewrite.target_new}”: the strongest "
        f"subject state is after layer {new_layer} at token {new_where} "
        f"({demo.relocated.tokens[new_where]!r}), indirect effect "
        f"{demo.relocated.indirect_effect(new_where, new_layer)}."
    )
    page.figure(demo.relocated.figure())
    last = demo.located.subject_positions[-1]
    page.figure(
        trace_curves(
            {
                f"before: {demo.located.answer.strip()}": demo.located.to_frame(),
                f"after: {demo.relocated.answer.strip()}": demo.relocated.to_frame(),
            },
            positions=last,
        )
    )
    page.heading("The checkpoint")
    page.facts(
        {
            "says, in plain transformers": demo.reload.says.strip(),
            "largest difference of logits": f"{demo.reload.largest_difference:.1e}",
            "weights that differ from the base": list(demo.reload.changed),
        }
    )
    page.heading("How it was made")
    page.facts({"config": demo.run.config, "environment": demo.run.environment})
    return page
