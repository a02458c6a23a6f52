"""Portability: do the consequences of a rewrite hold, or only the rewrite itself?

Who believes that the Eiffel Tower stands in Rome also believes that it stands in Italy. Five
kinds of consequence are asked for, each read three ways (`editing.readings.asking`):

| metric | prompt | wanted | rival |
|---|---|---|---|
| one-hop | a fact of the new object, asked of the subject | the new object's | the old one's |
| two-hop | one fact further | the new object's | the old one's |
| alias | the rewrite's, the subject by another name | the new object | the true one |
| reversed | from the new object's side | the subject | what it should give way to |
| negation | the rewrite's, denied | not the new object | the new object |

- The reversed prompt of a relation in which an object has one subject (a capital) has the
  object's true subject as its rival. Where it has many ("A famous landmark in Rome is the"),
  the Colosseum stays as good an answer as ever, so that argmax and generation say little; the
  rival is a subject *of the old object* (the Louvre), which the edit makes the worse answer.
- After a negation ("is not located in the city of") no particular object is right, but one is
wrong: the new object. Accuracy and generation pass where it is *not* said, success where the true
object is likelier, which after the rewrite is a right answer. Where an edit has changed a reflex
and not a fact, the model says the new object here too.

The control is the unedited model on the same questions *about the truth* (`mirrored`): wanted
is what holds before the edit (of a reversed question of many answers: "A famous landmark in
Paris is the"). Where the model cannot put two facts together, or says Paris after "is not located
in the city of", its edited version is asked for more than it ever could do. Portability is to be
read against the control, not against 1.

    asked = implications(rewrite, chains_of(model))
    before, control = measure(model, asked), measure(model, mirrored(asked))
    with in_effect(model, edit) as wording:
        after = measure(model, asked, wording=wording)

References:
    Yao et al. (2023), Editing Large Language Models, section 4.1 (portability). Zhong et al.
    (2023), MQuAKE. Cohen et al. (2024), RippleEdits. Berglund et al. (2024), The Reversal
    Curse. Hase et al. (2023), Methods for Measuring, Updating, and Visualizing Factual
    Beliefs (entailed facts).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from editing.edits.effect import Wording, as_it_is
from editing.readings.asking import GENERATED_TOKENS, Question
from editing.readings.implication import Implication, Reply
from labkit.facts.chains import Chains, Path, folded
from labkit.facts.fact import Rewrite, fill
from labkit.models.model import LabModel
from labkit.running.scoring import generate, score
from labkit.tokens import target_ids

METRICS = ("one-hop", "two-hop", "alias", "reversed", "negation")

_DECLARATIVE = re.compile(r"^(The|In|On|At|A|An|To)\b(?!.*[?:;.])")


def implications(rewrite: Rewrite, chains: Chains) -> list[Implication]:
    """All consequences of a rewrite that follow from the facts at hand.

    One and two hops where both objects have a further fact and the answers differ; a
    question whose answer names the subject or either object again is left out. A rewrite of a
    relation that the facts do not have (a published collection's) is asked for other names of
    its subject and, where its prompt is a plain statement, for its negation.

    Args:
        rewrite: The rewrite. Without a true object there are no rivals, hence no hops.
        chains: The facts, and the words to ask with (`labkit.facts.chains.chains_of`).
    """
    return [
        *_hops(rewrite, chains),
        *_aliases(rewrite, chains),
        *_reversed(rewrite, chains),
        *_negated(rewrite, chains),
    ]


def mirrored(asked: Sequence[Implication]) -> list[Implication]:
    """The same questions about the truth, for the unedited model; those without a rival drop."""
    return [_mirrored(question) for question in asked if question.rival is not None]


def measure(
    model: LabModel,
    asked: Sequence[Implication],
    *,
    n_tokens: int = GENERATED_TOKENS,
    wording: Wording = as_it_is,
) -> tuple[Reply, ...]:
    """Ask a model, edited or not.

    Args:
        model: The model.
        asked: The questions, of one case or of many.
        n_tokens: Length of the free continuations; 0 leaves that reading out.
        wording: How prompts are worded for the model (`editing.edits.effect.in_effect`).

    Raises:
        EmptyPrompt, EmptyTarget: For a question that cannot be scored.
    """
    if not asked:
        return ()
    names = [(q, name) for q in asked for name in (*q.right, *q.wrong)]
    nll, argmax = score(model, [(wording(q.prompt), name) for q, name in names])
    given = iter(zip(nll.tolist(), argmax.tolist(), strict=True))
    texts = generate(model, [wording(q.prompt) for q in asked], n_tokens) if n_tokens else []
    replies = []
    for number, question in enumerate(asked):
        right = [next(given) for _ in question.right]
        wrong = [next(given) for _ in question.wrong]
        replies.append(
            Reply(
                question=question,
                wanted_nll=min(value for value, _ in right),
                rival_nll=min((value for value, _ in wrong), default=None),
                argmax=any(top for _, top in right),
                rival_argmax=any(top for _, top in wrong) if wrong else None,
                text=texts[number] if texts else None,
            )
        )
    return tuple(replies)


def require(model: LabModel, asked: Sequence[Implication]) -> None:
    """Refuse questions that could not be scored, before any work.

    Raises:
        EmptyPrompt, EmptyTarget, InputError: See `labkit.tokens`.
    """
    for question in asked:
        model.ids(question.prompt)
        for name in (*question.right, *question.wrong):
            target_ids(model.tokenizer, question.prompt, name)


def _mirrored(question: Implication) -> Implication:
    """The question about what holds before the edit."""
    if question.truth is not None:
        truth = question.truth
        return Implication(
            metric=truth.metric, prompt=truth.prompt, wanted=truth.wanted, rival=truth.rival
        )
    return replace(
        question,
        wanted=str(question.rival),
        accepted=question.rival_names,
        rival=question.wanted,
        rival_names=question.accepted,
    )


def _hops(rewrite: Rewrite, chains: Chains) -> Iterator[Implication]:
    """Questions that the new and the old object answer differently."""
    if rewrite.target_true is None:
        return
    new, old = (
        {path.prompt: path for path in chains.onward(rewrite.relation, rewrite.subject, object_)}
        for object_ in (rewrite.target_new, rewrite.target_true)
    )
    taken = {folded(n) for n in (rewrite.subject, rewrite.target_new, rewrite.target_true)}
    for prompt, path in new.items():
        other = old.get(prompt)
        if other is None or not _decides(path, other, taken):
            continue
        yield Implication(
            metric="one-hop" if len(path.facts) == 1 else "two-hop",
            prompt=prompt,
            wanted=str(path.answer.object),
            accepted=path.answer.aliases,
            rival=str(other.answer.object),
            rival_names=other.answer.aliases,
        )


def _decides(path: Path, other: Path, taken: set[str]) -> bool:
    """Whether two chains end in different objects, and neither returns to its start."""
    passed = [folded(str(fact.object)) for fact in (*path.facts, *other.facts)]
    ends = ({folded(name) for name in end.answer.answers} for end in (path, other))
    return taken.isdisjoint(passed) and next(ends).isdisjoint(next(ends))


def _aliases(rewrite: Rewrite, chains: Chains) -> Iterator[Implication]:
    """The rewrite's own question, its subject by other names."""
    for name in chains.other_names(rewrite.relation, rewrite.subject):
        yield Implication(
            metric="alias",
            prompt=_named(rewrite.template, name),
            wanted=rewrite.target_new,
            rival=rewrite.target_true,
        )


def _reversed(rewrite: Rewrite, chains: Chains) -> Iterator[Implication]:
    """The question from the new object's side."""
    words = chains.wording(rewrite.relation)
    if words is None or words.reversed is None:
        return
    relation, new, true = str(rewrite.relation), rewrite.target_new, rewrite.target_true
    subject = folded(rewrite.subject)
    of_new = [s for s in chains.subjects(relation, new) if folded(s) != subject]
    of_true = [s for s in chains.subjects(relation, true or "") if folded(s) != subject]
    truth = None
    if words.one_to_one:
        rivals = of_new
    else:
        rivals = [s for s in of_true if s not in of_new]
        others = [s for s in of_new if s not in of_true]
        if true is not None:
            truth = Question(
                metric="reversed",
                prompt=fill(words.reversed, true),
                wanted=rewrite.subject,
                rival=others[0] if others else None,
            )
    yield Implication(
        metric="reversed",
        prompt=fill(words.reversed, new),
        wanted=rewrite.subject,
        rival=rivals[0] if rivals else None,
        truth=truth,
    )


def _negated(rewrite: Rewrite, chains: Chains) -> Iterator[Implication]:
    """The rewrite's prompt, denied."""
    words = chains.wording(rewrite.relation)
    if rewrite.target_true is None:
        return
    if words is not None and words.negated is not None:
        prompt = fill(words.negated, rewrite.subject)
    elif words is None and _DECLARATIVE.match(rewrite.template):
        prompt = f"It is not true that {rewrite.prompt[0].lower()}{rewrite.prompt[1:]}"
    elif words is None and re.match(r"^\{\} [^?:;.]*$", rewrite.template):
        prompt = f"It is not true that {rewrite.prompt}"
    else:
        return
    yield Implication(
        metric="negation",
        prompt=prompt,
        wanted=rewrite.target_true,
        rival=rewrite.target_new,
        denied=True,
    )


def _named(template: str, name: str) -> str:
    """A template filled with a name that may bring its own article."""
    article = re.search(r"\b(the|company|club) \{\}", template, flags=re.IGNORECASE)
    prompt = fill(template, name.removeprefix("the ") if article else name)
    return f"T{prompt[1:]}" if prompt.startswith("the ") else prompt
