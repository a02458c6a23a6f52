"""Where a fact is stored: causal tracing, and methods that approximate or rival it."""

from labkit.locate.alignment import ROLES, align
from labkit.locate.attribution import AttributionPatching
from labkit.locate.attribution_pairs import PairAttribution, attribution_pairs
from labkit.locate.attribution_result import AttributionResult, TraceAgreement
from labkit.locate.head_kinds import HeadScores, head_scores
from labkit.locate.heads import HeadReport, head_report
from labkit.locate.knockout import AttentionKnockout, average_knockouts
from labkit.locate.knockout_result import KnockoutAverage, KnockoutResult
from labkit.locate.neurons import KnowledgeNeurons, KnowledgeNeuronsResult
from labkit.locate.patterns import AttentionPatterns, attention_patterns
from labkit.locate.readable import ReadableFacts, readable
from labkit.locate.switching import NeuronTest
from labkit.locate.tracing import CausalTrace, TraceResult

__all__ = [
    "ROLES",
    "AttentionKnockout",
    "AttentionPatterns",
    "AttributionPatching",
    "AttributionResult",
    "CausalTrace",
    "HeadReport",
    "HeadScores",
    "KnockoutAverage",
    "KnockoutResult",
    "KnowledgeNeurons",
    "KnowledgeNeuronsResult",
    "NeuronTest",
    "PairAttribution",
    "ReadableFacts",
    "TraceAgreement",
    "TraceResult",
    "align",
    "attention_patterns",
    "attribution_pairs",
    "average_knockouts",
    "head_report",
    "head_scores",
    "readable",
]
