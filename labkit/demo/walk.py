"""The whole path on one fact: read, locate, edit, audit, locate again, export, report.

It sits on top of everything, like the command line that calls it, and holds nothing but
the order of the steps: each one is a call that a notebook can make.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labkit.arguments import checked
from labkit.demo.checkpoint import reloaded
from labkit.demo.outcome import Demo, case_records, metrics
from labkit.demo.page import report
from labkit.facts.fact import Case, Fact
from labkit.facts.worlds import demo_case_of
from labkit.locate import CausalTrace
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.readout import logit_lens, predict
from labkit.results.result import RunDirectory
from labkit.running.logits import next_token_logits


@checked
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
        model: The model; it is restored afterwards.
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
    method, tracer = ROME(seed=seed), CausalTrace(samples=samples, seed=seed)
    config = {
        "command": "demo",
        "case": asdict(case),
        "rome": asdict(method),
        "trace": asdict(tracer),
        "seed": seed,
    }
    with RunDirectory.session(out, config, model) as run:
        return _walked(model, run, case, method, tracer, progress)


def _walked(
    model: LabModel,
    run: RunDirectory,
    case: Case,
    method: Any,
    tracer: CausalTrace,
    progress: Progress | None,
) -> Demo:
    """The steps of the path, one after the other, what they leave in the run directory."""
    from editing import applied, audit, export_hf

    rewrite = case.rewrite
    fact = Fact(subject=rewrite.subject, template=rewrite.template, object=rewrite.target_true)
    new = Fact(subject=rewrite.subject, template=rewrite.template, object=rewrite.target_new)
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
