"""A relation as one linear map from subjects to objects, and how far that holds."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.relations.linear import LinearRelation
    from probes.relations.relation_scores import ScoreRelations

__getattr__, __dir__, __all__ = door(__name__, __file__)
