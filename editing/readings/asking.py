"""A model's answers on a case, read three ways, with its current weights.

Three readings:

- success: is the wanted object likelier than its rival?
- accuracy: is every token of the wanted object the argmax, the object being spelt out?
- generation: does a free, greedy continuation contain the wanted object?

They differ by tens of points, and only the third is what a user of the model sees. Each is taken of
several metrics, which are kinds of prompts, as far as a case has them:

| metric | prompt | wanted | rival |
|---|---|---|---|
| efficacy | the rewrite's own | the new object | the true one |
| paraphrase | other words for it | the new object | the true one |
| neighbourhood | about other subjects | their own object | the new one |
| attribute | about subjects that have the new object in truth | the new object | the true one |
| distractor | a neighbour's, after the rewrite's statement | its own object | the new one |

The essence drift has no wanted object: how far the model's description of the subject has moved.

References:
    Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 3.4 and
    appendix D. Hoelscher-Obermaier et al. 2023, Detecting Edit Failures in Large Language
    Models, section 3, for the distractor ("specificity+").
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from editing.edits.effect import Wording, as_it_is
from editing.edits.requests import ESSENCE
from labkit.facts.fact import Case, fill
from labkit.metrics import fluency
from labkit.models.model import LabModel
from labkit.running.scoring import generate, next_logprobs, score
from labkit.tokens.words import holds_phrase, joined

METRICS = ("efficacy", "paraphrase", "neighbourhood")
"""What the score is the harmonic mean of, and what free continuations are written for."""
MORE_METRICS = ("attribute", "distractor")
READINGS = ("success", "accuracy", "generation")
EXPLAINED = {
    "efficacy": "the edited prompt itself: does it say the new object?",
    "paraphrase": "the same in other words: does it follow?",
    "neighbourhood": "other subjects, with objects of their own: do they keep them?",
    "attribute": "subjects that have the new object in truth: do they still say it?",
    "distractor": "a neighbour asked right after the sentence that states the edit: does it "
    "keep its own object, or is the new one repeated?",
    "score": "harmonic mean of efficacy, paraphrase and neighbourhood",
    "success": "the wanted object is likelier than its rival",
    "argmax accuracy": "the wanted object is what the model says next, token by token",
    "generation": "a free, greedy continuation contains the wanted object",
}
"""What each metric and reading asks, for whoever sees its number."""
GENERATED_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class Question:
    """One prompt of a case: what it should say, and what it should not say instead."""

    metric: str
    prompt: str
    wanted: str
    rival: str | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's answer to a question.

    Attributes:
        question: The question.
        wanted_nll: Mean negative log-likelihood of the wanted object's tokens, in nats.
        rival_nll: The same of its rival; None without one.
        argmax: Whether every token of the wanted object is the most probable one.
        text: A free, greedy continuation; None where none was asked for.
    """

    question: Question
    wanted_nll: float
    rival_nll: float | None
    argmax: bool
    text: str | None

    def passes(self, reading: str) -> bool | None:
        """Whether the answer passes one of `READINGS`; None where it was not taken."""
        if reading == "success":
            return None if self.rival_nll is None else self.wanted_nll < self.rival_nll
        if reading == "accuracy":
            return self.argmax
        if self.text is None:
            return None
        return holds_phrase(self.text, self.question.wanted)


Reading = dict[str, dict[str, float]]
"""By reading and metric, the share of the case's prompts that pass, 0..1."""


def questions(case: Case) -> list[Question]:
    """All questions of a case; attributes need a true object as the new one's rival."""
    rewrite = case.rewrite
    new, true = rewrite.target_new, rewrite.target_true
    statement = f"{joined(rewrite.prompt, new.strip())}. "
    ours = [("efficacy", rewrite.prompt)]
    ours += [("paraphrase", prompt) for prompt in case.paraphrases]
    theirs = [("neighbourhood", near.prompt, near.object) for near in case.neighbours]
    beside = [("distractor", statement + near.prompt, near.object) for near in case.neighbours]
    truly = [("attribute", prompt) for prompt in case.attributes]
    return [
        *(Question(metric=m, prompt=prompt, wanted=new, rival=true) for m, prompt in ours),
        *(Question(metric=m, prompt=prompt, wanted=own, rival=new) for m, prompt, own in theirs),
        *(Question(metric=m, prompt=prompt, wanted=new, rival=true) for m, prompt in truly),
        *(Question(metric=m, prompt=prompt, wanted=own, rival=new) for m, prompt, own in beside),
    ]


def ask(
    model: LabModel,
    case: Case,
    *,
    n_tokens: int = GENERATED_TOKENS,
    wording: Wording = as_it_is,
) -> list[Answer]:
    """Ask a model all questions of a case: see `ask_all`."""
    return ask_all(model, [case], n_tokens=n_tokens, wording=wording)[0]


def ask_all(
    model: LabModel,
    cases: Sequence[Case],
    *,
    n_tokens: int = GENERATED_TOKENS,
    wording: Wording = as_it_is,
) -> list[list[Answer]]:
    """Ask a model all questions of some cases together.

    Args:
        model: The model, edited or not.
        cases: The cases.
        n_tokens: Length of the free continuations; 0 leaves that reading out. They are
            written for `METRICS` alone: the others have many prompts, and generation is slow.
        wording: How prompts are worded for the model (`editing.edits.effect.in_effect`).

    Returns:
        The answers by case, in the order of its questions.
    """
    asked = [(number, q) for number, case in enumerate(cases) for q in questions(case)]
    wanted = [(wording(q.prompt), q.wanted) for _, q in asked]
    rivals = [(wording(q.prompt), q.rival) for _, q in asked if q.rival is not None]
    nll, argmax = score(model, [*wanted, *rivals])
    rival_nll = iter(nll[len(asked) :].tolist())
    continued = [wording(q.prompt) for _, q in asked if n_tokens and q.metric in METRICS]
    texts = iter(generate(model, continued, n_tokens) if continued else [])
    answers: list[list[Answer]] = [[] for _ in cases]
    for i, (number, question) in enumerate(asked):
        answers[number].append(
            Answer(
                question=question,
                wanted_nll=float(nll[i]),
                rival_nll=None if question.rival is None else next(rival_nll),
                argmax=bool(argmax[i]),
                text=next(texts) if n_tokens and question.metric in METRICS else None,
            )
        )
    return answers


def shares(answers: Sequence[Answer]) -> Reading:
    """By reading and metric, the share of answers that pass; what was not taken is left out."""
    found: dict[str, dict[str, list[bool]]] = {}
    for reading in READINGS:
        for answer in answers:
            passed = answer.passes(reading)
            if passed is not None:
                found.setdefault(reading, {}).setdefault(answer.question.metric, []).append(passed)
    return {
        reading: {metric: sum(passed) / len(passed) for metric, passed in metrics.items()}
        for reading, metrics in found.items()
    }


def read(
    model: LabModel,
    cases: Sequence[Case],
    *,
    n_tokens: int = GENERATED_TOKENS,
    wording: Wording = as_it_is,
) -> list[Reading]:
    """All shares of some cases, and the fluency of what they write.

    Fluency stands beside the shares of the generation: the mean n-gram entropy, in bits, of
    what follows a case's generation prompts.

    Args:
        model: The model, edited or not.
        cases: The cases.
        n_tokens: Length of free continuations; 0 leaves those out.
        wording: How prompts are worded for the model.
    """
    found = [
        shares(answers) for answers in ask_all(model, cases, n_tokens=n_tokens, wording=wording)
    ]
    openings = [list(dict.fromkeys(case.generation)) if n_tokens else [] for case in cases]
    prompts = [wording(opening) for own in openings for opening in own]
    entropies = iter(fluency(t.split()) for t in generate(model, prompts, n_tokens))
    for reading, own in zip(found, openings, strict=True):
        if own:
            mean = sum(next(entropies) for _ in own) / len(own)
            reading.setdefault("generation", {})["fluency"] = mean
    return found


def essence(
    model: LabModel, cases: Sequence[Case], *, wording: Wording = as_it_is
) -> Float[Tensor, "case vocab"]:
    """Log-probabilities of what follows "{subject} is a", one row per case.

    Kept from the unedited model, and compared with the edited one's by
    `labkit.metrics.kl_divergence`: the essence drift.
    """
    return next_logprobs(model, [wording(fill(ESSENCE, c.rewrite.subject)) for c in cases])
