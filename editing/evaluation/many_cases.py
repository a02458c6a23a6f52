"""The audit of an editor over many cases: edit, read, compare with the unedited model.

One code path for every method and every protocol (`editing.evaluation.protocols`), and for the
unedited model beside them. The unit of intervals is the case: a case's own prompts are averaged
first. Running text has no cases; its unit is the piece, wherever one state is read.

With a run directory a killed evaluation resumes at the next case: finished cases, the
increments of the batch and sequential protocols, and the points of the collapse curve are saved as
soon as they exist. A resumed run equals an uninterrupted one bit for bit, except for the seconds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from editing.edits.requests import refuse_no_change
from editing.evaluation.evaluation_result import Evaluation
from editing.evaluation.final_state import (
    all_made,
    case_records,
    final_side_effects,
    on_final_state,
)
from editing.evaluation.options import USUAL, EvaluationOptions
from editing.evaluation.protocols import Editor, Step, edits, fields_of, require
from editing.readings.asking import questions
from editing.readings.collapse import CollapseCurve, checkpoints
from editing.readings.consequences import require as require_askable
from editing.readings.unedited import Unedited
from labkit.arguments import require_kind
from labkit.facts.fact import Case
from labkit.models.model import LabModel
from labkit.progress import Progress, onwards, part_of
from labkit.results.measured import measured_on
from labkit.results.result import RunDirectory
from labkit.tokens import target_ids

__all__ = ["Editor", "Evaluation", "evaluate", "validate"]

PREPARING = 0.1
"""Share of the work that is told of while what all edits need is measured; none if it is kept."""


def evaluate(
    model: LabModel,
    method: Editor,
    cases: Sequence[Case],
    how: EvaluationOptions = USUAL,
    *,
    unedited: Unedited | None = None,
    run: RunDirectory | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a method on some cases.

        evaluate(model, ROME(), cases)
        evaluate(model, ROME(), cases, EvaluationOptions(protocol="batch", n_tokens=0))

    Args:
        model: The model; it is restored afterwards.
        method: An editor with, where edits share something, a `prepare(model)`.
        cases: The cases, a list of one too: `labkit.case_of` makes one of a rewrite.
        how: Protocol, held-out text, side effects, seed and the rest, as `EvaluationOptions`
            lists them; by default each case is edited alone.
        unedited: The unedited model's readings, where several methods share them
            (`EvaluationOptions.unedited`); they then say `n_tokens`, the text, the side effects
            and the chains.
        run: A run directory, new or of the same evaluation. Its config is the caller's; what
            of `how` belongs into it is `EvaluationOptions.record`.
        progress: Called before each edit and each reading.

    Raises:
        InputError: If there are no cases, or an argument is of another kind: a name for a
            model, a class for a method, a rewrite for a case, a protocol's name for options.
        LabkitError: Whatever a malformed case or a method's `require` raises; all cases are
            looked at first. A failure of one edit (`editing.evaluation.protocols.FAILURES`) is
            recorded instead, except in the batch protocol where it leaves nothing to be made.
    """
    require_kind("model", model, LabModel)
    require(method, cases, how)
    for case in cases:
        validate(model, case)
    unedited = how.unedited(model, cases) if unedited is None else unedited
    for case in cases:
        require_askable(model, unedited.asked(case))
    done = {} if run is None else {record["case_id"]: record for record in run.cases()}
    prepare = getattr(method, "prepare", None)
    given = {} if how.corpus is None else {"corpus": how.corpus}
    first = part_of(progress, 0.0, PREPARING)
    shared = {} if prepare is None else {"prepared": prepare(model, progress=first, **given)}
    single = how.protocol == "single"
    skip = frozenset(done) if single else frozenset()
    steps = edits(model, method, cases, shared, how, run=run, skip=skip)
    told = onwards(part_of(progress, PREPARING, 1 - PREPARING))
    name = type(method).__name__
    final: dict[str, Any] = {}
    records: Iterable[dict[str, Any]]
    if single:
        records = _each_alone(cases, steps, done, unedited, run, told)
    else:
        planned = how.calls(cases)
        marks = checkpoints(len(cases)) if how.protocol == "sequential" else [len(cases)]
        made = all_made(planned, steps, marks, unedited, run, told)
        records = list(on_final_state(cases, made, done, unedited, run, told))
        last = made.points[-1]
        final = {
            "nll_after": np.array(last["nll"]),
            "kl_after": np.array(last["kl"]),
            "side_effects": final_side_effects(made.total, unedited, run, told, name),
            "collapse": CollapseCurve(
                points=made.points,
                nll_before=tuple(unedited.text.nll.double().tolist()),
                method=name,
                model=model.name,
                seed=how.seed,
            ),
        }
    return Evaluation(
        records=tuple(records),
        protocol=how.protocol,
        chunk=how.chunk,
        nll_before=unedited.text.nll.double().numpy(),
        method=name,
        config=fields_of(method),
        **measured_on(model),
        seed=how.seed,
        **final,
    )


def validate(model: LabModel, case: Case) -> None:
    """Refuse a case that would fail half-way.

    Raises:
        SubjectNotFound, EmptyTarget, EmptyPrompt: See `labkit.tokens`.
    """
    rewrite = case.rewrite
    refuse_no_change(rewrite)
    model.span(rewrite.prompt, rewrite.subject, at=rewrite.subject_start)
    for question in questions(case):
        model.ids(question.prompt)
        target_ids(model.tokenizer, question.prompt, question.wanted)
        if question.rival is not None:
            target_ids(model.tokenizer, question.prompt, question.rival)


def _each_alone(
    cases: Sequence[Case],
    steps: Iterator[Step],
    done: Mapping[str, dict[str, Any]],
    unedited: Unedited,
    run: RunDirectory | None,
    told: Progress,
) -> Iterator[dict[str, Any]]:
    """Edit each case alone, read it, undo."""
    for number, case in enumerate(cases):
        told(f"case {number + 1} of {len(cases)}: {case.rewrite.subject}", number / len(cases))
        record = done.get(case.case_id)
        if record is None:
            step = next(steps)
            nll, kl = unedited.read_text(step.increment)
            (record,) = case_records([case], step.increment, unedited)
            record |= {"nll_after": float(nll.mean()), "kl": float(kl.mean()), **step.record(case)}
            side = unedited.side_readings(step.increment)
            if side is not None and unedited.material is not None:
                means = {"before": unedited.material.before.means(), "after": side.means()}
                record["side_effects"] = means
            if run is not None:
                run.append_case(record)
        yield record
