"""What can be read out of a model's states, and whether the model uses it.

    probes.tasks       words in texts with labels, split so that nothing leaks
    probes.features    the states of those words, every depth in one pass
    probes.probe       one task at every depth, with the controls that make a score readable
    probes.map         many tasks, and whether one kind of knowledge lies lower than another
    probes.trees       the structural probe: syntax trees as distances, at every depth
    probes.data        tasks from a treebank, minimal pairs, relations or places of your own
    probes.use         take a probe's directions away, or move a state along them
    probes.cloze       from which depth a fact is readable, and from which it is said
    probes.relations   a relation as one linear map

The functions of a module's own name are imported from there: `from probes.probe import probe`.
"""

from probes.cloze import Cloze
from probes.controls import random_twin
from probes.data import tasks_of
from probes.description_length import online_code
from probes.estimators import ESTIMATORS
from probes.features import features_of
from probes.map import probe_map
from probes.map_result import ProbeMap
from probes.probe_result import ProbeResult
from probes.relation_scores import ScoreRelations
from probes.relations import LinearRelation
from probes.structural import StructuralProbe
from probes.tasks import Example, Task
from probes.translator_fit import TranslatorFit
from probes.trees import TreesResult, probe_trees
from probes.use import forget, move

__all__ = [
    "ESTIMATORS",
    "Cloze",
    "Example",
    "LinearRelation",
    "ProbeMap",
    "ProbeResult",
    "ScoreRelations",
    "StructuralProbe",
    "Task",
    "TranslatorFit",
    "TreesResult",
    "features_of",
    "forget",
    "move",
    "online_code",
    "probe_map",
    "probe_trees",
    "random_twin",
    "tasks_of",
]
