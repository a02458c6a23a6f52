"""Where a fact is stored: causal tracing, and methods that approximate or rival it."""

from labkit.locate.alignment import ROLES, align
from labkit.locate.attribution import AttributionPatching
from labkit.locate.attribution_pairs import PairAttribution, attribution_pairs
from labkit.locate.attribution_result import AttributionResult, TraceAgreement
from labkit.locate.tracing import CausalTrace, TraceResult

__all__ = [
    "ROLES",
    "AttributionPatching",
    "AttributionResult",
    "CausalTrace",
    "PairAttribution",
    "TraceAgreement",
    "TraceResult",
    "align",
    "attribution_pairs",
]
