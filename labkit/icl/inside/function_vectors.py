"""Function vectors: a task as the sum of what a few attention heads write.

1. Mean outputs. After demonstrations with their own labels, the mean output of each head at
   the last position, over prompts.
2. Which heads. In prompts whose labels are permuted, so that they show the task no more, one
   head's output is replaced by its mean; its average indirect effect (AIE) is the mean change
   of P(right label). The heads with the highest AIE are kept.
3. The vector is the sum of their mean outputs, as written to the residual stream. It is added,
   at scales s, after block l at the last position of queries without demonstrations:

       h_l(x)  <-  h_l(x) + s * sum_heads W_O^head  mean(head)

Placebos of the same norm: as many random other heads, summed in the same way and rescaled, and
random directions. Prompts for steps 1 and 2, queries to choose layer and scale, and queries to
measure on are different items.

References:
    Todd et al. (2024), Function Vectors in Large Language Models, sections 2.2, 2.3 and 3.

Differs from the paper:
    Heads are chosen on the task at hand, not over many tasks. Layer and scale are chosen on
    queries of their own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.icl.asking.queries import asked_ids, drawn_shots
from labkit.icl.asking.scoring import require_context
from labkit.icl.inside.effects_of_heads import head_effects, last_heads, require_heads, written
from labkit.icl.inside.function_vector_result import FunctionVectorResult
from labkit.icl.inside.vector_method import VectorMethod
from labkit.icl.inside.vectors import Labels, LastPositions, random_like, swept, words
from labkit.icl.tasks.items import Item, Task
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.beginnings import Ids


@dataclass(frozen=True, kw_only=True)
class FunctionVectors(VectorMethod):
    """The function vector of a task, against placebos.

        FunctionVectors(k=10)(model, labkit.icl.task("past")).figure()

    Attributes:
        k: Number of demonstrations, at least 2; Todd et al. use 10.
        heads: How many heads are summed; Todd et al. use 10 of the 448 of GPT-J.
        prompts: Prompts for the mean outputs, and as many others for the effects; they use 100
            and 25.
        draws: Random sums of heads, random directions, and sets of demonstrations to compare
            with.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        Whether the sum of a few heads' mean outputs makes a bare query be answered as the task
        asks, against random heads.

    Does not show:
        That the model carries the task through these heads alone: the effect of a head misses
        what other heads would make good.
    """

    heads: int = 10
    prompts: int = 20
    scales: tuple[float, ...] = (1.0, 2.0)

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if min(self.heads, self.prompts) < 1:
            raise InputError("heads and prompts: at least one of each")
        if self.k < 2:
            raise InputError(f"k = {self.k}: two demonstrations at least, to permute their labels")

    @checked
    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> FunctionVectorResult:
        """Find the heads of a task, and add their vector to queries without demonstrations.

        Args:
            model: The model.
            task: The task; its labels are told apart by first tokens (`labkit.icl.told_apart`).
            progress: Called with what is being done and the share that is done.

        Raises:
            PoolTooSmall: If the task has too few items for demonstrations and queries.
            LayerOutOfRange: If there is no such layer.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels begin with the same token.
            ContextTooShort: If the demonstrations with a query are too long.
            InputError: If the model has too few heads for as many random others.
            NotDecomposable: If the model's heads have no output of their own.
        """
        require_heads(model)
        n_all = model.n_layers * model.n_heads
        if 2 * self.heads > n_all:
            raise InputError(
                f"{self.heads} heads and as many random others of {model.name}, which has {n_all}"
            )
        trial = self.trial(model, task)
        queries, pool = trial.queries, trial.pool
        clean, _ = self.drawn(model, task, pool, "mean outputs", permuted=False)
        shuffled, about = self.drawn(model, task, pool, "effects", permuted=True)
        sets = [
            drawn_shots(pool, self.k, self.seed, task.name, "shown", draw)
            for draw in range(self.draws)
        ]
        shown = [asked_ids(model, task, items, queries) for items in sets]
        for prompts in (clean, shuffled, *shown):
            require_context(model, prompts, [(0,)])

        mean = last_heads(model, clean, memory=self.memory).mean(dim=0)
        confused = LastPositions(model, shuffled, memory=self.memory)
        effects = head_effects(
            model, confused, Labels.of(model, task, about), mean,
            memory=self.memory, progress=progress,
        )  # fmt: skip
        order = rearrange(effects.mean(dim=0), "layer head -> (layer head)").argsort(
            descending=True, stable=True
        )
        outputs = rearrange(written(model, mean), "layer head d_model -> (layer head) d_model")
        own = outputs[order[: self.heads].to(outputs.device)].sum(dim=0)
        others = self.placebos(task, outputs, order[self.heads :], own)

        bare = self.bare(model, task, trial)
        scales = rearrange(torch.tensor(self.scales).to(own), "scale -> scale 1 1 1")
        readings = []
        for place, layer in enumerate(trial.layers):
            listener(progress)(f"function vector, layer {layer}", place / len(trial.layers))
            parts = []
            for vectors in (own[None, None], others):
                added = scales * rearrange(vectors, "vector draw d -> vector 1 draw 1 d")
                parts.append(swept(bare, trial.labels, layer, bare.states[layer] + added))
            alike = np.broadcast_to(  # the vector itself is the same in every draw
                parts[0], (*parts[0].shape[:3], self.draws, parts[0].shape[-1])
            )
            readings.append(np.concatenate([alike, parts[1]], axis=1))
        return FunctionVectorResult(
            method="function vector",
            **self.found(model, task, trial, bare=bare, shown=shown, readings=readings),
            form="add",
            vectors=("function vector", "random heads", "random direction"),
            directions=own[None, None].float().cpu().numpy(),
            words=words(model, own[None], 10),
            effects=effects.numpy(),
            heads=tuple(divmod(int(cell), model.n_heads) for cell in order[: self.heads]),
        )

    def drawn(
        self, model: LabModel, task: Task, pool: list[Item], what: str, *, permuted: bool
    ) -> tuple[list[Ids], list[Item]]:
        """Prompts of the pool's own items, and the items that they ask about."""
        prompts, about = [], []
        for number in range(self.prompts):
            *items, query = drawn_shots(pool, self.k + 1, self.seed, task.name, what, number)
            if permuted:
                draw = stats.numpy_generator(self.seed, task.name, what, "labels", number)
                order = draw.permutation(len(items))
                items = [
                    Item(input=item.input, label=items[place].label)
                    for item, place in zip(items, order, strict=True)
                ]
            prompts += asked_ids(model, task, items, [query])
            about.append(query)
        return prompts, about

    def placebos(
        self,
        task: Task,
        outputs: Float[Tensor, "cell d_model"],
        left: Tensor,
        own: Float[Tensor, " d_model"],
    ) -> Float[Tensor, "vector draw d_model"]:
        """Sums of random other heads with the vector's norm, and random directions with it."""
        sums = []
        for number in range(self.draws):
            draw = stats.generator(self.seed, task.name, "random heads", number)
            some = left[torch.randperm(len(left), generator=draw)[: self.heads]]
            total = outputs[some.to(outputs.device)].sum(dim=0)
            sums.append(total * (own.norm() / total.norm()))
        alike = own.expand(self.draws, -1)
        return torch.stack([torch.stack(sums), random_like(alike, self.seed, task.name, "placebo")])
