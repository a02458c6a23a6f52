"""What can be read out of a model's states, and whether the model uses it.

probes.sentences   sentences with gold labels: treebanks, and the project's own language
probes.tasks       words in texts with labels, split so that nothing leaks
probes.states      the states of those words, every depth in one pass
probes.probing     one task at every depth, many tasks on a map, with their controls
probes.trees       the structural probe: syntax trees as distances, at every depth
probes.use         take a probe's directions away, or move a state along them
probes.cloze       from which depth a fact is readable, and from which it is said
probes.relations   a relation as one linear map
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.cloze.objects import Cloze
    from probes.cloze.translator_fit import TranslatorFit
    from probes.probing.by_depth import probe
    from probes.probing.configuration import MAP, Probing
    from probes.probing.controls import random_twin
    from probes.probing.description_length import online_code
    from probes.probing.estimators import ESTIMATORS
    from probes.probing.fitted import FittedProbe
    from probes.probing.map import probe_map
    from probes.probing.map_result import ProbeMap
    from probes.probing.probe_result import ProbeResult
    from probes.relations.linear import LinearRelation
    from probes.relations.relation_scores import ScoreRelations
    from probes.states.features import features_of
    from probes.states.selection import States
    from probes.tasks.data import tasks_of
    from probes.tasks.defaults import default_tasks
    from probes.tasks.task import Example, Task
    from probes.trees.by_depth import TreesResult, probe_trees
    from probes.trees.configuration import TreeProbing
    from probes.trees.structural import StructuralProbe
    from probes.use.configuration import Forgetting, Moving
    from probes.use.interventions import forget, move

__getattr__, __dir__, __all__ = door(__name__, __file__)
