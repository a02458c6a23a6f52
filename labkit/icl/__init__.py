"""Learning in context: what demonstrations do, and what it is about them that matters.

No weight changes, and still a model does a task after a few examples. Here is the bench:

    tasks            inputs, labels, instructions, and how they are written down
    own_tasks        the lab's own
    readers          tasks from published files
    prompts          prompts with the tokens of every part known
    scoring          log-probability of every label, shared beginnings run once
    asking           what stands in front of queries, and every label's score behind it
    measures         accuracy, probability, and paired tests, from scores
    conditions       what is done to demonstrations: labels permuted, inputs foreign, ...
    demonstrations   accuracy against the number of demonstrations, by condition
    result           what that found
    choice           drawn at random, the nearest to each query, or far from each other
    nearness         what is near, and what is far from each other
    ordering         the same demonstrations in other orders
    gains            which tasks gain from demonstrations, corrected for their number
    instructions     told what to do, shown it, or both; what the model itself proposes

and two packages:

    inside           which parts of a model do it
    implicit         is it a learning algorithm?
"""

from labkit.icl.asking import scorable
from labkit.icl.choice import Choice
from labkit.icl.conditions import CONDITIONS
from labkit.icl.demonstrations import Demonstrations
from labkit.icl.gains import Gains, GainsResult
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
from labkit.icl.instructions import Instructions
from labkit.icl.instructions_result import InstructionsResult
from labkit.icl.order_result import OrdersResult
from labkit.icl.ordering import Orders
from labkit.icl.own_tasks import task, task_names
from labkit.icl.prompts import Prompt, Shot, ShotSpans, render, write
from labkit.icl.result import DemonstrationsResult
from labkit.icl.scoring import label_ids, prompt_ids, score_labels, told_apart
from labkit.icl.tasks import Item, Task, Template, pairs_task

__all__ = [
    "CONDITIONS",
    "Anchors",
    "AnchorsResult",
    "Choice",
    "CompareLearners",
    "Demonstrations",
    "DemonstrationsResult",
    "Descend",
    "DescentResult",
    "FineTuningComparison",
    "FineTuningResult",
    "FunctionVectorResult",
    "FunctionVectors",
    "Gains",
    "GainsResult",
    "HeadAblation",
    "HeadAblationResult",
    "Influence",
    "InfluenceResult",
    "Instructions",
    "InstructionsResult",
    "Item",
    "Orders",
    "OrdersResult",
    "Prompt",
    "RegressionResult",
    "Shot",
    "ShotSpans",
    "Task",
    "TaskVectors",
    "Template",
    "Trajectories",
    "TrajectoriesResult",
    "VectorResult",
    "label_ids",
    "pairs_task",
    "prompt_ids",
    "render",
    "scorable",
    "score_labels",
    "task",
    "task_names",
    "told_apart",
    "write",
]
