"""Portability of edits beside the unedited model and its control, with the case as the unit.

A case's own questions are averaged first; what a case has no question for does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from editing.edits.effect import Edit, in_effect
from editing.readings.asking import GENERATED_TOKENS, READINGS, Reading, shares
from editing.readings.comparison import NAMES
from editing.readings.consequences import METRICS, implications, measure, mirrored
from editing.readings.implication import Implication, Reply
from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.chains import Chains
from labkit.facts.fact import Rewrite
from labkit.facts.worlds import chains_of
from labkit.models.model import LabModel
from labkit.results.result import Result
from labkit.stats import Estimate
from labkit.tokens.words import joined

STATES = {
    "before": "unedited, asked for the new",
    "after": "edited, asked for the new",
    "control": "unedited, asked for the truth",
}
"""By state, what it is called in tables and figures."""


@dataclass(frozen=True, kw_only=True)
class Carried:
    """Consequences of one case's rewrite, read in three states.

    Attributes:
        case_id: The case.
        before: The unedited model, asked for what follows from the rewrite.
        after: The edited model, asked the same.
        control: The unedited model, asked for what holds before it (`mirrored`): how well
            the model can put its own facts together.
        n: Number of questions by metric.
    """

    case_id: str
    before: Reading
    after: Reading
    control: Reading
    n: dict[str, int]

    @classmethod
    def of(
        cls,
        case_id: str,
        *,
        before: Sequence[Reply],
        after: Sequence[Reply],
        control: Sequence[Reply],
    ) -> "Carried":
        """The shares that pass among the replies of one case."""
        asked = [reply.question.metric for reply in after]
        return cls(
            case_id=case_id,
            before=shares(before),
            after=shares(after),
            control=shares(control),
            n={metric: asked.count(metric) for metric in dict.fromkeys(asked)},
        )


@dataclass(frozen=True, kw_only=True)
class Portability(Result):
    """Consequences of some rewrites, before and after them.

    Attributes:
        cases: One per case.
        method: What made the edits.
        model: Name of the model.
        seed: Seed of the intervals.
    """

    cases: tuple[Carried, ...]
    method: str = "an edit"
    model: str = "a model"
    seed: int = 0

    @property
    def title(self) -> str:
        """Method, model and number of cases, in one line."""
        cases = "1 case" if len(self.cases) == 1 else f"{len(self.cases)} cases"
        return f"Portability of {self.method} on {self.model}: {cases}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that some case has a question for, the known ones first."""
        found = dict.fromkeys(metric for case in self.cases for metric in case.n)
        return (*(m for m in METRICS if m in found), *(m for m in found if m not in METRICS))

    def values(self, state: str, reading: str, metric: str) -> list[float]:
        """One number per case, for the cases that have it.

        Args:
            state: A key of `STATES`.
            reading: One of `editing.readings.asking.READINGS`.
            metric: One of `metrics`.
        """
        found = (getattr(case, state).get(reading, {}).get(metric) for case in self.cases)
        return [value for value in found if value is not None]

    def estimate(self, state: str, reading: str, metric: str) -> Estimate | None:
        """Mean over cases with its interval; None where no case has such a question."""
        values = self.values(state, reading, metric)
        return stats.share(values) if values else None

    def change(self, reading: str, metric: str) -> tuple[Estimate, float] | None:
        """Edited minus unedited over paired cases, and the p-value of no change."""
        after = self.values("after", reading, metric)
        if not after:
            return None
        before = self.values("before", reading, metric)
        return stats.paired_difference(after, before, seed=self.seed)

    def to_frame(self) -> pd.DataFrame:
        """One row per reading, metric and state: mean, low, high, n (cases), questions."""
        rows = []
        for reading in READINGS:
            for metric in self.metrics:
                for state, shown in STATES.items():
                    estimate = self.estimate(state, reading, metric)
                    if estimate is not None:
                        asked = sum(case.n.get(metric, 0) for case in self.cases)
                        rows.append(
                            {"reading": NAMES[reading], "metric": metric, "state": shown}
                            | {**estimate.to_dict(), "questions": asked}
                        )
        columns = "reading metric state mean low high n questions".split()
        return pd.DataFrame(rows, columns=columns)

    def figure(self) -> Any:
        """Bars with intervals, the three states side by side, one panel per reading."""
        from labkit.plots import metrics_bars

        return metrics_bars(self.to_frame(), title=self.title)


@checked
def portability(
    model: LabModel,
    edit: Edit | None,
    rewrites: Sequence[Rewrite],
    *,
    asked: Sequence[Sequence[Implication]] | None = None,
    chains: Chains | None = None,
    n_tokens: int = GENERATED_TOKENS,
    method: str = "an edit",
) -> Portability:
    """Consequences of some rewrites, with one edit that makes them all in effect.

    Rewrites without consequences that can be asked are left out.

    Args:
        model: The model; it is restored afterwards.
        edit: The edit; None is the unedited model.
        rewrites: What it was asked for, each a case.
        asked: The questions of each case; by default those that follow from the facts at hand.
        chains: Those facts; by default the ones of the model's own world.
        n_tokens: Length of free continuations; 0 leaves that reading out.
        method: What made the edit, for the title.

    Raises:
        InputError: If none has a consequence that can be asked, or there are not as many
            lists of questions as rewrites.
        FingerprintMismatch: If the edit belongs to another model.
    """
    if asked is None:
        known = chains_of(model) if chains is None else chains
        asked = [implications(rewrite, known) for rewrite in rewrites]
    if len(asked) != len(rewrites):
        raise InputError(
            f"{len(rewrites)} rewrites, but lists of questions for {len(asked)}: give one list "
            "for each"
        )
    some = [(rewrite, own) for rewrite, own in zip(rewrites, asked, strict=True) if own]
    if not some:
        raise InputError(
            "these rewrites have no consequences that can be asked: portability cannot be measured"
        )
    together = [question for _, own in some for question in own]
    turned = [mirrored(own) for _, own in some]
    before = iter(measure(model, together, n_tokens=n_tokens))
    control = iter(measure(model, [q for own in turned for q in own], n_tokens=n_tokens))
    with in_effect(model, edit) as wording:
        after = iter(measure(model, together, n_tokens=n_tokens, wording=wording))
    cases = [
        Carried.of(
            joined(rewrite.prompt, rewrite.target_new),
            before=[next(before) for _ in own],
            after=[next(after) for _ in own],
            control=[next(control) for _ in truth],
        )
        for (rewrite, own), truth in zip(some, turned, strict=True)
    ]
    return Portability(cases=tuple(cases), method=method, model=model.name)
