"""Attention: patterns, kinds of heads, and the effect of blocking edges."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.locate.attention.head_kinds import HeadScores, head_scores
    from labkit.locate.attention.heads import HeadReport, head_report
    from labkit.locate.attention.knockout import AttentionKnockout
    from labkit.locate.attention.knockout_of_many import average_knockouts
    from labkit.locate.attention.knockout_result import KnockoutAverage, KnockoutResult
    from labkit.locate.attention.patterns import AttentionPatterns, attention_patterns

__getattr__, __dir__, __all__ = door(__name__, __file__)
