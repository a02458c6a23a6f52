"""The side effects of an edit: everything it is not about, measured before and after.

Four kinds of material that have nothing to do with the edit, each with its own unit:

| metric | reading | unit of its interval |
|---|---|---|
| `nll` | held-out text, nats per token (perplexity is its exponential) | piece of text |
| `kl` | KL(unedited || edited) of the next token on that text, nats per token | piece of text |
| `minimal pairs` | share of pairs whose grammatical sentence is likelier | pair |
| `facts` | share of the facts that the unedited model knows and still says | fact |
| `P(answer)` | probability of those facts' answers, 0..1 | fact |
| `repetition` | share of 3-grams of words that occurred before in the same free text | opening |
| `entropy` | n-gram entropy of free text, bits (`labkit.metrics.fluency`) | opening |
| `words` | words of free text until the model ends it, up to what was asked for | opening |

    effects = SideEffects()
    material = effects.material(model, exclude=[rewrite])       # prepared on the unedited model
    with in_effect(model, edit) as wording:
        after = effects.measure(model, material, wording)
    compare(material.before, after)                             # paired, with intervals

An edit of nothing gives exactly zero everywhere: both readings are the same computation.

References:
    Warstadt et al. (2020), BLiMP. Zhu et al. (2020), Modifying Memories in Transformer
    Models, section 3, on unmodified facts. Meng et al. (2022), Locating and Editing Factual
    Associations in GPT, section 3.4, on generation entropy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from editing.edits.effect import Wording, as_it_is
from editing.readings.forgetting import recall, unrelated_facts
from editing.readings.side_effects_result import SideComparison, SideReadings
from labkit.errors import FingerprintMismatch, InputError
from labkit.facts.fact import Deletion, Fact, Rewrite
from labkit.facts.worlds import world_of
from labkit.metrics import fluency, repetition
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.reading import TextReading, read_text
from labkit.running.scoring import generate
from labkit.text.acceptability import MinimalPair, minimal_pairs, prefers_good, spells
from labkit.text.corpus import held_out

NGRAM = 3
"""Length of the n-grams, in words, whose repetition is counted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """The material for side effects, with the unedited model's readings of it.

    Attributes:
        texts: Held-out text.
        text: The unedited model's reading of it, with the distributions for the KL.
        pairs: Minimal pairs.
        facts: Facts that the unedited model knows.
        openings: Openings of free text.
        before: The unedited model's readings.
        notes: What was left out, and why, in words.
        fingerprint: Fingerprint of the unedited model.
    """

    texts: tuple[str, ...]
    text: TextReading
    pairs: tuple[MinimalPair, ...]
    facts: tuple[Fact, ...]
    openings: tuple[str, ...]
    before: SideReadings
    notes: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SideEffects:
    """How much material side effects are measured on.

    The default is for batches and for the end of a sequence; `SideEffects.quick()` for
    single edits. What they cost is said in `quick`.

    Attributes:
        n_facts: Known facts of unrelated relations, at most; 0 leaves them out.
        n_pairs: Minimal pairs of each phenomenon; 0 leaves them out.
        n_text_tokens: Held-out texts are taken in order until they have so many tokens; None
            is all that the model has.
        n_openings: Openings of free text, at most 12; 0 leaves them out.
        n_tokens: Tokens that are written after each opening.
        seed: Seed of the draws.

    Raises:
        InputError: If a number is negative, or no text is left.

    Shows:
        What an edit did to text, grammar and facts that it is not about, paired with the unedited
        model.

    Does not show:
        What happens near the edit: the facts are of other relations and about other subjects; see
        the neighbourhood (`editing.readings.asking`). All of them were known before, so that some
        are lost by chance under any change of the weights.
    """

    n_facts: int = 50
    n_pairs: int = 20
    n_text_tokens: int | None = None
    n_openings: int = 12
    n_tokens: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be met."""
        for name in ("n_facts", "n_pairs", "n_openings"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it cannot be negative")
        if self.n_text_tokens is not None and self.n_text_tokens < 1:
            raise InputError(f"n_text_tokens is {self.n_text_tokens}: perplexity needs some text")
        if self.n_openings and self.n_tokens < 1:
            raise InputError("n_tokens is 0: free text needs tokens; n_openings=0 leaves it out")

    @classmethod
    def quick(cls, *, seed: int = 0) -> "SideEffects":
        """The cheap preset, for measurements after every single edit.

        With SmolLM2-135M on one core a measurement takes about 5 seconds, the material (once)
        9; the default preset takes 20 and 28. Half of the latter are minimal pairs.
        """
        return cls(n_facts=24, n_pairs=2, n_text_tokens=192, n_openings=4, n_tokens=24, seed=seed)

    def material(
        self,
        model: LabModel,
        *,
        exclude: Sequence[Rewrite | Deletion] = (),
        pairs: Sequence[MinimalPair] | None = None,
        texts: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Material:
        """Draw the material, and read it with the unedited model.

        Args:
            model: The unedited model.
            exclude: The edits. Facts of their relations, and facts that name their subjects
                or objects, are no unrelated facts. (Published cases have relation ids of
                their own; there only the names exclude.)
            pairs: Minimal pairs to use instead of the project's own, for instance BLiMP's.
            texts: Held-out text to use instead of the model's own (`labkit.text.corpus`).
            progress: Called between the parts.

        Returns:
            The material. A part that the model has nothing for (no fact known, no word in its
            vocabulary) is empty, and its metrics are then not taken; `notes` says so.
        """
        told = listener(progress)
        notes: list[str] = []
        own = self._texts(model, held_out(model) if texts is None else texts)
        told("unrelated facts that the model knows", 0.0)
        facts = unrelated_facts(model, self.n_facts, exclude=exclude, seed=self.seed)
        if len(facts) < self.n_facts:
            notes.append(
                f"{len(facts)} unrelated facts, not {self.n_facts}: {model.name} knows no more"
            )
        if pairs is None:
            pairs = minimal_pairs(self.n_pairs, seed=self.seed) if self.n_pairs else []
        spelt = tuple(pair for pair in pairs if spells(model, pair))
        if len(spelt) < len(pairs):
            notes.append(
                f"{len(pairs) - len(spelt)} of {len(pairs)} minimal pairs are left out: "
                f"the vocabulary of {model.name} does not have their words"
            )
        openings = world_of(model).openings[: self.n_openings]
        told("held-out text, unedited", 0.3)
        text = read_text(model, own)
        empty = Material(
            texts=own, text=text, pairs=spelt, facts=facts, openings=openings,
            before=SideReadings.none(), notes=tuple(notes), fingerprint=model.fingerprint,
        )  # fmt: skip
        told("pairs, facts and free text, unedited", 0.5)
        return replace(empty, before=self._read(model, empty, text, as_it_is))

    def measure(
        self, model: LabModel, material: Material, wording: Wording = as_it_is
    ) -> SideReadings:
        """Read the material with the model's current weights.

        Args:
            model: The model, edited or not.
            material: From `material`.
            wording: How prompts are worded for the model (`editing.edits.effect.in_effect`). What
                it puts in front is not scored: the same tokens count as without it.

        Raises:
            FingerprintMismatch: If the material was prepared on another model.
        """
        if model.fingerprint != material.fingerprint:
            raise FingerprintMismatch(
                f"the material was read with the model {material.fingerprint[:12]}, but "
                f"{model.name} is {model.fingerprint[:12]}: prepare it again"
            )
        text = read_text(model, material.texts, wording=wording)
        return self._read(model, material, text, wording)

    def _read(
        self, model: LabModel, material: Material, text: TextReading, wording: Wording
    ) -> SideReadings:
        """All readings, the text being read already."""
        known, probability = recall(model, material.facts, wording)
        openings = [wording(opening) for opening in material.openings]
        written = generate(model, openings, self.n_tokens) if openings else []
        words = [said.split() for said in written]
        return SideReadings(
            nll=tuple(text.nll.double().tolist()),
            kl=tuple(material.text.kl_to(text).double().tolist()),
            good=_grammatical(model, material.pairs, wording),
            phenomena=tuple(pair.phenomenon for pair in material.pairs),
            known=known,
            probability=probability,
            relations=tuple(fact.relation or "" for fact in material.facts),
            repetition=tuple(repetition(said, NGRAM) for said in words),
            entropy=tuple(fluency(said) for said in words),
            words=tuple(float(len(said)) for said in words),
            written=tuple(written),
        )

    def _texts(self, model: LabModel, texts: Sequence[str]) -> tuple[str, ...]:
        """As many of the texts as are asked for, at least one."""
        if self.n_text_tokens is None:
            return tuple(texts)
        taken: list[str] = []
        n_tokens = 0
        for text in texts:
            if n_tokens >= self.n_text_tokens:
                break
            taken.append(text)
            n_tokens += len(model.ids(text))
        return tuple(taken)


def compare(
    before: SideReadings,
    after: SideReadings,
    *,
    method: str = "an edit",
    model: str = "a model",
    notes: Sequence[str] = (),
) -> SideComparison:
    """Edited beside unedited, unit by unit.

    Args:
        before: Readings of the unedited model (`Material.before`).
        after: Readings of the edited one, on the same material.
        method: What made the edit, for the title.
        model: Name of the model, for the title.
        notes: What the material leaves out (`Material.notes`).

    Raises:
        InputError: If the two are not of the same material.
    """
    return SideComparison(
        before=before, after=after, method=method, model=model, notes=tuple(notes)
    )


def _grammatical(
    model: LabModel, pairs: Sequence[MinimalPair], wording: Wording
) -> tuple[bool, ...]:
    """Which pairs' good sentences are the likelier, both after the prompt of the good one."""
    behind: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        behind.setdefault(wording(pair.good).removesuffix(pair.good), []).append(number)
    good: dict[int, bool] = {}
    for front, numbers in behind.items():
        some = [pairs[number] for number in numbers]
        good |= dict(zip(numbers, prefers_good(model, some, in_front=front).tolist(), strict=True))
    return tuple(good[number] for number in range(len(pairs)))
