"""In-context editing: the new facts are put before every prompt, and no weight changes.

    New fact: The capital of France is London.       <- demonstrations, if asked for
    Prompt: In France, the capital city is London.
    ...
    New fact: The Eiffel Tower is located in the city of Rome.
    Prompt: {what is asked}

The cheapest way to correct a fact, and the baseline for every other: a user can do it without
access to the weights. Demonstrations show what a new fact is for: its prompt is answered with it
(*copy*), so are other wordings (*update*), and another subject keeps its answer (*retain*).

Of many facts only those most similar to the prompt are shown, so that a hundred edits still
fit the context. Similarity is by words: facts whose subject occurs in the prompt first, then by the
share of words in common (Jaccard), then the later fact. The most similar comes last.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from editing.edits.delta import WeightDelta
from editing.edits.provenance import of_composition, of_edit, steps_of
from editing.edits.requests import Request, listed, rewrites_only
from labkit import stats
from labkit.arguments import checked
from labkit.errors import FingerprintMismatch, InputError
from labkit.facts.fact import Fact, Rewrite, fill
from labkit.facts.known import known_facts, known_sample
from labkit.facts.worlds import facts_of
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.text.corpus import Corpus
from labkit.tokens import target_ids

Kind = Literal["copy", "update", "retain"]
KINDS: tuple[Kind, ...] = ("copy", "update", "retain")
FACT, QUESTION = "New fact: ", "Prompt: "
DRAWN = 32
"""Facts of a relation that are looked at for one demonstration."""


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """An example of what a new fact implies.

    Attributes:
        kind: "copy" (its own prompt), "update" (another wording) or "retain" (another
            subject, whose answer stays).
        fact: The new fact, as a sentence.
        answered: A question with its right answer, as a sentence.
    """

    kind: Kind
    fact: str
    answered: str

    @property
    def text(self) -> str:
        """Its text in the context."""
        return f"{FACT}{self.fact}\n{QUESTION}{self.answered}\n\n"


Demonstrations = tuple[Demonstration, ...]
"""The demonstrations put before the facts."""


@dataclass(frozen=True, kw_only=True)
class PromptEdit:
    """Text in front of every prompt: an edit that changes no weight.

    Attributes:
        rewrites: Its rewrites, in the order of the edits; each prompt occurs once.
        demonstrations: The demonstrations put before the facts.
        shown: How many facts are shown at most in front of one prompt.
        base: Fingerprint of the model that it was made for.
        provenance: How it was made. JSON values only.
    """

    rewrites: tuple[Rewrite, ...]
    demonstrations: tuple[Demonstration, ...]
    shown: int
    base: str
    provenance: dict[str, Any]

    @property
    def text(self) -> str:
        """The whole text, with every fact."""
        return self._context(self.rewrites)

    def prompt(self, prompt: str) -> str:
        """A prompt preceded by the facts most similar to it; it ends in the prompt itself."""
        return self._context(self.similar(prompt)) + prompt

    def similar(self, prompt: str) -> tuple[Rewrite, ...]:
        """The facts shown before a prompt, the most similar last."""
        asked = _words(prompt)

        def similarity(number: int) -> tuple[bool, float, int]:
            rewrite = self.rewrites[number]
            subject, said = _words(rewrite.subject), _words(rewrite.prompt)
            return subject <= asked, len(asked & said) / len(asked | said), number

        order = sorted(range(len(self.rewrites)), key=similarity)
        return tuple(self.rewrites[number] for number in order[-self.shown :])

    def then(self, other: "PromptEdit") -> "PromptEdit":
        """Both edits, one after the other; where they contradict each other the later one holds.

        Raises:
            FingerprintMismatch: If they were made for different models.
        """
        if self.base != other.base:
            raise FingerprintMismatch(
                f"edits of different models ({self.base[:12]}, {other.base[:12]}) do not compose"
            )
        later = {rewrite.prompt for rewrite in other.rewrites}
        kept = tuple(rewrite for rewrite in self.rewrites if rewrite.prompt not in later)
        return replace(
            other,
            rewrites=kept + other.rewrites,
            demonstrations=tuple(dict.fromkeys(self.demonstrations + other.demonstrations)),
            provenance=of_composition(
                step for edit in (self, other) for step in steps_of(edit.provenance)
            ),
        )

    def _context(self, rewrites: Sequence[Rewrite]) -> str:
        """Demonstrations, facts, and the beginning of the question."""
        shown = "".join(demonstration.text for demonstration in self.demonstrations)
        facts = "".join(
            f"{FACT}{sentence(rewrite.prompt, rewrite.target_new)}\n" for rewrite in rewrites
        )
        return f"{shown}{facts}{QUESTION}"


@dataclass(frozen=True, kw_only=True)
class InContext:
    """In-context editing.

        edit = InContext()(model, [rewrite])        # a PromptEdit: edit.prompt("...")

    Attributes:
        demonstrations: How many demonstrations come first, alternating between copy, update and
            retain (the paper: 32). None by default: for a small model they are more to copy from;
            with three, SmolLM2-135M lets more neighbours go than without.
        shown: How many facts are shown at most in front of one prompt (the paper: 1).
        seed: Seed of the draw of demonstrations.

    Shows:
        What a correction reaches that touches no weight: the baseline for every other method.

    Does not show:
        A change that can be exported or enforced: the model can be asked without the text, which
        takes up context in every prompt.

    References:
        Zheng et al. 2023, Can We Edit Factual Knowledge by In-Context Learning?, section 3.

    Differs from the paper: demonstrations are drawn once from the facts of the project that
    the model knows, not retrieved from a training set by their likeness to the edit; which
    facts are shown is decided by words in common and not by an embedding.
    """

    demonstrations: int = 0
    shown: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an invalid configuration."""
        if self.demonstrations < 0 or self.shown < 1:
            raise InputError("in-context editing shows at least one fact, and 0 demonstrations")

    def require(self, rewrites: Sequence[Request]) -> None:
        """Refuse rewrites that this method cannot make, before a model is opened.

        Raises:
            InputError, ContradictoryRewrites: See `editing.edits.requests.rewrites_only`.
        """
        rewrites_only(rewrites, "in-context editing")

    def prepare(
        self, model: LabModel, *, corpus: Corpus | None = None, progress: Progress | None = None
    ) -> Demonstrations:
        """The demonstrations, from facts that the model knows.

        Args:
            model: The model, unedited.
            corpus: Not used: nothing is measured on running text.
            progress: Called as facts are asked.
        """
        if not self.demonstrations:
            return ()
        n = self.demonstrations
        known = known_sample(model, 3 * n, seed=self.seed, progress=progress).facts
        return demonstrations(model, known, n, seed=self.seed)

    @checked
    def __call__(
        self,
        model: LabModel,
        rewrites: Sequence[Request] | Request,
        *,
        prepared: Demonstrations | None = None,
        after: PromptEdit | WeightDelta | None = None,
        progress: Progress | None = None,
    ) -> PromptEdit:
        """The text that states some rewrites. The model is not run for it.

        Args:
            model: The model.
            rewrites: The rewrites, or a single one.
            prepared: From `prepare`.
            after: The edits already in effect; the text does not depend on it.
            progress: Called as `prepare` goes on, where nothing is prepared yet.

        Raises:
            InputError, ContradictoryRewrites: See `require`.
            EmptyTarget: If a target is nothing that the tokenizer knows.
        """
        asked = rewrites_only(listed(rewrites), "in-context editing")
        for rewrite in asked:
            target_ids(model.tokenizer, rewrite.prompt, rewrite.target_new)
        shown = self.prepare(model, progress=progress) if prepared is None else prepared
        return PromptEdit(
            rewrites=tuple(asked),
            demonstrations=shown,
            shown=self.shown,
            base=model.fingerprint,
            provenance=of_edit(self, model, asked, demonstrations=[asdict(one) for one in shown]),
        )


def demonstrations(model: LabModel, known: Sequence[Fact], n: int, *, seed: int) -> Demonstrations:
    """Copy, update and retain demonstrations in turns, each about another subject.

    A known fact is given the object of another fact of its relation. The answer retained is that to
    another subject of that relation, which the model knows too.

    Args:
        model: The model.
        known: Facts that the model knows, one or more per demonstration: those without another
            wording, and those whose relation has no other known fact, are passed over.
        n: How many are wanted.
        seed: Seed of the draw.

    Raises:
        InputError: If the facts do not make that many.
    """
    facts = facts_of(model)
    made: list[Demonstration] = []
    for fact in known:
        if len(made) == n:
            break
        draw = stats.generator(seed, "demonstration", fact.prompt)
        others = [f for f in facts if f.relation == fact.relation and f.object not in fact.answers]
        others = [others[i] for i in torch.randperm(len(others), generator=draw)[:DRAWN].tolist()]
        if not others or not fact.paraphrases:
            continue
        kind: Kind = KINDS[len(made) % len(KINDS)]
        new = str(others[0].object)
        kept = [other for other in others if new not in other.answers]
        retained = known_facts(model, kept).facts if kind == "retain" and kept else []
        if kind == "retain" and not retained:
            continue
        question, answer = {
            "copy": (fact.prompt, new),
            "update": (fill(fact.paraphrases[0], fact.subject), new),
            "retain": (retained[0].prompt, str(retained[0].object)) if retained else ("", ""),
        }[kind]
        made.append(
            Demonstration(
                kind=kind, fact=sentence(fact.prompt, new), answered=sentence(question, answer)
            )
        )
    if len(made) < n:
        raise InputError(f"{len(known)} known facts make {len(made)} demonstrations, not {n}")
    return tuple(made)


def sentence(prompt: str, answer: str) -> str:
    """A prompt with its answer, as a sentence."""
    separated = prompt[-1:].isspace() or answer[0].isspace()
    return f"{prompt}{'' if separated else ' '}{answer}."


def _words(text: str) -> frozenset[str]:
    """The words of a text, lower case."""
    return frozenset(re.findall(r"\w+", text.lower()))
