"""Scores of linear operators on subjects they were not made from, with their baselines.

Only subjects count whose object the model says itself, after the same demonstrations. The
operator's two readings (`probes.relations.linear`) each have baselines that could explain them
away.

Faithfulness, the share where the model's own next token is on top of

- *linear operator*: `beta W s + b`;
- *logit lens*: `s` itself; the paper's identity;
- *translation*: `s + mean(o - s)`;
- *regression*: least squares of o on s over the same examples;
- *mean output*: the mean of the examples' outputs, whatever the subject;
- *another relation's operator*: at its own depth, on this relation's subjects.

Causality, the share where the model says another subject's answer after the state was moved by

- *linear operator*: `W_r^+ (o' - o)`;
- *random move*: of the same norm, the placebo;
- *another relation's operator*: its move, brought to the same norm;
- *the other's state*: `s' - s`, all there is to move at this depth; its norm is its own.

References:
    Hernandez et al. 2024, Linearity of Relation Decoding in Transformer Language Models,
    sections 4.1 and 4.2.

Differs from the paper: the mean output, another relation's operator and the random move are
ours; the paper's operator at the embedding is the depth 0 of ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.answers import first_tokens, told
from labkit.facts.fact import Fact
from labkit.models.model import LabModel
from labkit.progress import Progress, listener, part_of
from labkit.results.measured import measured_on
from labkit.running.scoring import logits_of
from probes.relations.linear import LinearRelation
from probes.relations.relation_operator import LinearOperator
from probes.relations.relation_result import OPERATOR, OTHER, RelationScores
from probes.relations.relation_states import SubjectRun


@dataclass(frozen=True, kw_only=True)
class ScoreRelations:
    """Estimate and score the operators of some relations.

        ScoreRelations(limit=20)(model, facts).figure()

    Attributes:
        method: How operators are estimated.
        limit: Held-out subjects that are asked at most, of each relation.
        seed: Seed of the draws of subjects, targets and placebos.

    Shows:
        How often relations' operators say and cause what they should, on subjects that they were
        not made from, beside what could explain it away.

    Does not show:
        Anything of relations that the model does not know; and where another relation's operator
        moves subjects as well, causality is less specific than it looks.
    """

    method: LinearRelation = field(default_factory=LinearRelation)
    limit: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a limit below 1."""
        if self.limit < 1:
            raise InputError(f"{self.limit} subjects: score at least one")

    @checked
    def __call__(
        self, model: LabModel, facts: Sequence[Fact], *, progress: Progress | None = None
    ) -> RelationScores:
        """Estimate each relation's operator on some of its facts, and score it on others.

        Args:
            model: The model.
            facts: Facts that the model knows, of one or several relations. Relations with too
                few for an operator and a subject to score, or whose examples have one object,
                are left out.
            progress: Called as relations are done.

        Raises:
            InputError: If no relation has enough facts, or the model knows none of the subjects
                after their demonstrations.
            EmptyTarget, LayerOutOfRange: As `LinearRelation` does.
        """
        groups = self._groups(facts)
        operators: dict[str, LinearOperator] = {}
        for number, (name, some) in enumerate(groups.items()):
            told = part_of(progress, 0.7 * number / len(groups), 0.7 / len(groups))
            operators[name] = self.method(model, some, progress=told)
        names = list(operators)
        rows, summary = [], []
        for number, name in enumerate(names):
            operator = operators[name]
            other = operators[names[number - 1]] if len(names) > 1 else None
            n_asked, found = self.test(model, operator, groups[name], other=other)
            rows += found
            summary.append(
                {
                    "relation": name,
                    "depth": operator.depth,
                    "beta": operator.beta,
                    "rank": operator.rank,
                    "examples": len(operator.subjects),
                    "asked": n_asked,
                    "known": len({row["subject"] for row in found}),
                }
            )
            listener(progress)(f"scoring {name}", 0.7 + 0.3 * (number + 1) / len(names))
        if not rows:
            raise InputError(f"{model.name} answers none of the held-out subjects")
        return RelationScores(
            operators=pd.DataFrame(summary),
            cases=pd.DataFrame(rows),
            **measured_on(model),
            seed=self.seed,
        )

    @checked
    def test(
        self,
        model: LabModel,
        operator: LinearOperator,
        facts: Sequence[Fact],
        *,
        other: LinearOperator | None = None,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Score one operator on the facts that it has not seen.

        Args:
            model: The model.
            operator: The operator.
            facts: Facts of its relation, with objects; those of its own subjects are left out.
            other: Another relation's operator, as a control.

        Returns:
            How many subjects were asked, and the rows of `RelationScores.cases` of those that
            the model answers.

        Raises:
            FingerprintMismatch: If an operator is another model's.
        """
        for one in (operator, other):
            if one is not None:
                one.require(model)
        used = {*operator.subjects, *operator.chosen_on}
        held_out = list({f.subject: f for f in facts if f.subject not in used}.values())
        draw = stats.generator(self.seed, "subjects", operator.relation, len(held_out))
        order = torch.randperm(len(held_out), generator=draw).tolist()[: self.limit]
        runs, known, answers = [], [], []
        for fact in (told(model.tokenizer, held_out[number]) for number in order):
            run = SubjectRun.open(model, fact, operator.context)
            said = int(logits_of(model, run.output[None]).argmax())
            if said in first_tokens(model.tokenizer, fact.prompt, fact.answers):
                runs.append(run)
                known.append(fact)
                answers.append(said)
        rows = _faithfulness(model, operator, other, runs, known, answers)
        return len(order), rows + self._causality(model, operator, other, runs, known, answers)

    def _causality(
        self,
        model: LabModel,
        operator: LinearOperator,
        other: LinearOperator | None,
        runs: Sequence[SubjectRun],
        facts: Sequence[Fact],
        answers: Sequence[int],
    ) -> list[dict[str, Any]]:
        """Rows of the moves towards another subject with another answer."""
        rows = []
        for i, (run, fact) in enumerate(zip(runs, facts, strict=True)):
            draw = stats.generator(self.seed, "target", operator.relation, fact.subject)
            order = torch.randperm(len(runs), generator=draw).tolist()
            j = next((j for j in order if answers[j] != answers[i]), None)
            if j is None:
                continue
            state, change = run.states[operator.depth], (runs[j].output - run.output)[None]
            move = operator.edit(change)[0]
            noise = torch.randn(len(move), generator=draw).to(move)
            moves = {
                OPERATOR: move,
                "random move": noise * move.norm() / noise.norm(),
                "the other's state": runs[j].states[operator.depth] - state,
            }
            if other is not None:
                control = other.edit(change)[0]
                moves[OTHER] = control * move.norm() / control.norm().clamp(min=1e-12)
            moved = run.outputs_from(operator.depth, state + torch.stack(list(moves.values())))
            said = logits_of(model, moved).argmax(dim=-1).tolist()
            rows += [
                _case(operator, fact, "causality", method, token == answers[j], facts[j].object)
                for method, token in zip(moves, said, strict=True)
            ]
        return rows

    def _groups(self, facts: Sequence[Fact]) -> dict[str, list[Fact]]:
        """Facts by relation, of those relations that an operator can be made and scored of."""
        groups: dict[str, list[Fact]] = {}
        for fact in facts:
            groups.setdefault(str(fact.relation), []).append(fact)
        least = self.method.n_examples + self.method.n_selection + 1
        enough = {
            name: some
            for name, some in groups.items()
            if len({fact.subject for fact in some}) >= least
            and len({fact.object for fact in self.method.drawn(some)[0]}) > 1
        }
        if not enough:
            raise InputError(
                f"none of {len(groups)} relations has the {least} subjects that an operator and "
                "its test need: give more facts, or fewer n_examples and n_selection"
            )
        return enough


def regression(
    states: Float[Tensor, "example d_in"],
    outputs: Float[Tensor, "example d_out"],
    asked: Float[Tensor, "row d_in"],
) -> Float[Tensor, "row d_out"]:
    """Least squares with an intercept, of least norm: fewer examples than dimensions."""
    centre, mean = states.mean(dim=0), outputs.mean(dim=0)
    pinv = torch.linalg.pinv((states - centre).float(), rtol=1e-4)
    return mean + (asked - centre) @ (pinv @ (outputs - mean).float()).to(asked)


def _faithfulness(
    model: LabModel,
    operator: LinearOperator,
    other: LinearOperator | None,
    runs: Sequence[SubjectRun],
    facts: Sequence[Fact],
    answers: Sequence[int],
) -> list[dict[str, Any]]:
    """Rows of each method's answer compared with the model's."""
    if not runs:
        return []
    states = torch.stack([run.states[operator.depth] for run in runs])
    made, outputs = operator.states.to(states), operator.outputs.to(states)
    predicted: Mapping[str, Tensor] = {
        OPERATOR: operator(states),
        "logit lens": states,
        "translation": states + (outputs - made).mean(dim=0),
        "regression": regression(made, outputs, states),
        "mean output": outputs.mean(dim=0).expand_as(states),
    }
    if other is not None:
        theirs = torch.stack([run.states[other.depth] for run in runs])
        predicted = {**predicted, OTHER: other(theirs)}
    rows = []
    for method, table in predicted.items():
        said = logits_of(model, table).argmax(dim=-1).tolist()
        rows += [
            _case(operator, fact, "faithfulness", method, token == answer)
            for fact, token, answer in zip(facts, said, answers, strict=True)
        ]
    return rows


def _case(
    operator: LinearOperator,
    fact: Fact,
    measure: str,
    method: str,
    success: bool,
    target: str | None = None,
) -> dict[str, Any]:
    """One row of `RelationScores.cases`."""
    return {
        "relation": operator.relation,
        "subject": fact.subject,
        "object": fact.object,
        "target": target,
        "measure": measure,
        "method": method,
        "success": int(success),
    }
