"""Which facts a model knows: the filter in front of every experiment on facts.

A model *knows* a fact here if, after the fact's prompt, the most probable next token is the
first token of the object or of one of its aliases. Where that token says nothing (the bare
space that some tokenizers write before every number, a quotation mark, one digit of many) the
tokens after it have to be the most probable ones too, up to the first that tells the answer
apart.

What this does not show: a first token can be shared by several objects ("New" of York and
of Delhi), and a
model may know a fact that it does not say after this template, because it would rather go
on with "the". Both readings depend on the template; try another one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.answers import followed
from labkit.facts.fact import Fact, fill
from labkit.facts.worlds import facts_of
from labkit.progress import Progress, listener
from labkit.running.logits import next_token_logits
from labkit.stats import Estimate, proportion
from labkit.tokens.vocabulary import Token

if TYPE_CHECKING:
    from labkit.models.model import LabModel

PROMPTS_AT_ONCE = 128
"""Rows of logits held at once: 128 of a vocabulary of 50k are 26 MB in float32."""


@dataclass(frozen=True, kw_only=True)
class KnownFact:
    """How a model completes the prompt of one fact.

    Attributes:
        fact: The fact.
        prompt: The prompt that was run.
        rank: Place of the answer's first token among all next tokens; 1 is the top. Where
            several tokens are followed, the worst of their places.
        probability: Probability of that token, or of those tokens in a row, in 0..1.
        prediction: The most probable next token, as text.
    """

    fact: Fact
    prompt: str
    rank: int
    probability: float
    prediction: str


@dataclass(frozen=True, kw_only=True, repr=False)
class KnownFacts(Sequence[KnownFact]):
    """The facts that a model knows, as a sequence; every fact asked stays in `asked`.

    Attributes:
        asked: All facts, known or not, in the order given.
        fingerprint: Fingerprint of the weights in effect when it was measured.
    """

    asked: tuple[KnownFact, ...]
    fingerprint: str

    def __repr__(self) -> str:
        """How many are known, and how to see them."""
        return (
            f"KnownFacts({len(self)} of {len(self.asked)} facts asked are known; .facts, "
            ".by_relation(), .to_frame())"
        )

    @property
    def known(self) -> tuple[KnownFact, ...]:
        """Those with rank 1."""
        return tuple(row for row in self.asked if row.rank == 1)

    @property
    def facts(self) -> list[Fact]:
        """The known facts themselves."""
        return [row.fact for row in self.known]

    @property
    def share(self) -> Estimate:
        """Share of the facts asked that are known, with its Wilson interval."""
        return proportion(len(self), len(self.asked))

    def __len__(self) -> int:
        """Number of known facts."""
        return len(self.known)

    def __getitem__(self, index):
        """The known fact (or slice of known facts) at an index."""
        return self.known[index]

    def __iter__(self) -> Iterator[KnownFact]:
        """The known facts, in the order given."""
        return iter(self.known)

    def to_frame(self) -> pd.DataFrame:
        """One row per fact asked: relation, subject, object, prompt, rank, probability, ..."""
        columns = "relation subject object prompt rank probability prediction known".split()
        rows = [
            (
                row.fact.relation,
                row.fact.subject,
                row.fact.object,
                row.prompt,
                row.rank,
                row.probability,
                row.prediction,
                row.rank == 1,
            )
            for row in self.asked
        ]
        return pd.DataFrame(rows, columns=columns)

    def by_relation(self) -> pd.DataFrame:
        """One row per relation: facts asked, facts known, their share, median rank."""
        table = self.to_frame().groupby("relation", sort=False, dropna=False)
        return table.agg(
            asked=("known", "size"),
            known=("known", "sum"),
            share=("known", "mean"),
            median_rank=("rank", "median"),
        ).reset_index()


@checked
def known_facts(model: "LabModel", facts: Sequence[Fact], *, template: int = 0) -> KnownFacts:
    """The facts that a model completes correctly, with rank and probability.

    Args:
        model: The model that is asked.
        facts: Facts with an object.
        template: Which wording to ask with: 0 is `fact.template`, k is
            `fact.paraphrases[k - 1]`.

    Returns:
        A sequence of the known facts that also holds the unknown ones.

    Raises:
        InputError: If it is no list of facts, there is none, a fact has no object, or not that
            many templates.
    """
    if not facts:
        raise InputError("there are no facts to ask the model about")
    prompts = [_prompt(fact, template) for fact in facts]
    wanted = [
        sorted({tuple(followed(model.tokenizer, prompt, answer)) for answer in fact.answers})
        for fact, prompt in zip(facts, prompts, strict=True)
    ]
    asked: list[KnownFact] = []
    for start in range(0, len(facts), PROMPTS_AT_ONCE):
        rows = slice(start, start + PROMPTS_AT_ONCE)
        logits = next_token_logits(model, prompts[rows]).float()
        behind = _behind(model, prompts[rows], wanted[rows])
        probabilities = logits.softmax(dim=-1)
        for row, (fact, prompt, answers) in enumerate(
            zip(facts[rows], prompts[rows], wanted[rows], strict=True)
        ):
            read = []
            for ids in answers:
                at = [logits[row], *(behind[prompt, ids[:n]] for n in range(1, len(ids)))]
                ranks = [1 + int((a > a[i]).sum()) for a, i in zip(at, ids, strict=True)]
                p = [float(a.softmax(dim=-1)[i]) for a, i in zip(at[1:], ids[1:], strict=True)]
                read.append((max(ranks), -math.prod([float(probabilities[row, ids[0]]), *p])))
            rank, less = min(read)
            asked.append(
                KnownFact(
                    fact=fact,
                    prompt=prompt,
                    rank=rank,
                    probability=-less,
                    prediction=Token.of(model.tokenizer, int(logits[row].argmax())),
                )
            )
    return KnownFacts(asked=tuple(asked), fingerprint=model.in_effect)


def _behind(
    model: "LabModel", prompts: Sequence[str], wanted: Sequence[Sequence[tuple[int, ...]]]
) -> dict[tuple[str, tuple[int, ...]], Float[Tensor, " vocab"]]:
    """Logits after prompts and the beginnings of their answers, where several tokens count."""
    rows = {
        (prompt, ids[:n]): [*model.ids(prompt), *ids[:n]]
        for prompt, answers in zip(prompts, wanted, strict=True)
        for ids in answers
        for n in range(1, len(ids))
    }
    if not rows:
        return {}
    names = list(rows)
    found: dict[Any, torch.Tensor] = {}
    for start in range(0, len(names), PROMPTS_AT_ONCE):
        some = names[start : start + PROMPTS_AT_ONCE]
        logits = next_token_logits(model, model.pad([rows[name] for name in some])).float()
        found |= dict(zip(some, logits, strict=True))
    return found


@checked
def known_sample(
    model: "LabModel", n: int, *, seed: int = 0, progress: Progress | None = None
) -> KnownFacts:
    """Some facts that a model knows, drawn evenly over relations.

    Relations take turns, each giving its facts in a drawn order, and facts are asked until
    `n` are known: a handful of large relations cannot crowd out the others.

    Args:
        model: The model.
        n: How many known facts are wanted.
        seed: Seed of the draw.
        progress: Called as facts are asked.

    Returns:
        The first `n` known facts, and among `asked` all that were asked on the way.

    Raises:
        InputError: If `n` is not positive, or the model knows fewer.
    """
    if n < 1:
        raise InputError(f"{n} known facts: ask for at least one")
    facts = facts_of(model)
    asked: list[KnownFact] = []
    n_known = 0
    for row in asked_in_turn(model, facts, seed=seed, purpose="known sample"):
        asked.append(row)
        n_known += row.rank == 1
        if n_known == n:
            return KnownFacts(asked=tuple(asked), fingerprint=model.in_effect)
        if len(asked) % PROMPTS_AT_ONCE == 0:
            listener(progress)(f"{n_known} of {n} known facts found", n_known / n)
    raise InputError(f"{model.name} knows {n_known} of {len(facts)} facts, {n} are asked for")


def asked_in_turn(
    model: "LabModel", facts: Sequence[Fact], *, seed: int, purpose: str
) -> Iterator[KnownFact]:
    """Facts, asked only as needed: relations take turns, each in a drawn order.

    Args:
        model: The model.
        facts: The facts.
        seed: Seed of the draw.
        purpose: What they are drawn for: two purposes see two orders.
    """
    draw = stats.generator(seed, purpose)
    turns: dict[str | None, int] = {}
    placed = []
    for number in torch.randperm(len(facts), generator=draw).tolist():
        turn = turns[facts[number].relation] = turns.get(facts[number].relation, 0) + 1
        placed.append((turn, number))
    order = [facts[number] for _, number in sorted(placed)]
    for start in range(0, len(order), PROMPTS_AT_ONCE):
        yield from known_facts(model, order[start : start + PROMPTS_AT_ONCE]).asked


def _prompt(fact: Fact, template: int) -> str:
    """The fact's prompt in the wording asked for."""
    if not fact.answers:
        raise InputError(f"the fact about {fact.subject!r} has no object to compare with")
    templates = (fact.template, *fact.paraphrases)
    if not 0 <= template < len(templates):
        raise InputError(
            f"the fact about {fact.subject!r} has templates 0..{len(templates) - 1}, not {template}"
        )
    return fill(templates[template], fact.subject)
