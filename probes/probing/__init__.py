"""Probes and their controls: one task at every depth, many tasks on one map."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.probing.by_depth import probe
    from probes.probing.configuration import MAP, Probing
    from probes.probing.controls import random_twin
    from probes.probing.description_length import OnlineCode, online_code
    from probes.probing.estimators import ESTIMATORS
    from probes.probing.fitted import FittedProbe
    from probes.probing.map import probe_map
    from probes.probing.map_result import ProbeMap
    from probes.probing.probe_result import ProbeResult

__getattr__, __dir__, __all__ = door(__name__, __file__)
