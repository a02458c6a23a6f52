"""Where a fact is stored: causal tracing, and methods that approximate or rival it."""

from labkit.locate.alignment import ROLES, align
from labkit.locate.attribution import AttributionPatching
from labkit.locate.attribution_pairs import PairAttribution, attribution_pairs
from labkit.locate.attribution_result import AttributionResult, TraceAgreement
from labkit.locate.averaged_trace import AveragedTrace, EarlySite
from labkit.locate.averages import average_traces
from labkit.locate.compare import Agreement, compare
from labkit.locate.head_kinds import HeadScores, head_scores
from labkit.locate.heads import HeadReport, head_report
from labkit.locate.knockout import AttentionKnockout, average_knockouts
from labkit.locate.knockout_result import KnockoutAverage, KnockoutResult
from labkit.locate.neurons import KnowledgeNeurons, KnowledgeNeuronsResult
from labkit.locate.patching import PairResult, PairTrace
from labkit.locate.patterns import AttentionPatterns, attention_patterns
from labkit.locate.severing import SeveredComparison, compare_severed
from labkit.locate.switching import NeuronTest
from labkit.locate.trace_result import TraceResult
from labkit.locate.tracing import CausalTrace

__all__ = [
    "ROLES",
    "Agreement",
    "AttentionKnockout",
    "AttentionPatterns",
    "AttributionPatching",
    "AttributionResult",
    "AveragedTrace",
    "CausalTrace",
    "EarlySite",
    "HeadReport",
    "HeadScores",
    "KnockoutAverage",
    "KnockoutResult",
    "KnowledgeNeurons",
    "KnowledgeNeuronsResult",
    "NeuronTest",
    "PairAttribution",
    "PairResult",
    "PairTrace",
    "SeveredComparison",
    "TraceAgreement",
    "TraceResult",
    "align",
    "attention_patterns",
    "attribution_pairs",
    "average_knockouts",
    "average_traces",
    "compare",
    "compare_severed",
    "head_report",
    "head_scores",
]
