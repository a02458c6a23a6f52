"""What the demo made: everything for a report, its numbers for a summary."""

from dataclasses import asdict, dataclass
from typing import Any

from labkit.demo.checkpoint import Reload
from labkit.facts.fact import Case
from labkit.locate import TraceResult
from labkit.readout import LensResult, Predictions
from labkit.results.result import RunDirectory


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


def case_records(found: Any) -> list[dict[str, Any]]:
    """One record per prompt of the audit, for `cases.jsonl`."""
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
