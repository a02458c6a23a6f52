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
    anchors          attention among demonstrations, read and blocked
    heads            induction heads found and switched off: what goes with them
    ordering         the same demonstrations in other orders
    gains            which tasks gain from demonstrations, corrected for their number
    instructions     told what to do, shown it, or both; what the model itself proposes
    task_vectors     demonstrations as one state, put into bare queries
    function_vectors the heads that carry a task, summed
    trajectories     the answer by depth, with and without demonstrations
    influence        what every single demonstration is worth
    regression       a transformer trained on linear regression beside learners with a formula
    descent          attention made by hand that is gradient descent
    finetuning       seeing demonstrations beside fine-tuning on them
"""

from labkit.icl.anchors import Anchors
from labkit.icl.anchors_result import AnchorsResult
from labkit.icl.asking import scorable
from labkit.icl.choice import Choice
from labkit.icl.conditions import CONDITIONS
from labkit.icl.demonstrations import Demonstrations
from labkit.icl.descent import Descend, DescentResult
from labkit.icl.finetuning import FineTuningComparison
from labkit.icl.finetuning_result import FineTuningResult
from labkit.icl.function_vector_result import FunctionVectorResult
from labkit.icl.function_vectors import FunctionVectors
from labkit.icl.gains import Gains, GainsResult
from labkit.icl.heads import HeadAblation
from labkit.icl.heads_result import HeadAblationResult
from labkit.icl.influence import Influence
from labkit.icl.influence_result import InfluenceResult
from labkit.icl.instructions import Instructions
from labkit.icl.instructions_result import InstructionsResult
from labkit.icl.order_result import OrdersResult
from labkit.icl.ordering import Orders
from labkit.icl.own_tasks import task, task_names
from labkit.icl.prompts import Prompt, Shot, ShotSpans, render, write
from labkit.icl.regression import CompareLearners
from labkit.icl.regression_result import RegressionResult
from labkit.icl.result import DemonstrationsResult
from labkit.icl.scoring import label_ids, prompt_ids, score_labels, told_apart
from labkit.icl.task_vectors import TaskVectors
from labkit.icl.tasks import Item, Task, Template, pairs_task
from labkit.icl.trajectories import Trajectories, TrajectoriesResult
from labkit.icl.vector_result import VectorResult

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
