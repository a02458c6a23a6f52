"""Causal tracing: one state restored at a time, for one fact or many; severed; between prompts."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.locate.traces.alignment import ROLES, align
    from labkit.locate.traces.averaged_trace import AveragedTrace, EarlySite
    from labkit.locate.traces.averages import average_traces
    from labkit.locate.traces.patching import PairResult, PairTrace
    from labkit.locate.traces.severing import SeveredComparison, compare_severed
    from labkit.locate.traces.trace_result import TraceResult
    from labkit.locate.traces.tracing import CausalTrace

__getattr__, __dir__, __all__ = door(__name__, __file__)
