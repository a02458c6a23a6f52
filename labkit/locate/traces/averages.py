"""Causal traces of many facts, averaged by the roles of their tokens.

One fact's trace is an anecdote. Over many facts the traces are aligned on the roles of
tokens (`labkit.locate.traces.alignment`), and the unit of every interval is the fact. Each fact's
own curves are kept, because a mean that peaks at a layer does not say that the facts do.

A run of a hundred facts takes a while: give it a `RunDirectory`, and every finished fact is saved
at once; the same call on the same directory resumes where it stopped.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from labkit.arguments import checked
from labkit.errors import EmptyTarget, InputError
from labkit.facts.answers import told
from labkit.facts.fact import Fact
from labkit.locate.traces.alignment import align
from labkit.locate.traces.averaged_trace import AveragedTrace, TracedFact
from labkit.locate.traces.tracing import CausalTrace, require_traceable
from labkit.models.model import LabModel
from labkit.progress import Progress, part_of
from labkit.results.measured import measured_on
from labkit.results.runs import RunDirectory


@checked
@torch.no_grad()
def average_traces(
    model: LabModel,
    facts: Sequence[Fact],
    trace: CausalTrace | None = None,
    *,
    progress: Progress | None = None,
    run: RunDirectory | None = None,
) -> AveragedTrace:
    """Trace every fact, and average by role of token and layer.

        average_traces(model, facts).figure()

    Whether the model knows the facts is not checked here: pass those of `known_facts`.

    Args:
        model: The model.
        facts: Facts with an object, whose first token is the answer; each once.
        trace: How each is traced; by default `CausalTrace()`.
        progress: Called with what is being done and the share that is done.
        run: Keeps every finished fact; those that are there already (of this model and with
            these settings) are not traced again.

    Raises:
        InputError: If there is no fact, or one twice.
        EmptyTarget: If a fact has no object.
        SubjectNotFound: If a subject is not in its prompt.
        NothingToTrace: If a prompt is one token, or nothing but the subject.

    Shows:
        Where restoring tokens of a role helps on average over facts, with the facts as the unit
        of the interval.

    Does not show:
        That each fact peaks there: a mean that peaks at a layer is compatible with facts that
        peak elsewhere (`AveragedTrace.early_site` says how far they agree).

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, figure 2 and
        appendix B.2.

    Differs from the paper: intervals are over facts; a subject of one token is
    a last subject token only.
    """
    trace = CausalTrace() if trace is None else trace
    ids = _require(model, facts, trace)
    finished = {} if run is None else {case["case_id"]: case for case in run.cases()}
    for index, (case_id, fact) in enumerate(zip(ids, facts, strict=True)):
        if case_id in finished:
            continue

        name = f"fact {index + 1} of {len(facts)}: "
        within = part_of(progress, index / len(facts), 1 / len(facts), name)
        case = {"case_id": case_id, **_trace_one(model, fact, trace, within)}
        if run is not None:
            run.append_case(case)
        finished[case_id] = case
    cases = [finished[case_id] for case_id in ids]
    return AveragedTrace(
        kind=trace.kind,
        severed=trace.severed,
        facts=tuple(TracedFact(**case["fact"]) for case in cases),
        restored=np.stack([np.array(case["restored"], dtype=float) for case in cases]),
        **measured_on(model),
        config=asdict(trace),
    )


def _require(model: LabModel, facts: Sequence[Fact], trace: CausalTrace) -> list[str]:
    """Ids of the facts as cases, after checking that all of them can be traced."""
    if not facts:
        raise InputError("there is no fact to trace")
    for fact in facts:
        if fact.object is None:
            raise EmptyTarget(
                f"the fact about {fact.subject!r} has no object: an average needs to know "
                "which answer to follow"
            )
        require_traceable(model, told(model.tokenizer, fact))
    settings = {name: value for name, value in asdict(trace).items() if name != "memory"}
    ids = [
        hashlib.sha256(
            repr((model.in_effect, settings, fact.prompt, fact.subject_start, fact.object)).encode()
        ).hexdigest()[:24]
        for fact in facts
    ]
    for index, case_id in enumerate(ids):
        if case_id in ids[:index]:
            raise InputError(
                f"the fact {facts[index].prompt!r} is given twice: it would count double, and the "
                "interval would be too narrow"
            )
    return ids


def _trace_one(
    model: LabModel, fact: Fact, trace: CausalTrace, progress: Progress
) -> dict[str, Any]:
    """The record of one fact, JSON-ready."""
    result = trace(model, fact, progress=progress)
    return {
        "fact": asdict(
            TracedFact(
                prompt=result.prompt,
                subject=result.subject,
                answer=result.answer,
                clean=result.clean,
                corrupted=float(result.corrupted.mean(dtype=float)),
            )
        ),
        "restored": align(result.cells.mean(axis=0, dtype=float), result.subject_positions),
    }
