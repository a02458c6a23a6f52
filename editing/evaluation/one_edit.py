"""The audit of one edit: every prompt before and after, side by side.

Where `editing.evaluation.many_cases` averages over many cases, this looks at one. The unit of its
intervals is therefore the prompt (Wilson intervals), and they say how well these prompts
stand for others like them, not how well the method works on other facts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from editing.edits.effect import Edit, Wording, as_it_is, in_effect
from editing.readings.asking import (
    EXPLAINED,
    GENERATED_TOKENS,
    Answer,
    ask,
    essence,
)
from editing.readings.comparison import Comparison
from labkit import stats
from labkit.arguments import checked
from labkit.facts.fact import Case
from labkit.metrics import kl_divergence
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import measured_on
from labkit.running.reading import PIECE, text_nll
from labkit.running.scoring import generate
from labkit.stats import Estimate
from labkit.text.corpus import held_out


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit(Comparison):
    """One edit, read before and after.

    Attributes:
        case: The case that was audited.
        before: Answers of the unedited model, in the order of the case's questions.
        after: Answers of the edited model.
        openings: The case's generation prompts.
        written_before: What the unedited model writes after them.
        written_after: What the edited model writes after them.
        nll_before: Held-out text under the unedited model, nats per token, by piece.
        nll_after: The same under the edited model.
        essence_drift: KL of what follows "{subject} is a", unedited to edited, in nats.
    """

    unit = "prompt"
    case: Case
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]
    openings: tuple[str, ...]
    written_before: tuple[str, ...]
    written_after: tuple[str, ...]
    nll_before: np.ndarray
    nll_after: np.ndarray
    essence_drift: float

    @property
    def text_units(self) -> dict[str, str]:
        """Pieces of text, every time."""
        return dict.fromkeys(("unedited", "edited", "change_in_nats_per_token"), PIECE)

    @property
    def title(self) -> str:
        """The rewrite, in one line."""
        rewrite = self.case.rewrite
        return f"{rewrite.prompt} … {rewrite.target_true or '?'} → {rewrite.target_new}"

    def estimate(self, state: str, reading: str, metric: str) -> Estimate | None:
        """Share of prompts that pass, with its Wilson interval; None if none was asked.

        The essence drift is of one prompt and has no interval.
        """
        if reading == "drift":
            drift = self.essence_drift if state == "after" else 0.0
            return Estimate.exact(drift) if metric == "essence" else None
        passed = [
            answer.passes(reading)
            for answer in getattr(self, state)
            if answer.question.metric == metric
        ]
        counted = [p for p in passed if p is not None]
        return stats.proportion(sum(counted), len(counted)) if counted else None

    @property
    def verdict(self) -> tuple[str, ...]:
        """Did it take, did it carry over, what broke: one line each, in counts of prompts."""
        said = self.case.rewrite.target_new.strip()
        took = self._counts("accuracy", "efficacy")[1:] == (1, 1)
        lines = [f"it took: the edited prompt says {said}"]
        if not took:
            rival = "is not even likelier"
            if self._counts("success", "efficacy")[1] == 1:
                rival = "is only likelier than the old object"
            lines = [f"it did not take: the edited prompt does not say {said}, which {rival}"]
        _, follow, n = self._counts("accuracy", "paraphrase")
        likelier = self._counts("success", "paraphrase")[1]
        if n:
            lines.append(
                f"of {n} paraphrases {follow} say it, in {likelier} it is the likelier one"
            )
        lines += [
            line
            for metric, what in (
                ("neighbourhood", "neighbours"),
                ("attribute", "subjects that have the new object in truth"),
                ("distractor", "neighbours asked right after the edited sentence"),
            )
            if (line := self._broken(metric, what)) is not None
        ]
        before, after = (self.perplexity(state).mean for state in ("before", "after"))
        lines.append(
            f"perplexity of other text {before:.4g} to {after:.4g}; what follows "
            f"“{self.case.rewrite.subject} is a” moved by {self.essence_drift:.2g} nats"
        )
        return tuple(lines)

    def _counts(self, reading: str, metric: str) -> tuple[int, int, int]:
        """How many prompts pass before and after, of how many."""
        passed = [
            (one.passes(reading), two.passes(reading))
            for one, two in zip(self.before, self.after, strict=True)
            if one.question.metric == metric and one.passes(reading) is not None
        ]
        return sum(bool(b) for b, _ in passed), sum(bool(a) for _, a in passed), len(passed)

    def _broken(self, metric: str, what: str) -> str | None:
        """What of a metric was right before the edit, and is not after it."""
        pairs = [
            (one.passes("success"), two.passes("success"))
            for one, two in zip(self.before, self.after, strict=True)
            if one.question.metric == metric
        ]
        right = [after for before, after in pairs if before]
        if not pairs or not right:
            return None
        lost = sum(not after for after in right)
        said = f"{lost} of {len(right)} {what} that were right are wrong now"
        return said if lost else f"none of {len(right)} {what} that were right broke"

    def _repr_html_(self) -> str:
        """The verdict first, then the readings, each explained."""
        verdict = "".join(f"<li>{escape(line)}</li>" for line in self.verdict)
        shown = {name for row in self.to_frame()[["reading", "metric"]].to_numpy() for name in row}
        notes = "; ".join(
            f"<em>{escape(name)}</em>: {escape(words)}"
            for name, words in EXPLAINED.items()
            if name in shown
        )
        return f"<ul>{verdict}</ul>{super()._repr_html_()}<p><small>{notes}</small></p>"

    def figure(self) -> Any:
        """Bars with intervals, unedited beside edited, one panel per reading; the verdict above."""
        from labkit.plots import metrics_bars

        first, *rest = self.verdict
        return metrics_bars(
            self.to_frame(), title=self.title, subtitle="; ".join([first, *rest[:1]])
        )

    def nll(self, state: str) -> Estimate:
        """Nats per token of held-out text, with an interval over its pieces."""
        return self._nll[state]

    @cached_property
    def _nll(self) -> dict[str, Estimate]:
        """Nats per token by state; kept, since resampling takes a second."""
        return {
            "before": stats.average(self.nll_before),
            "after": stats.average(self.nll_after),
        }

    @cached_property
    def nll_change(self) -> Estimate:
        """Change in nats per token on held-out text, paired over pieces, with its interval."""
        return stats.paired_difference(self.nll_after, self.nll_before)[0]

    def prompts(self) -> pd.DataFrame:
        """One row per prompt: what it wants, P(wanted) and what the model writes, both times."""
        rows = []
        for before, after in zip(self.before, self.after, strict=True):
            rows.append(
                {
                    "asked as": before.question.metric,
                    "prompt": before.question.prompt,
                    "wanted": before.question.wanted.strip(),
                    "P before": math.exp(-before.wanted_nll),
                    "P after": math.exp(-after.wanted_nll),
                    "writes before": (before.text or "").strip().replace("\n", " "),
                    "writes after": (after.text or "").strip().replace("\n", " "),
                }
            )
        return pd.DataFrame(rows)

    def metrics(self) -> dict[str, Any]:
        """The summary, in the shape of `Evaluation.metrics`."""
        return {"n": 1, "verdict": list(self.verdict), **super().metrics()}


@checked
def audit(
    model: LabModel,
    edit: Edit,
    case: Case,
    *,
    n_tokens: int = GENERATED_TOKENS,
    held_out_texts: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Read one case before and after an edit.

    Args:
        model: The model; it is restored afterwards.
        edit: The edit, a weight change or a text.
        case: The prompts to read.
        n_tokens: Length of free continuations; 0 leaves that reading out.
        held_out_texts: Text for perplexity; by default the model's (`labkit.text.corpus`).
        progress: Called before each of the two readings.

    Raises:
        InputError: If it is no case.
        FingerprintMismatch: If the edit belongs to another model.
    """
    texts = held_out(model) if held_out_texts is None else held_out_texts
    openings = tuple(dict.fromkeys(case.generation))

    def look(wording: Wording) -> tuple[tuple[Answer, ...], tuple[str, ...], np.ndarray, Tensor]:
        asked = [wording(opening) for opening in openings]
        written = generate(model, asked, 2 * n_tokens) if asked and n_tokens else []
        answers = ask(model, case, n_tokens=n_tokens, wording=wording)
        nll = text_nll(model, texts, wording=wording).numpy()
        return tuple(answers), tuple(written), nll, essence(model, [case], wording=wording)

    with in_effect(model, edit):
        pass  # refuses the edit of another model before any work
    told = listener(progress)
    told("reading the unedited model", 0.0)
    before, written_before, nll_before, was = look(as_it_is)
    told("reading the edited model", 0.5)
    with in_effect(model, edit) as wording:
        after, written_after, nll_after, became = look(wording)
    return Audit(
        case=case,
        before=before,
        after=after,
        openings=openings,
        written_before=written_before,
        written_after=written_after,
        nll_before=nll_before,
        nll_after=nll_after,
        essence_drift=kl_divergence(was, became).item(),
        **measured_on(model),
    )
