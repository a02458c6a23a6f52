"""The next token after a state that is changed: read up to a depth, change, and go on.

Each example is cut off at the token that is read, since nothing after it can change what it
predicts; the blocks below the depth run once for the clean run and all changes, and what texts
begin with once for all (`labkit.running.packing`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.errors import InputError
from labkit.metrics import is_argmax, kl_divergence, log_prob
from labkit.models.model import LabModel
from labkit.results.measured import measured_on
from labkit.running.packing import packed
from labkit.running.scoring import logits_of
from labkit.stats import Estimate, average, share
from labkit.tokens import target_ids
from probes.states.alignment import Encoded
from probes.states.features import Features
from probes.use.use_result import Effect, UseResult


@dataclass(frozen=True, eq=False)
class Reads:
    """Examples, each cut off at the token that is read, and the state there.

    Attributes:
        model: The model.
        task: Name of the task.
        depth: Blocks passed through where the state is read and changed.
        ids: Token ids up to the one that is read.
        texts: The texts up to there.
        following: The token that follows in the text; None at its end.
        states: The states.
    """

    model: LabModel
    task: str
    depth: int
    ids: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    following: tuple[int | None, ...]
    states: Float[Tensor, "example d_model"]

    @classmethod
    def of(
        cls, model: LabModel, features: Features, known: Sequence[Encoded], numbers: np.ndarray
    ) -> "Reads":
        """Some examples of a task whose states of one depth were read.

        Args:
            model: The model.
            features: States of all examples of the task at the depth.
            known: The task's texts as `encoded` gives them.
            numbers: Which examples.

        Raises:
            InputError: If the features are of several depths, or of no task.
        """
        task = features.task
        if task is None or len(features.depths) != 1:
            raise InputError("what is changed are the states of a task at one depth")
        (depth,) = features.depths
        ids, following, texts = [], [], []
        for number in numbers:
            example = task.examples[number]
            text = known[example.text]
            stop = text.positions(*example.span).stop
            ids.append(text.ids[:stop])
            following.append(text.ids[stop] if stop < len(text.ids) else None)
            texts.append(text.text[: example.span[1]])
        states = torch.tensor(features.at(depth)[numbers], dtype=model.dtype, device=model.device)
        return cls(model, task.name, depth, tuple(ids), tuple(texts), tuple(following), states)

    @torch.no_grad()
    def logits(self, changes: Sequence[Tensor]) -> list[Float[Tensor, "example vocab"]]:
        """Next-token logits with nothing changed, and with each change added to the state."""
        shape = (len(self.ids), self.model.d_vocab)
        found = [torch.empty(shape, dtype=torch.float32) for _ in range(len(changes) + 1)]
        for batch in packed(self.model, self.ids):
            rows, places = batch.numbers, list(range(len(batch.numbers)))
            at = places, batch.columns(places, [len(self.ids[row]) - 1 for row in rows])
            clean = batch.run.forward(stop=self.depth)
            for place, change in enumerate([None, *changes]):
                resid = clean.clone()
                if change is not None:
                    resid[at] += change[rows]
                last = batch.run.forward(resid, start=self.depth)[at]
                found[place][rows] = logits_of(self.model, last).float().cpu()
        return found

    def result(
        self,
        changes: Mapping[str, Tensor],
        *,
        change: str,
        rank: int,
        scores: tuple[float, ...],
        seed: int,
        words: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> UseResult:
        """Effects of named changes."""
        clean, *changed = self.logits([*changes.values()])
        pulls = (
            None if words is None else [self._preference(words, one) for one in (clean, *changed)]
        )
        size = self.states.float().norm(dim=-1).cpu()
        effects = []
        for place, (name, step) in enumerate(changes.items()):
            norm = (step.float().norm(dim=-1).cpu() / size.clamp(min=1e-30)).numpy()
            effects.append(
                Effect(
                    name=name,
                    kl=average(kl_divergence(clean, changed[place]).numpy()),
                    accuracy=self._accuracy(changed[place], seed),
                    pull=None if pulls is None else average((pulls[place + 1] - pulls[0]).numpy()),
                    norm=average(norm),
                )
            )
        return UseResult(
            task=self.task,
            **measured_on(self.model),
            depth=self.depth,
            change=change,
            rank=rank,
            scores=scores,
            accuracy=self._accuracy(clean, seed),
            effects=tuple(effects),
            seed=seed,
        )

    def _accuracy(self, logits: Tensor, seed: int) -> Estimate | None:
        """How often the token that follows in the text is the argmax."""
        rows = [row for row, token in enumerate(self.following) if token is not None]
        if not rows:
            return None
        tokens = torch.tensor([self.following[row] for row in rows])
        return share(is_argmax(logits[rows], tokens).double().numpy())

    def _preference(
        self, words: tuple[Sequence[str], Sequence[str]], logits: Tensor
    ) -> Float[Tensor, " example"]:
        """Log P(the goal's words) - log P(the source's), by their first tokens."""
        sides = []
        for some in words:
            firsts = [
                [target_ids(self.model.tokenizer, text, word)[0] for word in some]
                for text in self.texts
            ]
            each = [log_prob(logits, torch.tensor(column)) for column in zip(*firsts, strict=True)]
            sides.append(torch.stack(each).logsumexp(dim=0))
        return sides[1] - sides[0]
