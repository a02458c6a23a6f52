"""Does the model use what a probe reads? Remove it, or move it, and measure the next token.

    forget(model, task, depth=8).figure()              # amnesic probing
    move(model, task, depth=8, source="sing", goal="plur", targets={...}).figure()

Both change the residual stream at one depth, at the token that is read, and let the model go on
from there. The reading is the distribution of the next token. A probe's directions are always
compared with random ones: as many of them, and for each example a change of the same norm. A
large effect of the placebo says that the state was broken, not that a property was removed.

References:
    Elazar, Ravfogel, Jacovi and Goldberg (2021), Amnesic Probing: Behavioral Explanation with
    Amnesic Counterfactuals, sections 3 and 4.

Differs from the paper:
    The change is at one token and one depth, not at all tokens; the projection is to the mean
    (`probes.use.directions`); the placebo is matched in norm for every example, not only in rank.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.stats import generator
from probes.probing.by_depth import limited
from probes.states.alignment import Encoded, encoded
from probes.states.features import features_of, readable
from probes.states.selection import States
from probes.tasks.task import Task
from probes.use.configuration import FORGETTING, MOVING, Forgetting, Intervention, Moving
from probes.use.directions import nullspace
from probes.use.next_token import Reads
from probes.use.use_result import Effect, UseResult

__all__ = ["Effect", "UseResult", "forget", "move"]


@checked
def forget(model: LabModel, task: Task, depth: int, how: Forgetting = FORGETTING) -> UseResult:
    """Remove a task's directions from the state and, as a placebo, as many random ones.

        forget(model, task, depth=8).figure()

    Args:
        model: The model.
        task: A task of classes.
        depth: Blocks passed through, 0..n_layers.
        how: In how many rounds, from how many examples, with which seed: see `Forgetting`.

    Raises:
        InputError: If labels are numbers, differences are read, or there is no such depth.
        OneClass, ClassTooSmall, EmptySplit, LeakingSplit: If the task cannot be learned.

    Shows:
        How far the next token changes where all that a linear probe finds of a task is gone,
        against random directions of the same size.

    Does not show:
        That the task plays no part where nothing changes: other positions and nonlinear traces of
        it remain.
    """
    task, known = _ready(model, task, depth, how)
    split = task.split(seed=how.seed)
    features = features_of(model, task, States(depths=(depth,)), known=known, cache=False)
    removal = nullspace(task, split, features.at(depth), rounds=how.rounds, seed=how.seed)
    reads = Reads.of(model, features, known, split.test[: how.n_texts])
    taken = reads.states - removal(reads.states)
    random = removal.placebo(how.seed)
    placebo = _same_norm(reads.states - random(reads.states), taken)
    return reads.result(
        {"the task's directions": -taken, "random directions": -placebo},
        change=f"removing {len(removal.directions)} directions",
        rank=len(removal.directions),
        scores=removal.scores,
        seed=how.seed,
    )


@checked
def move(
    model: LabModel,
    task: Task,
    depth: int,
    how: Moving = MOVING,
    *,
    source: str,
    goal: str,
    targets: Mapping[str, Sequence[str]] | None = None,
) -> UseResult:
    """Move the states of one class towards another, and in a random direction as far.

        move(model, task, depth=8, source="sing", goal="plur").figure()

    Args:
        model: The model.
        task: A task of classes.
        depth: Blocks passed through, 0..n_layers.
        how: How far, from how many examples, with which seed: see `Moving`.
        source: The class whose examples are moved.
        goal: The class that they are moved to.
        targets: By class, words that may follow; those of `source` and `goal` give the pull.

    Raises:
        InputError: If labels are numbers, differences are read, there is no such depth or
            class, or no example of the source on the test side.
        EmptyTarget: If a target tokenises to nothing.

    Shows:
        How far the next token follows a state that is moved from one class to another, against a
        random move as long.

    Does not show:
        That this direction is the one that the model itself reads: any that pushes the state far
        enough may do something.
    """
    task, known = _ready(model, task, depth, how)
    split = task.split(seed=how.seed)
    labels = task.labels
    for name, side in ((source, split.train), (goal, split.train), (source, split.test)):
        if name not in labels[side]:
            raise InputError(
                f"{task.name!r} has no example of {name!r} on either side of its split"
            )
    if targets is not None and not all(targets.get(name) for name in (source, goal)):
        raise InputError(f"targets need words for both {source!r} and {goal!r}")
    features = features_of(model, task, States(depths=(depth,)), known=known, cache=False)
    states = torch.tensor(features.at(depth))
    means = [states[split.train][labels[split.train] == name].mean(0) for name in (source, goal)]
    chosen = split.test[labels[split.test] == source][: how.n_texts]
    reads = Reads.of(model, features, known, chosen)
    moved = (how.steps * (means[1] - means[0])).to(reads.states).expand_as(reads.states)
    draw = generator(how.seed, "random direction", task.name, depth)
    random = torch.randn(moved.shape, generator=draw).to(moved)
    words = None if targets is None else (targets[source], targets[goal])
    return reads.result(
        {f"towards {goal}": moved, "a random direction": _same_norm(random, moved)},
        change=f"moving {source} to {goal}",
        rank=1,
        scores=(),
        seed=how.seed,
        words=words,
    )


def _ready(
    model: LabModel, task: Task, depth: int, how: Intervention
) -> tuple[Task, list[Encoded]]:
    """The task, limited, after checking it and the depth; and its texts, tokenised."""
    if task.numeric:
        raise InputError(f"the labels of {task.name!r} are numbers: a probe of classes is needed")
    if task.of_differences:
        raise InputError(
            f"{task.name!r} reads differences of states: an intervention needs a task that reads "
            "single states"
        )
    if not 0 <= depth <= model.n_layers:
        raise InputError(f"depth {depth} of {model.name}: choose one of 0..{model.n_layers}")
    task.split(seed=how.seed)
    known = encoded(model, task.texts)
    return limited(readable(model, task, known), how.n_train, seed=how.seed)[0], known


def _same_norm(
    some: Float[Tensor, "row width"], like: Float[Tensor, "row width"]
) -> Float[Tensor, "row width"]:
    """Vectors with their own directions and the norms of others, row by row."""
    sizes = some.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return some * (like.norm(dim=-1, keepdim=True) / sizes)
