"""Queries: what precedes them, and the scores of every label after each.

    fronts = {Front(shots): ["Italy", "Spain"], Front(shots, instruction="Name the capital."): ...}
    scores = ask(model, task, fronts)          # one table per front, queries down, labels across

Every method of this package draws its fronts in its own way; the rest is shared. Errors in tasks,
labels or lengths are raised before the model runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.icl.asking.scoring import (
    Tokens,
    label_ids,
    prompt_ids,
    require_context,
    require_tokens,
    score_labels,
    told_apart,
)
from labkit.icl.tasks.items import Item, Task
from labkit.icl.tasks.prompts import Prompt, Shot, render, write
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.running.beginnings import Ids
from labkit.stats import numpy_generator


@dataclass(frozen=True)
class Front:
    """What precedes a query.

    Attributes:
        shots: The demonstrations, first to last.
        shown: How they are written where that differs from the query, as in `render`.
        instruction: Text before the demonstrations; None for the template's own.
    """

    shots: tuple[Shot, ...] = ()
    shown: str | None = None
    instruction: str | None = None

    @classmethod
    def of(cls, items: Sequence[Item], *, instruction: str | None = None) -> "Front":
        """Items as demonstrations, with their own labels."""
        shots = tuple(Shot(input=item.input, label=item.label) for item in items)
        return cls(shots, instruction=instruction)

    def before(self, task: Task, query: str) -> str:
        """The text of the prompt."""
        template = task.template
        if self.instruction is not None:
            template = replace(template, instruction=self.instruction)
        return write(template, self.shots, query, shown=self.shown)


def ask(
    model: LabModel,
    task: Task,
    asked: Mapping[Front, Sequence[str]],
    *,
    tokens: Tokens = "all",
    progress: Progress | None = None,
) -> dict[Front, np.ndarray]:
    """Log-probability, in nats, of each label of the task after each front and query.

    Args:
        model: The model.
        task: The task.
        asked: By front, the inputs that are asked about after it.
        tokens: Whether all tokens of a label are scored, or its first alone.
        progress: Called as prompts are scored.

    Returns:
        By front a table `[query label]`, in float64.

    Raises:
        EmptyPrompt: If a front has no query.
        EmptyTarget: If a label tokenises to nothing.
        AmbiguousLabels: If two labels cannot be told apart by the tokens scored.
        ContextTooShort: If a prompt with its label is longer than the context.
    """
    groups, labels = prepare(model, task, asked, tokens=tokens)
    tables = score_labels(model, groups, labels, progress=progress)
    return {front: table.numpy() for front, table in zip(asked, tables, strict=True)}


def prepare(
    model: LabModel, task: Task, asked: Mapping[Front, Sequence[str]], *, tokens: Tokens
) -> tuple[list[list[Ids]], list[Ids]]:
    """The ids of all prompts, front by front, and of all labels; raises what `ask` does."""
    labels = label_ids(model, task.template, task.labels, tokens=tokens)
    groups = [
        prompt_ids(model, [front.before(task, text) for text in texts])
        for front, texts in asked.items()
    ]
    for prompts in groups:
        require_context(model, prompts, labels)
    return groups, labels


def require_fit(
    model: LabModel,
    task: Task,
    shown: Sequence[Item],
    queries: Sequence[Item],
    k: int,
    *,
    tokens: Tokens,
    instruction: str | None = None,
) -> None:
    """Raise unless any `k` of some items fit before any query; the model is not run.

    For methods that run the model to find out which items they show.

    Raises:
        EmptyTarget: If a label tokenises to nothing.
        AmbiguousLabels: If two labels cannot be told apart by the tokens scored.
        ContextTooShort: If the `k` longest items with the longest query are too long.
    """
    labels = label_ids(model, task.template, task.labels, tokens=tokens)

    def longest(items: Sequence[Item], n: int) -> list[Item]:
        lengths = map(len, prompt_ids(model, [f"{item.input} {item.label}" for item in items]))
        ranked = sorted(zip(lengths, range(len(items)), strict=True), reverse=True)
        return [items[number] for _, number in ranked[:n]]

    front = Front.of(longest(shown, k), instruction=instruction)
    (query,) = longest(queries, 1)
    require_context(model, prompt_ids(model, [front.before(task, query.input)]), labels)


@checked
def scorable(model: LabModel, task: Task, tokens: Tokens | None = None) -> tuple[Task, Tokens]:
    """A task whose labels can be told apart, and how much of each label is scored.

    Unless `tokens` says so: all tokens of small label spaces, the first token of large ones,
    and without the items whose label the tokens scored cannot tell from an earlier one.

    Raises:
        EmptyTarget: If a label tokenises to nothing.
        InputError: If the tokens tell fewer than two labels apart.
    """
    if tokens is not None:
        return task, tokens
    tokens = "all" if task.closed else "first"
    return told_apart(model, task, tokens=tokens), tokens


def require_settings(*, tokens: str, ks: Sequence[int], least: int = 0, **counts: int) -> None:
    """Raise unless the settings of a method are possible ones.

    Args:
        tokens: "all" or "first".
        ks: Numbers of demonstrations, ascending.
        least: The smallest of them that makes sense.
        **counts: Numbers that are at least 1, by name.

    Raises:
        InputError: With the first that is not.
    """
    if not ks or min(ks) < least or list(ks) != sorted(set(ks)):
        raise InputError(f"numbers of demonstrations from {least} on, ascending, not {list(ks)}")
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} = {count}: at least one")
    require_tokens(tokens)


def drawn_shots(pool: Sequence[Item], k: int, seed: int, *content: object) -> list[Item]:
    """`k` of the pool's items in a drawn order."""
    order = numpy_generator(seed, *content).permutation(len(pool))[:k]
    return [pool[number] for number in order]


def asked_ids(
    model: LabModel, task: Task, items: Sequence[Item], queries: Sequence[Item]
) -> list[Ids]:
    """Prompts that ask each query after some items with their own labels."""
    front = Front.of(items)
    return prompt_ids(model, [front.before(task, query.input) for query in queries])


def asked_prompts(
    model: LabModel, task: Task, items: Sequence[Item], queries: Sequence[Item]
) -> list[Prompt]:
    """The same prompts with the tokens of their parts."""
    shots = Front.of(items).shots
    return [render(model, task.template, shots, query.input) for query in queries]
