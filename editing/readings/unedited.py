"""The unedited model's readings: taken once, and compared with those of every method."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from editing.edits.effect import Edit, in_effect
from editing.readings.asking import GENERATED_TOKENS, Reading, essence, read, shares
from editing.readings.consequences import Implication, implications, measure, mirrored
from editing.readings.side_effects import Material, SideEffects
from editing.readings.side_effects_result import SideReadings
from labkit.facts.chains import Chains
from labkit.facts.fact import Case, Rewrite
from labkit.metrics import kl_divergence
from labkit.models.model import LabModel
from labkit.results.result import RunDirectory
from labkit.running.reading import TextReading, read_text


@dataclass(frozen=True, kw_only=True, eq=False)
class Unedited:
    """Readings of some cases and of held-out text while no edit is in effect.

    Attributes:
        model: The model.
        texts: Held-out text.
        n_tokens: Length of free continuations; 0 leaves that reading out.
        side_effects: The side effects to measure; None leaves them out.
        chains: Facts from which to ask for what follows from a rewrite; None leaves it out.
        exclude: The rewrites: no fact that side effects are measured on is about them.
        run: A run directory in which readings are kept, for other methods and for resuming a killed
            run.
    """

    model: LabModel
    texts: tuple[str, ...]
    n_tokens: int = GENERATED_TOKENS
    side_effects: SideEffects | None = None
    chains: Chains | None = None
    exclude: tuple[Rewrite, ...] = ()
    run: RunDirectory | None = None
    _known: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Load what the run directory holds."""
        if self.run is not None:
            self._known.update({record["case_id"]: record for record in self.run.cases()})

    @cached_property
    def text(self) -> TextReading:
        """The held-out text."""
        return read_text(self.model, self.texts)

    @cached_property
    def material(self) -> Material | None:
        """The material for side effects, with this model's readings of it."""
        if self.side_effects is None:
            return None
        return self.side_effects.material(self.model, exclude=self.exclude, texts=self.texts)

    def side_readings(self, edit: Edit | None) -> SideReadings | None:
        """Side effects of an edit; None where they are not measured."""
        if self.side_effects is None or self.material is None:
            return None
        with in_effect(self.model, edit) as wording:
            return self.side_effects.measure(self.model, self.material, wording)

    def records(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """This model's readings of some cases, as the records of an evaluation keep them.

        The cases are read together if one of them is not known yet. Of each: `before`, its
        readings, and `portability`, null where it has no consequence that can be asked:
        readings `before` and, asked for the truth, `control`, and `n` questions by metric.
        """
        if not all(case.case_id in self._known for case in cases):
            asked = [self.asked(case) for case in cases]
            truth = self._replies([mirrored(own) for own in asked], None)
            said = zip(cases, self.read(cases, None), asked, self.carried(cases, None), truth,
                       strict=True)  # fmt: skip
            for case, before, own, carried, control in said:
                counts = Counter(question.metric for question in own)
                follows = {"before": carried, "control": control, "n": dict(counts)}
                record = {
                    "case_id": case.case_id,
                    "before": before,
                    "portability": follows if own else None,
                }
                if case.case_id not in self._known:
                    self._known[case.case_id] = record
                    if self.run is not None:
                        self.run.append_case(record)
        return [self._known[case.case_id] for case in cases]

    def asked(self, case: Case) -> list[Implication]:
        """The questions about what follows from a case's rewrite."""
        return [] if self.chains is None else implications(case.rewrite, self.chains)

    def carried(self, cases: Sequence[Case], edit: Edit | None) -> list[Reading]:
        """The shares of consequences that hold under an edit, by case."""
        return self._replies([self.asked(case) for case in cases], edit)

    def _replies(self, asked: Sequence[Sequence[Implication]], edit: Edit | None) -> list[Reading]:
        together = [question for own in asked for question in own]
        with in_effect(self.model, edit) as wording:
            replies = iter(measure(self.model, together, n_tokens=self.n_tokens, wording=wording))
        return [shares([next(replies) for _ in own]) for own in asked]

    def read(self, cases: Sequence[Case], edit: Edit | None) -> list[Reading]:
        """All readings of some cases under an edit, their drift from this model among them."""
        before = essence(self.model, cases)
        with in_effect(self.model, edit) as wording:
            found = read(self.model, cases, n_tokens=self.n_tokens, wording=wording)
            after = essence(self.model, cases, wording=wording)
        for reading, kl in zip(found, kl_divergence(before, after).tolist(), strict=True):
            reading["drift"] = {"essence": kl}
        return found

    def read_text(
        self, edit: Edit | None
    ) -> tuple[Float[Tensor, " piece"], Float[Tensor, " piece"]]:
        """The held-out text under an edit: nats per token, and KL from this model, by piece."""
        before = self.text
        with in_effect(self.model, edit) as wording:
            after = read_text(self.model, self.texts, wording=wording)
        # In 64 bits, so that no change is a change of exactly 0, of means as well.
        return after.nll.double(), before.kl_to(after)
