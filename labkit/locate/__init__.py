"""Where a fact is stored: causal tracing, and methods that approximate or rival it."""

from labkit.locate.tracing import CausalTrace, TraceResult

__all__ = ["CausalTrace", "TraceResult"]
