"""Facts, and what is asked about them: records, collections, chains, cases, what a model knows.

A *fact* is (subject, relation prompt, object); a *rewrite* is a fact with a new object; a *case*
is a rewrite with everything that is asked of the edited model. Facts that ship, readers of
published collections, and `known_facts` for what a model knows.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.facts.bundled import bundled_facts, bundled_relations
    from labkit.facts.cases import demo_case, make_case
    from labkit.facts.chains import Chains
    from labkit.facts.datasets import (
        MultiHop,
        OpenQuestion,
        read_known,
        read_multihop,
        read_questions,
        read_relations,
    )
    from labkit.facts.fact import Case, Deletion, Fact, Neighbour, Relation, Rewrite
    from labkit.facts.known import KnownFact, KnownFacts, known_facts
    from labkit.facts.own_cases import case_of
    from labkit.facts.records import read_cases, read_facts, read_rewrites, write_jsonl
    from labkit.facts.ripple import RippleEdit, RippleEdits, read_ripple_edits
    from labkit.facts.worlds import World, chains_of, facts_of, world_of

__getattr__, __dir__, __all__ = door(__name__, __file__)
