"""Queries after demonstrations: likelihoods of labels, with shared beginnings run once."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.icl.asking.measures import MEASURES
    from labkit.icl.asking.queries import scorable
    from labkit.icl.asking.scoring import label_ids, prompt_ids, score_labels, told_apart

__getattr__, __dir__, __all__ = door(__name__, __file__)
