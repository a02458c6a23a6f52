"""How the edits of an evaluation are made: each alone, all in one call, or one after another.

| protocol | calls | read while in effect |
|---|---|---|
| single | one per case, each on the unedited model | that case's edit alone |
| batch | one, of all rewrites | all of it |
| sequential | one per chunk of cases, each while all earlier ones are in effect | all of them |

Batch and sequential are read on the *final* state: what counts of the first edit is what is
left of it after the last one.

An increment is on disk before the next one is made, so that a killed run makes none twice.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from editing.edits.delta import WeightDelta
from editing.edits.effect import Edit, in_effect
from editing.evaluation.options import EvaluationOptions
from labkit.arguments import require_kind
from labkit.errors import CannotEdit, InputError, MalformedRecord, NonFiniteLoss
from labkit.facts.fact import Case, Rewrite
from labkit.models.model import LabModel
from labkit.results.result import RunDirectory

CALL = "call"
"""Key of what a run keeps of a call beside the provenance of its edit: seconds, failures."""

FAILURES = (NonFiniteLoss, CannotEdit)
"""What stops one edit and not the evaluation.

The model then stays as it was, and is read as it is: a failed edit counts with the readings
that a user is left with, and is counted among the failures. Rewrites that cannot be made
(`CannotEdit`) are left out of a call of several, and the others are made.
"""


Editor = Callable[..., Any]
"""A method: `method(model, rewrites, ...)` returns an edit and leaves the model alone."""


def fields_of(method: Editor) -> dict[str, Any]:
    """A method's fields; none if it is no dataclass."""
    return asdict(method) if is_dataclass(method) and not isinstance(method, type) else {}


@dataclass(frozen=True)
class Step:
    """One call of a method.

    Attributes:
        first: Number of its first case.
        cases: The cases that were edited by it.
        increment: What it returned; None if it failed.
        total: Everything that is in effect after it; None while there is nothing.
        seconds: How long the call took.
        failed: By case, the error that kept its edit from being made, in words.
    """

    first: int
    cases: tuple[Case, ...]
    increment: Any
    total: Any
    seconds: float
    failed: Mapping[str, str]

    def record(self, case: Case) -> dict[str, Any]:
        """What a case keeps of it: seconds per edit, failure, numbers of the edit.

        A method that reports a list, one number per subject, is quoted where there is one subject.
        """
        said = {} if self.increment is None else self.increment.provenance
        each = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in said.items()}
        return {
            "seconds": self.seconds / len(self.cases),
            "failed": self.failed.get(case.case_id),
            "edit": {k: v for k, v in each.items() if isinstance(v, int | float)},
        }


def require(method: Editor, cases: Sequence[Case], how: EvaluationOptions) -> None:
    """Refuse what cannot be evaluated, before a model is opened.

    Raises:
        InputError: If the method is none, there are no cases, no list of them, two of one name,
            or the options are none.
        LabkitError: Whatever the method's own `require` raises for one of its calls.
    """
    if isinstance(method, str | type) or not callable(method):
        raise InputError(
            f"a method is an editor such as ROME() or ROME(layer=3), not {_named(method)}"
        )
    if isinstance(cases, Case | Rewrite) or not isinstance(cases, Sequence):
        raise InputError(f"cases are a list, one case too: [case], not {_named(cases)}")
    for case in cases:
        if not isinstance(case, Case):
            raise InputError(
                f"a case is a rewrite and the prompts that judge it, not {_named(case)}: "
                "labkit.case_of(model, rewrite, neighbours=[...]) makes one"
            )
    if not cases:
        raise InputError("there are no cases to evaluate")
    names = [case.case_id for case in cases]
    if len(set(names)) < len(names):
        raise InputError("two cases have the same case_id: give each its own")
    require_kind("how", how, EvaluationOptions)
    own = getattr(method, "require", None)
    if own is not None:
        for some in how.calls(cases):
            own([case.rewrite for case in some])


def _named(value: object) -> str:
    """What someone handed over, in a word or two."""
    if isinstance(value, type):
        return f"the class {value.__name__}, without brackets"
    return f"the text {value!r:.40}" if isinstance(value, str) else f"a {type(value).__name__}"


def edits(
    model: LabModel,
    method: Editor,
    cases: Sequence[Case],
    shared: Mapping[str, Any],
    how: EvaluationOptions,
    *,
    run: RunDirectory | None = None,
    skip: frozenset[str] = frozenset(),
) -> Iterator[Step]:
    """Make the edits of a protocol, one call at a time.

    Args:
        model: The model; nothing is in effect when a step is yielded.
        method: The editor.
        cases: The cases.
        shared: What every call is handed: `prepared`, if the method has it.
        how: The protocol, and the rewrites per call.
        run: Where increments are kept, and taken from if they are there already. Those of
            the single protocol are not: its unit of work is the case.
        skip: Cases of the single protocol that need no edit any more.

    Raises:
        LabkitError: What ends the method's only call of the batch protocol: a failure, if it
            leaves no rewrite to be made.
    """
    total: Any = None
    first = 0
    single, may_fail = how.protocol == "single", how.protocol != "batch"
    for number, some in enumerate(how.calls(cases)):
        if single and some[0].case_id in skip:
            first += 1
            continue
        place = None if run is None or single else run.path / "edits" / f"{number:05d}"
        before = None if single else total
        increment, seconds, failed = _increment(
            model, method, some, shared, before, place, may_fail
        )
        total = _joined(before, increment)
        yield Step(first, some, increment, total, seconds, failed)
        first += len(some)


def _increment(
    model: LabModel,
    method: Editor,
    cases: tuple[Case, ...],
    shared: Mapping[str, Any],
    before: Edit | None,
    place: Path | None,
    may_fail: bool,
) -> tuple[Any, float, dict[str, str]]:
    """What one call returned, its seconds and failures; or what an earlier run kept of them."""
    if place is not None and (place / "delta.json").is_file():
        increment = WeightDelta.load(place)
        note = dict(increment.provenance)
        try:
            call = note.pop(CALL)
            seconds, failed = call["seconds"], call["failed"]
        except (KeyError, TypeError) as error:
            raise MalformedRecord(
                f"{place} does not say how its edit was made: it was written by another version "
                "of labkit; choose another folder"
            ) from error
        increment = dataclasses.replace(increment, provenance=note)
    else:
        start = time.perf_counter()
        increment, failed = _made(model, method, cases, shared, before, may_fail)
        seconds = time.perf_counter() - start
        if place is not None and isinstance(increment, WeightDelta):
            note = {**increment.provenance, CALL: {"seconds": seconds, "failed": failed}}
            dataclasses.replace(increment, provenance=note).save(place)
    return increment, seconds, failed


def _made(
    model: LabModel,
    method: Editor,
    cases: Sequence[Case],
    shared: Mapping[str, Any],
    before: Edit | None,
    may_fail: bool,
) -> tuple[Any, dict[str, str]]:
    """What a method makes of the cases that it can edit, and by case why not of the others."""
    failed: dict[str, str] = {}
    while left := [case for case in cases if case.case_id not in failed]:
        try:
            return _call(model, method, left, shared, before), failed
        except FAILURES as error:
            refused = getattr(error, "prompts", ())
            out = [case for case in left if case.rewrite.prompt in refused] or left
            if not may_fail and len(out) == len(left):
                raise
            failed |= {case.case_id: f"{type(error).__name__}: {error}" for case in out}
    return None, failed


def _joined(before: Any, increment: Any) -> Any:
    """What is in effect after an increment."""
    if before is None or increment is None:
        return before if increment is None else increment
    return before.then(increment)


def _call(
    model: LabModel,
    method: Editor,
    cases: Sequence[Case],
    shared: Mapping[str, Any],
    before: Edit | None,
) -> Any:
    """Call a method while what it comes after is in effect."""
    more = {} if before is None else {"after": before}
    with in_effect(model, before):
        return method(model, [case.rewrite for case in cases], **shared, **more)
