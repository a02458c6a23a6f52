"""Linear relational embeddings: is a model's computation of a relation one linear map?

Between a subject's last token (state `s`, after some blocks) and the last token of a prompt that
asks for the object (output `o`, after the last block) lies most of a transformer. Around some
subjects of a relation, Hernandez et al. replace it by its mean first-order expansion:

    o  ~  beta W s + b,    W = mean_i do/ds (s_i, c_i),    b = mean_i (o_i - do/ds s_i),

over n examples, each in a prompt c_i whose demonstrations are the other examples. Layer norms
make W too small; the scalar beta makes up for it.

Two readings evaluate it, on subjects that it was not made from:

- *faithfulness* (section 4.1): the share where the operator's output, through the model's own
  head, has the model's own next token on top;
- *causality* (section 4.2): the share where moving the subject's state by
  `W_r^+ (o' - o)` makes the model say another subject's answer; `W_r^+` is the pseudo-inverse
  of the r largest singular directions.

Depth, beta and rank are chosen on further subjects, which are neither examples nor scored: an
example is part of the other examples' prompts, so that their maps may have its answer from there.

References:
    Hernandez et al. 2024, Linearity of Relation Decoding in Transformer Language Models,
    sections 3 and 4, appendices A and B.

Differs from the paper: one draw of examples, not 24; depth, beta and rank are chosen for each
relation on subjects of their own; the Jacobians of all depths come from one backward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from labkit import stats
from labkit.arguments import checked
from labkit.errors import EmptyTarget, InputError, LayerOutOfRange
from labkit.facts.fact import Fact
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import measured_on
from labkit.running.scoring import logits_of
from probes.relations.relation_operator import LinearOperator, pseudo_inverse
from probes.relations.relation_states import SubjectRun, demonstrations

BETAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
"""Values of beta that are tried (the paper: up to 5)."""

RANKS = (2, 4, 8, 16, 32, 64, 128, 256)
"""Ranks of the pseudo-inverse that are tried, as far as they lie below d_model."""


@dataclass(frozen=True, kw_only=True)
class LinearRelation:
    """How an operator is estimated.

        operator = LinearRelation()(model, facts)

    Attributes:
        depth: Blocks that the subject's state has passed through, 0..n_layers - 1; chosen
            by default.
        beta: Scale of `W`, above 0; chosen by default (the paper: chosen, about 2 to 3).
        rank: Of the pseudo-inverse, 1..d_model; chosen by default.
        n_examples: Subjects that it is made from, at least 2 (the paper: 8).
        n_selection: Further subjects on which depth, beta and rank are chosen, at least 2.
        with_demonstrations: Whether the other examples stand in front of a prompt, as in the
            paper.
        seed: Seed of the draw of examples.

    Shows:
        Whether one affine map of the subject's state gives the model's outputs for a relation.

    Does not show:
        That the model computes the relation so: few objects that are frequent make the bias alone
        do as well (`probes.relations.relation_scores` has that control), and an expansion that
        fails says that the map is not this linear one, not that nothing is computed.
    """

    depth: int | None = None
    beta: float | None = None
    rank: int | None = None
    n_examples: int = 8
    n_selection: int = 8
    with_demonstrations: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        if min(self.n_examples, self.n_selection) < 2:
            raise InputError(
                f"{self.n_examples} examples and {self.n_selection} subjects for selection: an "
                "operator needs at least 2 of each"
            )
        if self.beta is not None and not self.beta > 0:
            raise InputError(f"beta {self.beta}: choose one above 0")
        if self.rank is not None and self.rank < 1:
            raise InputError(f"rank {self.rank}: choose at least 1")

    @checked
    def __call__(
        self, model: LabModel, facts: Sequence[Fact], *, progress: Progress | None = None
    ) -> LinearOperator:
        """Estimate the operator from some of a relation's facts.

        Args:
            model: The model.
            facts: Facts of one relation that the model knows, with objects.
            progress: Called after each Jacobian.

        Raises:
            InputError: If there are too few facts, they have one object only, or the rank is
                larger than the model.
            EmptyTarget: If a fact has no object.
            LayerOutOfRange: If the model has no such depth.
        """
        train, further = self.drawn(facts)
        if self.depth is not None and not 0 <= self.depth < model.n_layers:
            raise LayerOutOfRange(
                f"depth {self.depth} of {model.name}: choose one of 0..{model.n_layers - 1}"
            )
        if self.rank is not None and self.rank > model.d_model:
            raise InputError(f"rank {self.rank} of a map of {model.d_model} x {model.d_model}")
        states, outputs, weights, biases = self._expansions(model, train, progress)
        context = self._context(train)
        runs = [SubjectRun.open(model, fact, context) for fact in further]
        selection = self._selection(model, runs, weights, biases)
        depth, beta = _best(selection, "faithful")[["depth", "beta"]]
        depth = int(depth)
        ranks = _rank_selection(model, runs, depth, weights[depth], self._ranks(model))
        return LinearOperator(
            relation=str(train[0].relation),
            weight=weights[depth].clone(),
            bias=biases[depth].clone(),
            beta=float(beta),
            depth=depth,
            rank=int(_best(ranks, "causal")["rank"]),
            context=context,
            subjects=tuple(fact.subject for fact in train),
            chosen_on=tuple(fact.subject for fact in further),
            states=states[depth].clone(),
            outputs=outputs,
            selection=selection,
            selection_of_rank=ranks,
            **measured_on(model),
        )

    def drawn(self, facts: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
        """The facts that the operator is made from, and those that it is chosen on.

        Raises:
            InputError: If there are too few, the examples have one object, or the facts are of
                several relations.
            EmptyTarget: If a fact has no object.
        """
        for fact in facts:
            if fact.object is None:
                raise EmptyTarget(f"the fact {fact.prompt!r} has no object")
        if len({fact.relation for fact in facts}) > 1:
            raise InputError("an operator needs facts of one relation: these are of several")
        n = self.n_examples + self.n_selection
        by_subject = list({fact.subject: fact for fact in facts}.values())
        if len(by_subject) < n:
            raise InputError(
                f"{len(by_subject)} subjects: an operator takes {self.n_examples} examples and "
                f"{self.n_selection} more for selection"
            )
        draw = stats.generator(self.seed, "examples", facts[0].relation, len(by_subject))
        order = torch.randperm(len(by_subject), generator=draw).tolist()
        chosen = [by_subject[number] for number in order[:n]]
        train = chosen[: self.n_examples]
        if len({fact.object for fact in train}) < 2:
            raise InputError(
                f"the {self.n_examples} examples of {train[0].relation!r} have one object, "
                f"{train[0].object!r}: a map could be constant"
            )
        return train, chosen[self.n_examples :]

    def _expansions(
        self, model: LabModel, train: Sequence[Fact], progress: Progress | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States and outputs of the examples; `W` and `b` of every depth."""
        states, outputs, biases = [], [], []
        total: Tensor | float = 0.0
        for number, fact in enumerate(train):
            others = [*train[:number], *train[number + 1 :]]
            run = SubjectRun.open(model, fact, self._context(others))
            jacobians = run.jacobians()
            mapped = einsum(jacobians, run.states, "depth out d, depth d -> depth out")
            states.append(run.states)
            outputs.append(run.output)
            biases.append(run.output - mapped)
            total = total + jacobians  # a sum: all of them at once would be large
            listener(progress)(f"Jacobians of {fact.relation}", (number + 1) / len(train))
        mean = torch.stack(biases).mean(dim=0)
        return (
            torch.stack(states, dim=1),
            torch.stack(outputs),
            torch.as_tensor(total / len(train)),
            mean,
        )

    def _context(self, facts: Sequence[Fact]) -> str:
        return demonstrations(facts) if self.with_demonstrations else ""

    def _ranks(self, model: LabModel) -> tuple[int, ...]:
        if self.rank is not None:
            return (self.rank,)
        return (*(rank for rank in RANKS if rank < model.d_model), model.d_model)

    def _selection(
        self,
        model: LabModel,
        runs: Sequence[SubjectRun],
        weights: Float[Tensor, "depth out d_in"],
        biases: Float[Tensor, "depth out"],
    ) -> pd.DataFrame:
        """How well the map of every depth, with every beta, predicts the model's answer."""
        states = torch.stack([run.states for run in runs])
        answers = _answers(model, runs)
        rows = []
        for depth in range(model.n_layers) if self.depth is None else [self.depth]:
            mapped = states[:, depth] @ weights[depth].T
            for beta in BETAS if self.beta is None else (self.beta,):
                logits = logits_of(model, beta * mapped + biases[depth])
                found = _agreement("faithful", logits, answers)
                rows.append({"depth": depth, "beta": beta, **found})
        return pd.DataFrame(rows)


def _rank_selection(
    model: LabModel,
    runs: Sequence[SubjectRun],
    depth: int,
    weight: Float[Tensor, "out d_in"],
    ranks: Sequence[int],
) -> pd.DataFrame:
    """Edit each subject towards the next one with another answer, with every rank."""
    answers = _answers(model, runs).tolist()
    inverses = torch.stack([pseudo_inverse(weight, rank) for rank in ranks]).to(weight)
    logits, wanted = [], []
    for i, run in enumerate(runs):
        others = [(i + step) % len(runs) for step in range(1, len(runs))]
        j = next((j for j in others if answers[j] != answers[i]), None)
        if j is not None:
            moves = inverses @ (runs[j].output - run.output)
            logits.append(logits_of(model, run.outputs_from(depth, run.states[depth] + moves)))
            wanted.append(answers[j])
    if not logits:  # the model gives all of them one answer: there is nothing to edit towards
        return pd.DataFrame({"rank": ranks, "causal": 0.0, "log_prob": 0.0})
    tables = torch.stack(logits, dim=1)
    goal = torch.tensor(wanted, device=tables.device)
    return pd.DataFrame(
        [
            {"rank": rank, **_agreement("causal", table, goal)}
            for rank, table in zip(ranks, tables, strict=True)
        ]
    )


def _best(table: pd.DataFrame, measure: str) -> pd.Series:
    """The row with the highest share, and among those the highest log-probability."""
    return table.sort_values([measure, "log_prob"], ascending=False, kind="stable").iloc[0]


def _answers(model: LabModel, runs: Sequence[SubjectRun]) -> Tensor:
    """What the model itself says next."""
    return logits_of(model, torch.stack([run.output for run in runs])).argmax(dim=-1)


def _agreement(name: str, logits: Float[Tensor, "row vocab"], answers: Tensor) -> dict[str, float]:
    """Share of rows with the answer on top, and its mean log-probability."""
    log_prob = logits.log_softmax(dim=-1).gather(1, answers[:, None])
    right = logits.argmax(dim=-1) == answers
    return {name: float(right.float().mean()), "log_prob": float(log_prob.mean())}
