"""The audit of an editor over many cases: edit, read, compare with the unedited model.

One code path for every method and every protocol (`editing.protocols`), and for the unedited
model beside them. The unit of intervals is the case: a case's own prompts are averaged
first. Running text has no cases; its unit is the piece, wherever one state is read.

With a run directory a killed evaluation goes on at the next case: finished cases, the
increments of the batch and sequential protocols, and the points of the collapse curve are on
disk as soon as they are there. What is resumed equals what was not interrupted, bit for bit,
but for the seconds.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np

from editing.collapse import CollapseCurve, checkpoints, point
from editing.evaluation_result import Evaluation
from editing.protocols import Editor, ProtocolName, Step, calls, edits, require
from editing.readings import GENERATED_TOKENS, questions
from editing.side_effects import SideEffects, compare
from editing.side_effects_result import SideComparison
from editing.unedited import Unedited
from labkit.corpus import Progress, held_out
from labkit.encoding import from_json
from labkit.facts import Case, Rewrite
from labkit.models import LabModel
from labkit.results import RunDirectory, dumps
from labkit.tokens import target_ids

__all__ = ["Editor", "Evaluation", "evaluate", "validate"]

CASES_AT_ONCE = 8
"""Cases whose prompts go through the final state together."""

CURVE, SIDE_EFFECTS = "curve.json", "side_effects.json"


def evaluate(
    model: LabModel,
    method: Editor,
    cases: Sequence[Case],
    *,
    protocol: ProtocolName = "single",
    chunk: int = 1,
    seed: int = 0,
    n_tokens: int = GENERATED_TOKENS,
    held_out_texts: Sequence[str] | None = None,
    side_effects: SideEffects | None = None,
    unedited: Unedited | None = None,
    run: RunDirectory | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a method on some cases.

    Args:
        model: The model; afterwards it is what it was.
        method: An editor with, where edits share something, a `prepare(model)`.
        cases: The cases.
        protocol: "single": each case is edited alone and read. "batch": all rewrites in one
            call. "sequential": one call after another, each on top of the earlier ones. The
            last two are read on the final state.
        chunk: Rewrites a call of the sequential protocol.
        seed: Seed of the intervals.
        n_tokens: Length of free continuations; 0 leaves that reading out.
        held_out_texts: Text for perplexity; by default the model's (`labkit.corpus`).
        side_effects: What else to measure, on the final state or, in the single protocol,
            after every edit (`SideEffects.quick()` is meant for that); None leaves it out.
        unedited: The unedited model's readings, where several methods share them; they then
            say `n_tokens`, the text and the side effects.
        run: A run directory, new or of the same evaluation. Its config is the caller's.
        progress: Called before each edit and each reading.

    Raises:
        InputError: If there are no cases, or the protocol is none.
        LabkitError: Whatever a malformed case or a method's `require` raises; all cases are
            looked at first. A failure of one edit (`editing.protocols.FAILURES`) is recorded
            instead, except in the batch protocol, where there is but one.
    """
    require(method, cases, protocol, chunk)
    for case in cases:
        validate(model, case)
    if unedited is None:
        texts = held_out(model) if held_out_texts is None else held_out_texts
        unedited = Unedited(
            model=model,
            texts=tuple(texts),
            n_tokens=n_tokens,
            side_effects=side_effects,
            exclude=tuple(case.rewrite for case in cases),
        )
    done = {} if run is None else {record["case_id"]: record for record in run.cases()}
    prepare = getattr(method, "prepare", None)
    shared = {} if prepare is None else {"prepared": prepare(model, progress=progress)}
    steps = edits(
        model,
        method,
        cases,
        shared,
        protocol=protocol,
        chunk=chunk,
        run=run,
        skip=frozenset(done) if protocol == "single" else frozenset(),
    )
    told = _quiet if progress is None else progress
    name = type(method).__name__
    final: dict[str, Any] = {}
    records: Iterable[dict[str, Any]]
    if protocol == "single":
        records = _each_alone(cases, steps, done, unedited, run, told)
    else:
        planned = calls(cases, protocol, chunk)
        marks = checkpoints(len(cases)) if protocol == "sequential" else [len(cases)]
        made = _all_made(planned, steps, marks, unedited, run, told)
        records = list(_on_final_state(cases, made, done, unedited, run, told))
        last = made.points[-1]
        final = {
            "nll_after": np.array(last["nll"]),
            "kl_after": np.array(last["kl"]),
            "side_effects": _side_effects(made.total, unedited, run, told, name),
            "collapse": CollapseCurve(
                points=made.points,
                nll_before=tuple(unedited.text.nll.double().tolist()),
                method=name,
                model=model.name,
                seed=seed,
            ),
        }
    return Evaluation(
        records=tuple(records),
        protocol=protocol,
        chunk=chunk,
        nll_before=unedited.text.nll.double().numpy(),
        method=name,
        config=asdict(method) if is_dataclass(method) and not isinstance(method, type) else {},
        model=model.name,
        fingerprint=model.fingerprint,
        seed=seed,
        **final,
    )


def validate(model: LabModel, case: Case) -> None:
    """Refuse a case that would fail half-way.

    Raises:
        SubjectNotFound, EmptyTarget, EmptyPrompt: See `labkit.tokens`.
    """
    rewrite = case.rewrite
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
            (before,) = unedited.readings([case])
            step = next(steps)
            (after,) = unedited.read([case], step.increment)
            nll, kl = unedited.read_text(step.increment)
            record = {
                "case_id": case.case_id,
                "rewrite": asdict(case.rewrite),
                "before": before,
                "after": after,
                "nll_after": float(nll.mean()),
                "kl": float(kl.mean()),
                **step.record,
            }
            side = unedited.side_readings(step.increment)
            if side is not None and unedited.material is not None:
                means = {"before": unedited.material.before.means(), "after": side.means()}
                record["side_effects"] = means
            if run is not None:
                run.append_case(record)
        yield record


@dataclass(frozen=True)
class _Made:
    """All edits, made.

    Attributes:
        total: What is in effect at the end; None if every edit failed.
        notes: By case, what its record keeps of its edit.
        points: The collapse curve.
    """

    total: Any
    notes: dict[str, dict[str, Any]]
    points: tuple[dict[str, Any], ...]


def _all_made(
    planned: Sequence[Sequence[Case]],
    steps: Iterator[Step],
    marks: Sequence[int],
    unedited: Unedited,
    run: RunDirectory | None,
    told: Progress,
) -> _Made:
    """Make all edits; at some numbers of them, read how the model bears it."""
    points: dict[int, dict[str, Any]] = {}
    if run is not None and (run.path / CURVE).is_file():
        points = {p["edits"]: p for p in json.loads((run.path / CURVE).read_text(encoding="utf-8"))}
    notes: dict[str, dict[str, Any]] = {}
    total: Any = None
    so_far: list[Rewrite] = []
    n_cases = sum(map(len, planned))
    for some in planned:
        told(f"edit {len(so_far) + 1} of {n_cases}", 0.5 * len(so_far) / n_cases)
        step = next(steps)
        total = step.total
        notes |= {case.case_id: step.record for case in step.cases}
        before = len(so_far)
        so_far += [case.rewrite for case in some]
        due = any(before < mark <= len(so_far) for mark in marks)
        if due and len(so_far) not in points:
            points[len(so_far)] = point(unedited.model, total, so_far, unedited)
            if run is not None:
                run.write_text(CURVE, dumps(list(points.values())) + "\n")
    return _Made(total, notes, tuple(points.values()))


def _on_final_state(
    cases: Sequence[Case],
    made: _Made,
    done: Mapping[str, dict[str, Any]],
    unedited: Unedited,
    run: RunDirectory | None,
    told: Progress,
) -> Iterator[dict[str, Any]]:
    """Read every case while all edits are in effect."""
    for first in range(0, len(cases), CASES_AT_ONCE):
        some = cases[first : first + CASES_AT_ONCE]
        told(f"reading case {first + 1} of {len(cases)}", 0.5 + 0.5 * first / len(cases))
        if all(case.case_id in done for case in some):
            yield from (done[case.case_id] for case in some)
            continue
        read = zip(some, unedited.readings(some), unedited.read(some, made.total), strict=True)
        for case, before, after in read:
            record = {
                "case_id": case.case_id,
                "rewrite": asdict(case.rewrite),
                "before": before,
                "after": after,
                **made.notes[case.case_id],
            }
            if run is not None and case.case_id not in done:
                run.append_case(record)
            yield record


def _side_effects(
    total: Any, unedited: Unedited, run: RunDirectory | None, told: Progress, method: str
) -> SideComparison | None:
    """Side effects of the final state, or what an earlier run kept of them."""
    if unedited.material is None:
        return None
    kept = None if run is None else run.path / SIDE_EFFECTS
    if kept is not None and kept.is_file():
        return from_json(json.loads(kept.read_text(encoding="utf-8")), SideComparison)
    told("side effects of the final state", 1.0)
    after = unedited.side_readings(total)
    assert after is not None
    before, notes = unedited.material.before, unedited.material.notes
    found = compare(before, after, method=method, model=unedited.model.name, notes=notes)
    if run is not None:
        run.write_text(SIDE_EFFECTS, dumps(found) + "\n")
    return found


def _quiet(what: str, share: float) -> None:
    """Progress that nobody asked for."""
