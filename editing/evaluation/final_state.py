"""All edits in effect at once: those of a batch or a sequence, and the readings after them.

Readings are saved as soon as they are taken, so that a killed run can be resumed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from editing.evaluation.protocols import Step
from editing.readings.collapse import point
from editing.readings.side_effects import compare
from editing.readings.side_effects_result import SideComparison
from editing.readings.unedited import Unedited
from labkit.facts.fact import Case, Rewrite
from labkit.progress import Progress
from labkit.results.encoding import from_json
from labkit.results.result import RunDirectory, dumps

CASES_AT_ONCE = 8
"""Cases whose prompts go through the final state together."""

CURVE, SIDE_EFFECTS = "curve.json", "side_effects.json"


@dataclass(frozen=True)
class Made:
    """The edits made.

    Attributes:
        total: All edits in effect at the end; None if every edit failed.
        notes: By case, the part of its record that describes the edit.
        points: The collapse curve.
    """

    total: Any
    notes: dict[str, dict[str, Any]]
    points: tuple[dict[str, Any], ...]


def all_made(
    planned: Sequence[Sequence[Case]],
    steps: Iterator[Step],
    marks: Sequence[int],
    unedited: Unedited,
    run: RunDirectory | None,
    told: Progress,
) -> Made:
    """Make all edits; at some numbers of edits, take a point of the collapse curve."""
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
        notes |= {case.case_id: step.record(case) for case in step.cases}
        before = len(so_far)
        so_far += [case.rewrite for case in some]
        due = any(before < mark <= len(so_far) for mark in marks)
        if due and len(so_far) not in points:
            points[len(so_far)] = point(total, so_far, unedited)
            if run is not None:
                run.write_text(CURVE, dumps(list(points.values())) + "\n")
    return Made(total, notes, tuple(points.values()))


def on_final_state(
    cases: Sequence[Case],
    made: Made,
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
        for record in case_records(some, made.total, unedited):
            record |= made.notes[record["case_id"]]
            if run is not None and record["case_id"] not in done:
                run.append_case(record)
            yield record


def case_records(cases: Sequence[Case], edit: Any, unedited: Unedited) -> list[dict[str, Any]]:
    """Readings of some cases, unedited and under an edit."""
    before = unedited.records(cases)
    after, carried = unedited.read(cases, edit), unedited.carried(cases, edit)
    return [
        {
            "case_id": case.case_id,
            "rewrite": asdict(case.rewrite),
            "before": own["before"],
            "after": said,
            "portability": own["portability"] and {**own["portability"], "after": follows},
        }
        for case, own, said, follows in zip(cases, before, after, carried, strict=True)
    ]


def final_side_effects(
    total: Any, unedited: Unedited, run: RunDirectory | None, told: Progress, method: str
) -> SideComparison | None:
    """Side effects of the final state, or those that an earlier run saved."""
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
