"""Label words as anchors: where attention goes among demonstrations, and what depends on it.

The claim (Wang et al. 2023): in low layers label words aggregate the information of their
demonstration, in high layers the prediction is read from them. Three readings of every layer:

    attention   from the query's last token, and from label words: its shares of labels, inputs,
                format and first token, by layer and head
    saliency    |sum over heads of A * dL/dA|, L = -log P(right label): its mean over edges from
                labels to all before them (wp), from the last token to labels (pq), and over all
                others (ww)
    knock-out   these edges blocked in windows of layers: accuracy and P(right label), beside as
                many random edges

    result = Anchors(k=8)(model, labkit.icl.task("sentiment"))
    result.figure(), result.figure_attention(), result.figure_saliency(), result.figure_prompt()

Edges of the query are those of all its tokens; "query to first token" is the attention sink.

References:
    Wang et al. (2023), Label Words are Anchors: An Information Flow Perspective for Understanding
    In-Context Learning, sections 2.1 (saliency, equations 1 to 4) and 2.2 (blocked label words).
    Xiao et al. (2023), Efficient Streaming Language Models with Attention Sinks, section 3.1.

Differs from the paper:
    Edges are blocked by scores of -inf, not by zeroed weights, in every window of layers. "labels
    to all before" leaves labels the first token. Labels of several tokens are all of them; the
    prediction is read at the first token of each label. Measured are accuracy and P(right label),
    not whether the answer stays the same.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.icl.asking.queries import asked_prompts, drawn_shots
from labkit.icl.asking.scoring import label_ids, require_context
from labkit.icl.asking.task_result import about_queries
from labkit.icl.inside.anchor_edges import (
    EDGES,
    PARTS,
    BlockedRuns,
    attention_and_saliency,
    cut_of,
    front_length,
    parts_of,
    random_cut,
)
from labkit.icl.inside.anchors_result import FLOWS, LABEL_PARTS, AnchorsResult
from labkit.icl.tasks.items import Item, Task
from labkit.icl.tasks.prompts import Prompt
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.stats import numpy_generator


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Attention, saliency and knock-out of the edges through which demonstrations act.

    Attributes:
        k: Demonstrations, at least 1.
        sets: Sets of demonstrations that are drawn; each has random edges of its own.
        queries: Number of queries.
        read: Queries, of these, whose attention and saliency are read.
        edges: What is blocked, out of `labkit.icl.inside.anchor_edges.EDGES`.
        windows: Windows that the layers are cut into; beside them all layers are one.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        Where attention goes among demonstrations, and what depends on which edges in which
        layers.

    Does not show:
        What a head takes from where it looks. Blocked weight goes to the other tokens, hence the
        random edges; a label can be read through another token, so that blocking one path gives a
        lower bound.
    """

    k: int = 8
    sets: int = 2
    queries: int = 20
    read: int = 4
    edges: tuple[str, ...] = EDGES
    windows: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        for name in ("k", "sets", "queries", "read", "windows"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}: at least 1")
        unknown = [name for name in self.edges if name not in EDGES]
        if unknown or not self.edges or len(set(self.edges)) < len(self.edges):
            raise InputError(f"edges, each once, out of {', '.join(EDGES)}, not {list(self.edges)}")

    @checked
    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> AnchorsResult:
        """Read attention and saliency, and block edges.

        Args:
            model: The model; it is not changed.
            task: The task; its labels are told apart by their first tokens.
            progress: Called as sets of demonstrations are done.

        Raises:
            PoolTooSmall: If there are too few items.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels begin with the same token (`labkit.icl.told_apart`).
            ContextTooShort: If the demonstrations with a query are too long.
            InputError: If a prompt begins with its query.
            SelfCheckFailed: If the model's blocks take no mask of single edges.
        """
        queries, pool = task.queries_and_pool(self.queries, self.k, seed=self.seed)
        labels = label_ids(model, task.template, task.labels, tokens="first")
        drawn = [self._prompts(model, task, pool, queries, number) for number in range(self.sets)]
        for prompts in drawn:
            require_context(model, [prompt.ids for prompt in prompts], labels)
        windows = windows_of(model.n_layers, self.windows)
        firsts = [ids[0] for ids in labels]
        right = [task.labels.index(item.label) for item in queries]
        n_read = min(self.read, len(queries))
        clean, blocked, counts, readings = [], [], [], []
        for number, prompts in enumerate(drawn):
            found, n_edges, unblocked = self._knocked_out(
                model, task, prompts, firsts, windows, number
            )
            blocked.append(found)
            counts.append(n_edges)
            clean.append(unblocked)
            readings.append(
                [reading(model, prompts[at], firsts[right[at]]) for at in range(n_read)]
            )
            listener(progress)(f"{number + 1} of {self.sets} sets", (number + 1) / self.sets)
        attention, of_labels, saliency = (
            np.stack([[one[place] for one in own] for own in readings]) for place in range(3)
        )
        first = drawn[0][0]
        return AnchorsResult(
            **about_queries(model, task, queries),
            labels=task.labels,
            config=asdict(self),
            edges=self.edges,
            windows=windows,
            n_edges=np.mean(counts, axis=0),
            clean=np.stack(clean),
            blocked=np.stack(blocked),
            attention=attention,
            label_attention=of_labels,
            saliency=saliency,
            tokens=tuple(model.tokenizer.decode([token]) for token in first.ids),
            parts=tuple(PARTS[part] for part in parts_of(first)),
            weights=readings[0][0][3],
        )

    def _prompts(
        self,
        model: LabModel,
        task: Task,
        pool: Sequence[Item],
        queries: Sequence[Item],
        number: int,
    ) -> list[Prompt]:
        """All queries after one set of demonstrations."""
        chosen = drawn_shots(pool, self.k, self.seed, "icl anchors", task.name, number)
        prompts = asked_prompts(model, task, chosen, queries)
        if front_length(prompts) < 2:
            raise InputError(f"the prompts of {task.name!r} have nothing in front of the query")
        return prompts

    def _knocked_out(
        self,
        model: LabModel,
        task: Task,
        prompts: list[Prompt],
        firsts: list[int],
        windows: tuple[tuple[int, int], ...],
        number: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-probabilities `[edges control window query label]`, edges blocked, and with none."""
        with torch.no_grad():
            runs = BlockedRuns(model, prompts, firsts)
            clean = runs.clean().numpy()
            shape = (len(self.edges), 2, len(windows), *clean.shape)
            found, counts = np.full(shape, np.nan), np.zeros((len(self.edges), 2))
            for place, name in enumerate(self.edges):
                draw = numpy_generator(self.seed, "icl random edges", task.name, number, name)
                cuts = (
                    cut_of(name, prompts[0], runs.n),
                    random_cut(name, prompts[0], runs.n, draw),
                )
                for random, cut in enumerate(cuts):
                    if cut is None:
                        continue
                    counts[place, random] = cut.n_edges
                    for window, (start, stop) in enumerate(windows):
                        found[place, random, window] = runs.blocked(cut, start, stop).numpy()
        return found, counts, clean


def windows_of(n_layers: int, n_windows: int) -> tuple[tuple[int, int], ...]:
    """Layers in so many windows, `(start, stop)`, as even as can be; then all of them."""
    ends = np.linspace(0, n_layers, min(n_windows, n_layers) + 1).round().astype(int).tolist()
    parts = [(start, stop) for start, stop in pairwise(ends)]
    return tuple(dict.fromkeys([*parts, (0, n_layers)]))


def reading(
    model: LabModel, prompt: Prompt, answer: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Attention and saliency of one prompt, summed up.

    Returns:
        Shares of the last token's attention `[layer head part]` (`PARTS`); those of label words,
        mean over them, `[layer head part]` (`LABEL_PARTS`); mean saliency `[layer flow]`
        (`FLOWS`); the last token's weights `[layer head pos]`.
    """
    patterns, saliency = (own.numpy() for own in attention_and_saliency(model, prompt.ids, answer))
    parts = parts_of(prompt)
    last = patterns[:, :, -1]
    shares = np.stack(
        [last[..., parts == part].sum(axis=-1) for part in range(len(PARTS))], axis=-1
    )
    before = np.zeros((len(parts), len(parts)), dtype=bool)
    of_labels = []
    for shot in prompt.shots:
        assert shot.label is not None and shot.input is not None
        kinds = np.array([PARTS[part] for part in parts], dtype=object)
        own = [pos for pos in shot.input if kinds[pos] == "inputs"]
        kinds[kinds == "inputs"] = "other inputs"
        kinds[own] = "own input"
        for row in shot.label:
            before[row, : shot.label.start] = True
            of_labels.append(
                [patterns[:, :, row, kinds == kind].sum(axis=-1) for kind in LABEL_PARTS]
            )
    to_labels = np.zeros_like(before)
    to_labels[-1, parts == PARTS.index("labels")] = True
    others = np.tril(np.ones_like(before), -1) & ~before & ~to_labels
    flows = dict(zip(FLOWS, (before, to_labels, others), strict=True))
    means = [saliency[:, edges].mean(axis=-1) for edges in flows.values()]
    from_labels = np.moveaxis(np.mean(of_labels, axis=0), 0, -1)
    return shares, from_labels, np.stack(means, axis=-1), last
