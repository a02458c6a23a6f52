"""The influence of every single demonstration: by leaving it out, and by attribution.

*Leave-one-out* is the ground truth for one demonstration among these others,

    influence_i = log P(right label | all k) - log P(right label | all but i)

in nats, at the cost of k + 1 runs of every prompt. Two cheaper readings are compared with it:

- *gradient*: gradient times input of log P(right label) with respect to the states that enter
  the first block, summed over the tokens of the demonstration;
- *attention*: the weight that the last position puts on those tokens, mean over all heads of
  all layers. The first token of the prompt is left out: it serves as a sink, whatever it says;

and so is *position*: whether the last demonstrations weigh most. Tokens of a demonstration reach
from its first to the one before the next part. Labels are scored by their first token.

References:
    Koh and Liang (2017), Understanding Black-box Predictions via Influence Functions, section 1
    (leave-one-out). Shrikumar et al. (2017), Learning Important Features, section 1 (gradient
    times input). Zhao et al. (2021), Calibrate Before Use, section 4 (recency).

Differs from the papers:
    No retraining: the model stays, the prompt changes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.icl.asking.queries import asked_ids, asked_prompts, drawn_shots
from labkit.icl.asking.scoring import label_ids, require_context, score_labels
from labkit.icl.asking.task_result import about_queries
from labkit.icl.inside.influence_result import InfluenceResult
from labkit.icl.tasks.items import Task
from labkit.icl.tasks.prompts import Prompt
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import run_with_cache
from labkit.running.execute import Execution
from labkit.running.logits import MEMORY, rows_within
from labkit.running.scoring import logits_of


@dataclass(frozen=True, kw_only=True)
class Influence:
    """The influence of every demonstration, against attribution and position.

        Influence(k=8)(model, task).figure()

    Attributes:
        k: Number of demonstrations, at least 3 for there to be ranks.
        sets: How many sets of demonstrations are drawn.
        queries: How many items are asked after each; fewer where the pool is small.
        seed: Seed of every draw.
        memory: Bound on the activations held at once, in bytes.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        What each demonstration is worth to the right label, and whether gradients or attention
        foretell it.

    Does not show:
        Its worth among others than these: leaving one out shifts those before it, and others may
        make good for it; attention says where a head reads, not what depends on it.
    """

    k: int = 8
    sets: int = 4
    queries: int = 20
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.k < 3:
            raise InputError(f"k = {self.k}: ranks need three demonstrations at least")
        if self.sets < 1 or self.queries < 1:
            raise InputError(f"{self.sets} sets, {self.queries} queries: at least one of each")

    @checked
    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> InfluenceResult:
        """Leave each demonstration out in turn, and attribute the answer to each.

        Args:
            model: The model.
            task: The task; its labels are told apart by first tokens (`labkit.icl.told_apart`).
            progress: Called with what is being done and the share that is done.

        Raises:
            PoolTooSmall: If there are fewer items than demonstrations and one query.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels begin with the same token.
            ContextTooShort: If the demonstrations with a query are too long.
        """
        queries, pool = task.queries_and_pool(self.queries, self.k, seed=self.seed)
        labels = label_ids(model, task.template, task.labels, tokens="first")
        gold = [task.labels.index(query.label) for query in queries]
        sets = [
            drawn_shots(pool, self.k, self.seed, "icl influence", task.name, number)
            for number in range(self.sets)
        ]
        shown = [asked_prompts(model, task, items, queries) for items in sets]
        require_context(model, [prompt.ids for some in shown for prompt in some], labels)

        groups = [
            asked_ids(model, task, some, queries)
            for items in sets
            for some in (items, *(items[:i] + items[i + 1 :] for i in range(self.k)))
        ]
        tables = torch.stack(
            score_labels(model, groups, labels, memory=self.memory, progress=progress)
        ).numpy()
        right = tables[:, np.arange(len(queries)), gold]
        log_probs = right.reshape(self.sets, self.k + 1, len(queries))
        gradient, attention = [], []
        for number, prompts in enumerate(shown):
            listener(progress)(f"attribution, set {number + 1} of {self.sets}", number / self.sets)
            targets = [labels[one][0] for one in gold]
            gradient.append(gradient_shares(model, prompts, targets, memory=self.memory))
            attention.append(attention_shares(model, prompts))
        return InfluenceResult(
            **about_queries(model, task, queries),
            shown=tuple(tuple((item.input, item.label) for item in items) for items in sets),
            seed=self.seed,
            full=log_probs[:, 0],
            left_out=np.moveaxis(log_probs[:, 1:], 1, 2),
            gradient=np.stack(gradient),
            attention=np.stack(attention),
        )


def gradient_shares(
    model: LabModel, prompts: list[Prompt], targets: list[int], *, memory: int = MEMORY
) -> Float[np.ndarray, "query demonstration"]:
    """Gradient times input of log P(target), summed over each demonstration's tokens, in nats."""
    longest = max(len(prompt.ids) for prompt in prompts)
    # Every layer's activations wait for the backward run, so that fewer rows fit.
    at_once = max(1, rows_within(model, longest, memory) // model.n_layers)
    found = []
    for start in range(0, len(prompts), at_once):
        some = prompts[start : start + at_once]
        batch = model.pad([prompt.ids for prompt in some])
        with torch.no_grad():
            run = Execution(model, batch)
        leaf = run.embed.detach().requires_grad_()
        with torch.enable_grad():
            wide = logits_of(model, run.forward(leaf)[:, -1])
            wanted = torch.tensor(targets[start : start + at_once], device=wide.device)
            total = wide.log_softmax(dim=-1).gather(1, wanted[:, None]).sum()
        (slope,) = torch.autograd.grad(total, leaf)
        weights = (slope * leaf.detach()).sum(dim=-1).double().cpu()
        found += [over_tokens(row, prompt) for row, prompt in zip(weights, some, strict=True)]
    return np.stack(found)


@torch.no_grad()
def attention_shares(
    model: LabModel, prompts: list[Prompt]
) -> Float[np.ndarray, "query demonstration"]:
    """Attention from the last position to each demonstration, 0..1, mean over all heads."""
    found = []
    for prompt in prompts:
        _, cache = run_with_cache(model, model.pad([prompt.ids]))
        patterns = [cache["pattern", layer][0, :, -1].double() for layer in range(model.n_layers)]
        weights = torch.stack(patterns).mean(dim=(0, 1)).cpu()
        weights[0] = 0.0  # the sink
        found.append(over_tokens(weights, prompt))
    return np.stack(found)


def over_tokens(
    weights: Float[Tensor, " pos"], prompt: Prompt
) -> Float[np.ndarray, " demonstration"]:
    """Sums over the tokens of each demonstration; positions are counted from the last."""
    own = weights[len(weights) - len(prompt.ids) :].numpy()
    starts = [shot.whole.start for shot in prompt.shots]
    stops = [*starts[1:], prompt.query.start]
    return np.array([own[one:end].sum() for one, end in zip(starts, stops, strict=True)])
