"""What a model says about a case, read three ways, under whatever weights it has now.

Three questions, each asked of the rewrite's prompt (efficacy), of its paraphrases, and of
its neighbours, which should not have moved (neighbourhood):

- success: is the wanted object likelier than its rival? For rewrite and paraphrases the new
  object against the true one; for neighbours their own object against the new one.
- accuracy: is every token of the wanted object the argmax, the object being spelt out?
- generation: does a free, greedy continuation contain the wanted object?

They differ by tens of points, and only the third is what a reader of the model's text sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labkit.execute import MEMORY, Execution, read_logits, rows_within
from labkit.facts import Case
from labkit.metrics import fluency, is_argmax, log_prob
from labkit.models import LabModel
from labkit.tokens import TokenBatch, pad_id, target_ids

METRICS = ("efficacy", "paraphrase", "neighbourhood")
READINGS = ("success", "accuracy", "generation")
GENERATED_TOKENS = 16
PIECE_TOKENS = 64
PIECE = f"piece of held-out text, {PIECE_TOKENS} tokens at most"
"""The unit of intervals on running text."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One prompt of a case: what it should say, and what it should not say instead."""

    metric: str
    prompt: str
    wanted: str
    rival: str | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model says to a question.

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
        return self.question.wanted.strip().lower() in self.text.lower()


Reading = dict[str, dict[str, float]]
"""By reading and metric, the share of the case's prompts that pass, 0..1."""


def questions(case: Case) -> list[Question]:
    """All questions of a case."""
    rewrite = case.rewrite
    new, true = rewrite.target_new, rewrite.target_true
    asked = [Question(metric="efficacy", prompt=rewrite.prompt, wanted=new, rival=true)]
    asked += [
        Question(metric="paraphrase", prompt=prompt, wanted=new, rival=true)
        for prompt in case.paraphrases
    ]
    asked += [
        Question(metric="neighbourhood", prompt=near.prompt, wanted=near.object, rival=new)
        for near in case.neighbours
    ]
    return asked


def ask(model: LabModel, case: Case, *, n_tokens: int = GENERATED_TOKENS) -> list[Answer]:
    """Ask a model all questions of a case.

    Args:
        model: The model, edited or not.
        case: The case.
        n_tokens: Length of the free continuations; 0 leaves that reading out.
    """
    asked = questions(case)
    wanted = [(q.prompt, q.wanted) for q in asked]
    rivals = [(q.prompt, q.rival) for q in asked if q.rival is not None]
    nll, argmax = score(model, [*wanted, *rivals])
    rival_nll = iter(nll[len(asked) :].tolist())
    texts = (
        generate(model, [q.prompt for q in asked], n_tokens) if n_tokens else [None] * len(asked)
    )
    return [
        Answer(
            question=question,
            wanted_nll=float(nll[i]),
            rival_nll=None if question.rival is None else next(rival_nll),
            argmax=bool(argmax[i]),
            text=texts[i],
        )
        for i, question in enumerate(asked)
    ]


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


def openings_fluency(model: LabModel, case: Case, n_tokens: int) -> float | None:
    """Mean n-gram entropy, in bits, of what follows the case's generation prompts."""
    openings = list(dict.fromkeys(case.generation))
    if not openings or not n_tokens:
        return None
    entropies = [fluency(text.split()) for text in generate(model, openings, n_tokens)]
    return sum(entropies) / len(entropies)


@torch.no_grad()
def score(
    model: LabModel, pairs: Sequence[tuple[str, str]], *, memory: int = MEMORY
) -> tuple[Float[Tensor, " pair"], Bool[Tensor, " pair"]]:
    """How a model takes targets as continuations of prompts.

    Args:
        model: The model.
        pairs: Prompts and targets.
        memory: Bound on the activations held at once, in bytes.

    Returns:
        The mean negative log-likelihood of each target's tokens in nats, as CounterFact's
        authors compare them, and whether every one of them is the argmax.

    Raises:
        EmptyPrompt, EmptyTarget: For a pair that cannot be scored.
    """
    nll = torch.zeros(len(pairs))
    argmax = torch.ones(len(pairs), dtype=torch.bool)
    targets = [target_ids(model.tokenizer, prompt, target) for prompt, target in pairs]
    rows = [
        tuple(model.ids(prompt) + target[:-1])
        for (prompt, _), target in zip(pairs, targets, strict=True)
    ]
    # Targets of one token share the row of their prompt: it is run once for all of them.
    unique = sorted(set(rows), key=len)
    of_row: dict[tuple[int, ...], list[int]] = {row: [] for row in unique}
    for number, row in enumerate(rows):
        of_row[row].append(number)
    at_once = rows_within(model, len(unique[-1]), memory) if unique else 1
    for first in range(0, len(unique), at_once):
        chunk = unique[first : first + at_once]
        resid = Execution(model, model.pad(chunk)).forward()
        reads = [
            (index, number, offset)
            for index, row in enumerate(chunk)
            for number in of_row[row]
            for offset in range(len(targets[number]))
        ]
        columns = [resid.shape[1] - len(targets[number]) + offset for _, number, offset in reads]
        picked = resid[[index for index, _, _ in reads], columns][:, None]
        logits = read_logits(model, picked)[:, 0]
        token = torch.tensor(
            [targets[number][offset] for _, number, offset in reads], device=logits.device
        )
        for (_, number, _), value, top in zip(
            reads, log_prob(logits, token).tolist(), is_argmax(logits, token).tolist(), strict=True
        ):
            nll[number] -= value / len(targets[number])
            argmax[number] &= top
    return nll, argmax


@torch.no_grad()
def generate(model: LabModel, prompts: Sequence[str], n_tokens: int) -> list[str]:
    """Greedy continuations of some prompts, the prompts themselves left out."""
    batch = model.tokens(prompts)
    out = model.hf.generate(
        input_ids=batch.ids,
        attention_mask=batch.mask.long(),
        max_new_tokens=n_tokens,
        do_sample=False,
        pad_token_id=pad_id(model.tokenizer),
    )
    return model.tokenizer.batch_decode(out[:, batch.shape[1] :], skip_special_tokens=True)


@torch.no_grad()
def text_nll(
    model: LabModel, texts: Sequence[str], *, window: int = PIECE_TOKENS, memory: int = MEMORY
) -> Float[Tensor, " piece"]:
    """Mean negative log-likelihood per token of pieces of texts, in nats.

    Args:
        model: The model, edited or not.
        texts: Running text; cut into pieces of at most `window` tokens.
        window: Length of a piece.
        memory: Bound on the activations held at once, in bytes.
    """
    sequences = [model.ids(text) for text in texts if text.strip()]
    pieces = [s[i : i + window] for s in sequences for i in range(0, len(s), window)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    values = []
    at_once = max(1, min(rows_within(model, window, memory), 8))
    for first in range(0, len(pieces), at_once):
        batch: TokenBatch = model.pad(pieces[first : first + at_once])
        logits = read_logits(model, Execution(model, batch).forward()[:, :-1])
        scored = log_prob(logits, batch.ids[:, 1:])
        counted = batch.mask[:, :-1]  # a token is scored where one stands in front of it
        values.append(-(scored * counted).sum(-1) / counted.sum(-1))
    return torch.cat(values).cpu()
