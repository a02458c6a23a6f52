"""Cloze probing by layer: from which depth on can a fact be read, and from which is it said?

A fact's prompt ends where its object would follow. The state of the last token, after every
block, is read as a distribution over the vocabulary, and the object's first token has a *rank*
in it, 0 for the top. Precision at k is the share of facts whose rank is below k.

    rank(fact, d) = min over the object and its aliases of the rank of their first token
                    in lens(h_d),          d = 0 (embedding) .. n_layers (the model's answer)

The lens is the logit lens (`labkit.readout`), or that of affine translators
(`probes.cloze.translators`), which correct for the change of basis that the logit lens ignores.
Three controls:

- *another object*: of a fact of the same relation, in the fact's own state. What the answer
  has over it is knowledge of the fact and not of the kind of word that is asked for.
- *another subject*: the fact's object in the state of that other fact. The same, from the
  other side: what this control gains is what the relation alone brings.
- *unrelated state*: the fact's object in the state of a fact of another relation. Whatever is found
  there comes from the lens itself (frequent words; what a translator usually answers).

References:
    Wallat et al. 2020, BERTnesia: Investigating the capture and forgetting of knowledge in
    BERT, sections 3 and 5. Petroni et al. 2019, Language Models as Knowledge Bases?, for
    precision at k. nostalgebraist 2020; Belrose et al. 2023, for the lenses.

Differs from the paper: a left-to-right model is asked at the prompt's last token, not at a
mask; BERTnesia trains a whole masked-language head per layer, here one affine map; ranks are
among the whole vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labkit import stats
from labkit.arguments import checked
from labkit.errors import EmptyTarget, InputError
from labkit.facts.answers import first_tokens, told
from labkit.facts.datasets import OpenQuestion
from labkit.facts.fact import Fact
from labkit.metrics import rank
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import measured_on
from labkit.results.result import RunDirectory
from labkit.running.logits import MEMORY
from labkit.running.states import each_last_states
from probes.cloze.cloze_result import READINGS, ClozeResult
from probes.cloze.translator_fit import TranslatorFit
from probes.cloze.translators import Translators, lens_logits
from probes.states.selection import States

Lens = Literal["logit", "translated"]


@dataclass(frozen=True, kw_only=True)
class Cloze:
    """Ranks of the answers to cloze prompts, after every block.

        Cloze()(model, facts).figure()

    Attributes:
        lens: How states are read.
        ks: Precision is reported at these ranks (the paper: 1, 10, 100).
        fit: How translators are fitted, for the translated lens.
        seed: Seed of the draw of controls.
        memory: Bound on the activations and logits held at once, in bytes.

    Shows:
        From which depth on the answer is among the first k words at the last token, against other
        objects and other subjects.

    Does not show:
        Anything of the subject's token, where the fact may lie long before the last one has it;
        and what can be read need not be used.
    """

    lens: Lens = "logit"
    ks: tuple[int, ...] = (1, 10, 100)
    fit: TranslatorFit = field(default_factory=TranslatorFit)
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        if self.lens not in get_args(Lens):
            raise InputError(f"lens {self.lens!r}: one of {', '.join(get_args(Lens))}")
        if not self.ks or min(self.ks) < 1 or list(self.ks) != sorted(set(self.ks)):
            raise InputError(f"ks = {self.ks}: rising ranks of at least 1, such as (1, 10, 100)")

    @checked
    @torch.no_grad()
    def __call__(
        self,
        model: LabModel,
        facts: Sequence[Fact],
        *,
        popularity: Sequence[float] | None = None,
        translators: Translators | None = None,
        run: RunDirectory | None = None,
        progress: Progress | None = None,
    ) -> ClozeResult:
        """Read the facts' last states.

        Args:
            model: The model.
            facts: Facts with objects, asked by their first template. Whether the model knows
                them is up to the caller (`labkit.facts.known`): the last depth tells.
            popularity: Of each fact's subject, such as monthly page views; above 0.
            translators: For the translated lens; by default they are fitted, or found in the
                cache.
            run: A run directory: states that were read are kept there, and skipped when
                resuming.
            progress: Called as facts are read.

        Raises:
            InputError: If there are no facts, or popularity does not fit them.
            EmptyTarget: If a fact has no object, or one that tokenises to nothing.
            NotOneToken: If an object is a number that is cut into digits.
            FingerprintMismatch: If the translators are another model's.
        """
        facts = [told(model.tokenizer, fact) for fact in facts]
        tokens, views = _checked(model, facts, popularity)
        if self.lens == "logit":
            translators = None
        elif translators is None:
            translators = self.fit(model, progress=progress)
        partners = _partners(facts, tokens, self.seed)
        asked = _asked(tokens, partners)
        names = [f"{number}: {fact.prompt}" for number, fact in enumerate(facts)]
        ranks = np.full((len(READINGS), len(facts), model.n_layers + 1), np.nan)
        done = {} if run is None else {row["case_id"]: row["ranks"] for row in run.cases()}
        todo = []
        for number, name in enumerate(names):
            if name in done:
                for reading, fact, row in done[name]:
                    ranks[reading, fact] = row
            else:
                todo.append(number)
        n_done = len(facts) - len(todo)
        for rows, states in self._states(model, [facts[number].prompt for number in todo]):
            logits = lens_logits(model, states, translators)
            for row, own in zip(rows, logits, strict=True):
                number = todo[row]
                found = [(r, i, _best(own, ids).tolist()) for r, i, ids in asked[number]]
                for reading, fact, depth_ranks in found:
                    ranks[reading, fact] = depth_ranks
                if run is not None:
                    run.append_case({"case_id": names[number], "ranks": found})
            n_done += len(rows)
            listener(progress)(f"reading {len(facts)} facts", n_done / len(facts))
        return ClozeResult(
            prompts=tuple(fact.prompt for fact in facts),
            relations=tuple(fact.relation for fact in facts),
            subjects=tuple(fact.subject for fact in facts),
            answers=tuple(fact.answers[0] for fact in facts),
            lens=self.lens,
            ks=self.ks,
            rank=ranks,
            popularity=views,
            **measured_on(model),
            seed=self.seed,
        )

    def _states(
        self, model: LabModel, prompts: Sequence[str]
    ) -> Iterator[tuple[list[int], Float[Tensor, "row depth d_model"]]]:
        """Numbers of some prompts, and their last token's states at all depths."""
        rows = [tuple(model.ids(prompt)) for prompt in prompts]
        spots = States().sites_of(model)
        # Logits of all depths, and what the ranks compare them with.
        widest = 3 * (model.n_layers + 1) * model.d_vocab * model.dtype.itemsize
        at_once = min(max(1, self.memory // widest), 64)
        for numbers, found in each_last_states(model, rows, spots, memory=self.memory):
            states = torch.stack([found[spot] for spot in spots], dim=1)
            for start in range(0, len(numbers), at_once):
                some = slice(start, start + at_once)
                yield numbers[some], states[some]


def _checked(
    model: LabModel, facts: Sequence[Fact], popularity: Sequence[float] | None
) -> tuple[list[list[int]], np.ndarray]:
    """First tokens of every fact's answers, and popularity (NaN where unknown)."""
    if not facts:
        raise InputError("there are no facts to read")
    tokens = []
    for fact in facts:
        if not fact.answers:
            raise EmptyTarget(f"the fact {fact.prompt!r} has no object to read")
        tokens.append(sorted(first_tokens(model.tokenizer, fact.prompt, fact.answers)))
    if popularity is None:
        return tokens, np.full(len(facts), np.nan)
    views = np.asarray(popularity, dtype=float)
    if views.shape != (len(facts),) or not (views > 0).all():
        raise InputError(f"{len(facts)} facts need as many numbers above 0 for their popularity")
    return tokens, views


def _partners(
    facts: Sequence[Fact], tokens: Sequence[list[int]], seed: int
) -> list[tuple[int | None, int | None]]:
    """For every fact another one of its relation and one of another, with other answers."""
    found = []
    for number, fact in enumerate(facts):
        draw = stats.generator(seed, "cloze control", fact.prompt)
        order = torch.randperm(len(facts), generator=draw).tolist()
        others = [i for i in order if not set(tokens[i]) & set(tokens[number])]
        same = next((i for i in others if facts[i].relation == fact.relation), None)
        unrelated = next((i for i in others if facts[i].relation != fact.relation), None)
        found.append((same, unrelated))
    return found


def _asked(
    tokens: Sequence[list[int]], partners: Sequence[tuple[int | None, int | None]]
) -> list[list[tuple[int, int, list[int]]]]:
    """What is looked up in each fact's state: number of the reading, whose, which tokens."""
    asked: list[list[tuple[int, int, list[int]]]] = [[] for _ in tokens]
    for number, (same, unrelated) in enumerate(partners):
        asked[number].append((0, number, tokens[number]))
        if same is not None:
            asked[number].append((1, number, tokens[same]))
            asked[same].append((2, number, tokens[number]))
        if unrelated is not None:
            asked[unrelated].append((3, number, tokens[number]))
    return asked


def _best(logits: Float[Tensor, "depth vocab"], ids: Sequence[int]) -> np.ndarray:
    """Rank of the best of some tokens at every depth."""
    ranks = [rank(logits, torch.full((len(logits),), i, device=logits.device)) for i in ids]
    return torch.stack(ranks).amin(dim=0).cpu().numpy()


def question_facts(
    questions: Sequence[OpenQuestion], *, template: str = "Q: {}\nA:"
) -> tuple[list[Fact], list[int]]:
    """Questions such as PopQA's as facts to be read, and the popularity of their subjects.

    Args:
        questions: The questions; their first answer is the object, the others are aliases.
        template: How a question is asked, with one `{}` for it. Where a question does not tell
            its subject, or does not hold it, the whole question stands for it.

    Returns:
        The facts, and monthly page views of each subject's article, at least 1.

    Raises:
        InputError: If the template does not have exactly one `{}`.
    """
    facts = []
    for question in questions:
        subject, asked = question.question, "{}"
        if question.subject and question.question.count(question.subject) == 1:
            subject = question.subject
            asked = question.question.replace(question.subject, "{}")
        first, *others = question.answers
        facts.append(
            Fact(
                subject=subject,
                template=template.replace("{}", asked) if template.count("{}") == 1 else template,
                object=first,
                aliases=tuple(others),
                relation=question.relation,
            )
        )
    return facts, [max(1, question.subject_views) for question in questions]
