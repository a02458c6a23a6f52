"""From which layer on facts can be read: the logit lens over many facts, with its control.

The lens (`labkit.readout.logit_lens`) turns the residual stream of the last token into words
after every block. Over one fact it tells a story; over many it gives a curve: the share of
facts whose answer is the top word there, and stays it to the end.

The control asks the same of *another* object of the same relation. A model that has only
understood that a city is asked for puts all cities up alike; what the answer has over the
control is about the fact.

What this does not show: see `labkit.readout`. A fact may be held long before it can be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from transformer_lens.tools.analysis import logit_lens as _lens

from labkit import stats
from labkit.corpus import Progress
from labkit.errors import EmptyTarget, InputError
from labkit.facts import Fact
from labkit.locate.tracing import object_token
from labkit.models import LabModel
from labkit.results import Result
from labkit.stats import Estimate

ANSWER, CONTROL = "the answer", "another object of the relation"


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadableFacts(Result):
    """The lens at the last token of many prompts.

    Attributes:
        prompts: The facts' prompts.
        relations: Their relations.
        answers: First token of each object.
        controls: First token of another object of the same relation.
        probability: P(token) through the lens after each block; answers, then controls.
        rank: Rank of the token there, 0 is the top.
        model: Name of the model.
        fingerprint: Fingerprint of the model.
    """

    prompts: tuple[str, ...]
    relations: tuple[str | None, ...]
    answers: tuple[str, ...]
    controls: tuple[str, ...]
    probability: Float[np.ndarray, "token fact layer"]
    rank: Float[np.ndarray, "token fact layer"]
    model: str
    fingerprint: str

    @property
    def title(self) -> str:
        """What was read."""
        return f"The logit lens at the last token of {len(self.prompts)} facts, {self.model}"

    @property
    def settled(self) -> Float[np.ndarray, " fact"]:
        """First layer from which on the answer stays the top word; NaN where it never does."""
        wrong = self.rank[0] > 0
        first = np.where(wrong.any(axis=1), wrong.shape[1] - wrong[:, ::-1].argmax(axis=1), 0)
        return np.where(first < wrong.shape[1], first, np.nan)

    @property
    def share_settled(self) -> Estimate:
        """Share of facts whose answer is the top word in the end, Wilson interval."""
        return stats.proportion(int(np.isfinite(self.settled).sum()), len(self.prompts))

    def settled_at(self, share: float) -> float:
        """Layer at which so large a share of the settled facts, 0..1, has settled.

        Raises:
            InputError: If no fact settles.
        """
        layers = self.settled[np.isfinite(self.settled)]
        if not len(layers):
            raise InputError("none of these facts has its answer as the top word in the end")
        return float(np.quantile(layers, share, method="higher"))

    def to_frame(self) -> pd.DataFrame:
        """One row a token and layer: token, layer, P(token) as mean, low, high over facts, n."""
        rows = []
        for name, table in zip((ANSWER, CONTROL), self.probability, strict=True):
            for layer, values in enumerate(table.T):
                found = stats.bootstrap(values, resamples=500)
                rows.append({"token": name, "layer": layer} | found.to_dict())
        return pd.DataFrame(rows)

    def top_frame(self) -> pd.DataFrame:
        """One row a token and layer: share of facts that have it as the top word there."""
        rows = []
        for name, table in zip((ANSWER, CONTROL), self.rank, strict=True):
            for layer, ranks in enumerate(table.T):
                found = stats.proportion(int((ranks == 0).sum()), len(ranks))
                rows.append({"token": name, "layer": layer} | found.to_dict())
        return pd.DataFrame(rows)

    def relations_frame(self) -> pd.DataFrame:
        """One row a relation: facts, how many settle, quartiles of the layer where they do."""
        frame = pd.DataFrame({"relation": self.relations, "settled": self.settled})
        grouped = frame.groupby("relation", sort=False)["settled"]
        return pd.DataFrame(
            {
                "facts": grouped.size(),
                "settle": grouped.count(),
                "lower quartile": grouped.quantile(0.25),
                "median layer": grouped.median(),
                "upper quartile": grouped.quantile(0.75),
            }
        ).reset_index()

    def figure(self) -> Any:
        """P(answer) and P(control) through the lens, by layer, with bands over facts."""
        from labkit.plots import profile_curves

        frame = self.to_frame().rename(columns={"token": "method"})
        return profile_curves(frame, title=self.title, score="P(token) through the lens")

    def figure_top(self) -> Any:
        """Share of facts with the answer, and the control, as the top word, by layer."""
        from labkit.plots import profile_curves

        frame = self.top_frame().rename(columns={"token": "method"})
        return profile_curves(frame, title=self.title, score="share of facts: top word")


@torch.no_grad()
def readable(
    model: LabModel, facts: Sequence[Fact], *, seed: int = 0, progress: Progress | None = None
) -> ReadableFacts:
    """Read many facts through the logit lens, at the last token, after every block.

    Args:
        model: The model.
        facts: Facts with objects. Those whose relation has no other object are controlled
            by an object of another relation.
        seed: Seed of the draw of controls.
        progress: Called before each fact.

    Raises:
        InputError: If there are no facts, or all have objects with the same first token.
        EmptyTarget: If a fact has no object.

    References:
        nostalgebraist 2020, interpreting GPT: the logit lens. Geva et al. 2022, Transformer
        Feed-Forward Layers Build Predictions, section 5, for the layer where a prediction is
        settled.

    Differs from the paper: settling is read off the rank of the fact's own answer, not off
    that of the model's prediction.
    """
    if not facts:
        raise InputError("there are no facts to read")
    answers = [_first(model, fact) for fact in facts]
    controls = [_control(facts, answers, number, seed) for number in range(len(facts))]
    rank = np.empty((2, len(facts), model.n_layers))
    probability = np.empty_like(rank)
    for number, fact in enumerate(facts):
        if progress is not None:
            progress(f"reading fact {number + 1} of {len(facts)}", number / len(facts))
        found = _lens(
            model.bridge,
            model.tokens([fact.prompt]).ids,
            targets=[answers[number], controls[number]],
            return_type="probs",
        ).readout
        # The stack begins with the embeddings; layers are what blocks leave behind.
        probability[:, number] = found.values[1:].float().cpu().numpy().reshape(-1, 2).T
        rank[:, number] = found.target_ranks[1:].float().cpu().numpy().reshape(-1, 2).T
    decode = model.tokenizer.decode
    return ReadableFacts(
        prompts=tuple(fact.prompt for fact in facts),
        relations=tuple(fact.relation for fact in facts),
        answers=tuple(decode([token]) for token in answers),
        controls=tuple(decode([token]) for token in controls),
        probability=probability,
        rank=rank,
        model=model.name,
        fingerprint=model.fingerprint,
    )


def _first(model: LabModel, fact: Fact) -> int:
    """First token of a fact's object behind its prompt."""
    token = object_token(model, fact)
    if token is None:
        raise EmptyTarget(f"the fact {fact.prompt!r} has no object to read")
    return token


def _control(facts: Sequence[Fact], answers: Sequence[int], number: int, seed: int) -> int:
    """The first token of another fact's object: of the same relation if there is one."""
    others = [i for i, answer in enumerate(answers) if answer != answers[number]]
    if not others:
        raise InputError("all objects begin with the same token: there is no control")
    same = [i for i in others if facts[i].relation == facts[number].relation]
    draw = stats.generator(seed, "control", facts[number].prompt)
    among = same or others
    return answers[among[int(torch.randint(len(among), (1,), generator=draw))]]
