"""The structural probe: syntax trees as distances between states, at every depth."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.trees.by_depth import TreesResult, probe_trees
    from probes.trees.configuration import TreeProbing
    from probes.trees.structural import StructuralProbe

__getattr__, __dir__, __all__ = door(__name__, __file__)
