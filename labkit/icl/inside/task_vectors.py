"""Task vectors: a task as one state, taken from demonstrations and patched into a bare query.

After k demonstrations and a dummy query x', the residual stream leaving block l at the last
position, theta_l, has read the demonstrations and not the query that is asked. Put into the
prompt of a query x without demonstrations,

    h_l(x)  <-  theta_l                            form "replace"
    h_l(x)  <-  h_l(x) + s (theta_l - m_l)         form "add", at scales s

and the blocks after l run on. If the answer is then that of the task, the state replaces the
demonstrations. `m_l` is the mean state of the development queries, so that what is added is what
demonstrations change.

Placebos, put in the same place: the vector of another task, taken in the same way, and random
directions of the vector's norm. The layer (and scale) is chosen on development queries, and the
effect is read on others.

References:
    Hendel et al. (2023), In-Context Learning Creates Task Vectors, sections 3 and 4.

Differs from the paper:
    The form "add" is not theirs. Accuracy is read twice: over the vocabulary, as theirs, and
    among the labels. Placebos are added.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError, PoolTooSmall
from labkit.icl.asking.queries import asked_ids, drawn_shots
from labkit.icl.asking.scoring import require_context
from labkit.icl.inside.vector_method import VectorMethod
from labkit.icl.inside.vector_result import VectorResult
from labkit.icl.inside.vectors import random_like, swept, words
from labkit.icl.tasks.items import Task
from labkit.icl.tasks.own import task as own_task
from labkit.icl.tasks.own import task_names
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.states import last_streams

Form = Literal["replace", "add"]


@dataclass(frozen=True, kw_only=True)
class TaskVectors(VectorMethod):
    """The task vector of a task, layer by layer, against placebos.

        TaskVectors(k=5)(model, labkit.icl.task("past")).figure()

    Attributes:
        k: Number of demonstrations; Hendel et al. use 5.
        draws: Sets of demonstrations, each with a dummy query and hence a vector of its own.
        form: Whether the vector takes the place of the state, or is added to it.
        scales: How many times it is added; (1.0,) where it takes the place.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        Whether one state from behind demonstrations makes a bare query be answered as the task
        asks, against another task's state.

    Does not show:
        That the model makes use of such a vector when it reads demonstrations; at late layers it
        is only the answer to the dummy query (see `VectorResult.vocabulary`).
    """

    form: Form = "replace"

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if self.form not in ("replace", "add"):
            raise InputError(f"the form is 'replace' or 'add', not {self.form!r}")
        if self.form == "replace" and self.scales != (1.0,):
            raise InputError(
                "a vector that replaces a state has no scale: leave scales out, or choose "
                "form='add'"
            )

    @checked
    def __call__(
        self,
        model: LabModel,
        task: Task,
        *,
        other: Task | None = None,
        progress: Progress | None = None,
    ) -> VectorResult:
        """Take the vectors of a task, and put them into queries without demonstrations.

        Args:
            model: The model.
            task: The task; its labels are told apart by first tokens (`labkit.icl.told_apart`).
            other: The task whose vector is a placebo; by default one of the lab's own, written
                in the same way if there is one.
            progress: Called with what is being done and the share that is done.

        Raises:
            PoolTooSmall: If a task has fewer items than demonstrations, a dummy and two queries.
            LayerOutOfRange: If there is no such layer.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels begin with the same token.
            ContextTooShort: If the demonstrations with a query are too long.
            InputError: If the other task is the task itself.
        """
        trial = self.trial(model, task)
        queries, pool = trial.queries, trial.pool
        if other is None:
            other = neighbour(model, task)
        if other.name == task.name:
            raise InputError(f"{task.name!r} cannot be its own placebo: name another task")
        if len(other) < self.k + 1:
            raise PoolTooSmall(
                f"{self.k} demonstrations and a dummy query of {other.name!r}, which has "
                f"{len(other)} items: ask for fewer, or name another task"
            )
        sets = [drawn_shots(pool, self.k + 1, self.seed, task.name, "vector", draw)
                for draw in range(self.draws)]  # fmt: skip
        foreign = [
            drawn_shots(other.items, self.k + 1, self.seed, other.name, "vector", draw)
            for draw in range(self.draws)
        ]
        shown = [asked_ids(model, task, items[:-1], queries) for items in sets]
        taken = [
            [asked_ids(model, one, items[:-1], items[-1:])[0] for items in drawn]
            for one, drawn in ((task, sets), (other, foreign))
        ]
        for prompts in (*shown, *taken):
            require_context(model, prompts, [(0,)])

        bare = self.bare(model, task, trial)
        own, others = (last_streams(model, prompts, memory=self.memory) for prompts in taken)
        mean = bare.states[:, : trial.development].mean(dim=1, keepdim=True)
        if self.form == "add":
            own, others = own - mean, others - mean
        noise = random_like(own, self.seed, task.name, "placebo")
        kinds = torch.stack([own, others, noise])  # vector, layer, draw, d_model
        readings = []
        for place, layer in enumerate(trial.layers):
            listener(progress)(f"task vectors, layer {layer}", place / len(trial.layers))
            changed = self.changed(bare.states[layer], kinds[:, layer])
            readings.append(swept(bare, trial.labels, layer, changed))
        directions = own[list(trial.layers)]
        return VectorResult(
            method="task vector",
            **self.found(model, task, trial, bare=bare, shown=shown, readings=readings),
            form=self.form,
            vectors=("task vector", f"vector of {other.name}", "random direction"),
            directions=rearrange(directions, "l draw d -> draw l d").float().cpu().numpy(),
            words=words(model, directions[:, 0]),
        )

    def changed(
        self,
        states: Float[Tensor, "query d_model"],
        vectors: Float[Tensor, "vector draw d_model"],
    ) -> Float[Tensor, "vector scale draw query d_model"]:
        """The states after a block with each vector, scale and draw applied."""
        wide = repeat(
            vectors, "vector draw d_model -> vector scale draw query d_model",
            scale=len(self.scales), query=len(states),
        )  # fmt: skip
        if self.form == "replace":
            return wide
        scales = rearrange(torch.tensor(self.scales).to(states), "scale -> scale 1 1 1")
        return states + scales * wide


def neighbour(model: LabModel, task: Task) -> Task:
    """The next of the lab's own tasks, one that is written in the same way if there is one."""
    names = task_names(model)
    after = names.index(task.name) + 1 if task.name in names else 0
    others = [own_task(name, model) for name in (*names[after:], *names[:after])]
    others = [one for one in others if one.name != task.name]
    return next((one for one in others if one.template == task.template), others[0])
