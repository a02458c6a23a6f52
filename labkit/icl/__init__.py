"""In-context learning: what demonstrations do, and which of their properties matter.

No weight changes, and still a model performs a task after a few examples. This package has:

    tasks       inputs, labels, instructions, and prompts with the tokens of every part known
    asking      log-probability of every label, shared beginnings run once
    behaviour   what number, labels, order, choice and instructions do to the answers
    inside      which parts of a model do it
    implicit    is it a learning algorithm?
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.icl.asking.queries import scorable
    from labkit.icl.asking.scoring import label_ids, prompt_ids, score_labels, told_apart
    from labkit.icl.behaviour.choice import Choice
    from labkit.icl.behaviour.conditions import CONDITIONS
    from labkit.icl.behaviour.demonstrations import Demonstrations
    from labkit.icl.behaviour.demonstrations_result import DemonstrationsResult
    from labkit.icl.behaviour.gains import Gains, GainsResult
    from labkit.icl.behaviour.instructions import Instructions
    from labkit.icl.behaviour.instructions_result import InstructionsResult
    from labkit.icl.behaviour.order_result import OrdersResult
    from labkit.icl.behaviour.ordering import Orders
    from labkit.icl.implicit.descent import Descend, DescentResult
    from labkit.icl.implicit.finetuning import FineTuningComparison
    from labkit.icl.implicit.finetuning_result import FineTuningResult
    from labkit.icl.implicit.regression import CompareLearners
    from labkit.icl.implicit.regression_result import RegressionResult
    from labkit.icl.inside.anchors import Anchors
    from labkit.icl.inside.anchors_result import AnchorsResult
    from labkit.icl.inside.function_vector_result import FunctionVectorResult
    from labkit.icl.inside.function_vectors import FunctionVectors
    from labkit.icl.inside.heads import HeadAblation
    from labkit.icl.inside.heads_result import HeadAblationResult
    from labkit.icl.inside.influence import Influence
    from labkit.icl.inside.influence_result import InfluenceResult
    from labkit.icl.inside.task_vectors import TaskVectors
    from labkit.icl.inside.trajectories import Trajectories, TrajectoriesResult
    from labkit.icl.inside.vector_result import VectorResult
    from labkit.icl.tasks.items import Item, Task, Template, pairs_task
    from labkit.icl.tasks.own import task, task_names
    from labkit.icl.tasks.prompts import Prompt, Shot, ShotSpans, render, write

__getattr__, __dir__, __all__ = door(__name__, __file__)
