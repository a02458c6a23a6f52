"""First-order approximations of causal traces, by gradients."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.locate.attributions.attribution import AttributionPatching
    from labkit.locate.attributions.attribution_result import AttributionResult, TraceAgreement
    from labkit.locate.attributions.pairs import PairAttribution, attribution_pairs

__getattr__, __dir__, __all__ = door(__name__, __file__)
