"""Where a fact is stored: causal tracing, and methods that approximate or rival it."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.locate.agreement import Agreement, compare
    from labkit.locate.attention.head_kinds import HeadScores, head_scores
    from labkit.locate.attention.heads import HeadReport, head_report
    from labkit.locate.attention.knockout import AttentionKnockout
    from labkit.locate.attention.knockout_of_many import average_knockouts
    from labkit.locate.attention.knockout_result import KnockoutAverage, KnockoutResult
    from labkit.locate.attention.patterns import AttentionPatterns, attention_patterns
    from labkit.locate.attributions.attribution import AttributionPatching
    from labkit.locate.attributions.attribution_result import AttributionResult, TraceAgreement
    from labkit.locate.attributions.pairs import PairAttribution, attribution_pairs
    from labkit.locate.neurons.knowledge import KnowledgeNeurons
    from labkit.locate.neurons.knowledge_result import KnowledgeNeuronsResult
    from labkit.locate.neurons.many_facts import NeuronTests, neuron_tests
    from labkit.locate.neurons.switching import NeuronTest, RandomNeurons
    from labkit.locate.traces.alignment import ROLES, align
    from labkit.locate.traces.averaged_trace import AveragedTrace, EarlySite
    from labkit.locate.traces.averages import average_traces
    from labkit.locate.traces.patching import PairResult, PairTrace
    from labkit.locate.traces.severing import SeveredComparison, compare_severed
    from labkit.locate.traces.trace_result import TraceResult
    from labkit.locate.traces.tracing import CausalTrace

__getattr__, __dir__, __all__ = door(__name__, __file__)
