"""Where a fact is stored: causal tracing, and methods that approximate or rival it."""

from labkit.locate.alignment import ROLES, align
from labkit.locate.tracing import CausalTrace, TraceResult

__all__ = ["ROLES", "CausalTrace", "TraceResult", "align"]
