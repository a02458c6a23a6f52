"""Which heads carry the subject's attribute to the last token: three readings side by side.

For every head, at the last position:

- *direct*: what it writes there adds to the answer's logit through the final norm and the
  unembedding (`labkit.direct_attribution.direct_logit_attribution`). It does not show how later
  blocks use it, nor where the head reads it.
- *attention*: the weight it puts on the subject's tokens. It does not show what it reads
  there, nor whether that matters.
- *blocked*: the relative change of P(answer) where it may not look at the subject
  (`labkit.locate.attention.knockout`), the effect through all paths; beside it the *control*, as
  many random other tokens. It does not show what other heads compensate.

A head that is high in all three reads the subject and writes the answer. One that is high in
`blocked` alone works through later blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit import stats
from labkit.arguments import checked
from labkit.direct_attribution import direct_logit_attribution
from labkit.errors import InputError
from labkit.facts.answers import shown, told
from labkit.facts.fact import Fact
from labkit.locate.attention.knockout import AttentionKnockout, sources
from labkit.locate.attention.patterns import attention_patterns
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import next_token_logits
from labkit.stats.intervals import over_units

READINGS = ("direct", "attention", "blocked", "control")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadReport(Measured):
    """Three readings of every head, for one fact or several.

    Attributes:
        prompts: The prompts.
        answers: The tokens that are followed.
        direct: What the head adds to the answer's logit at the last position.
        attention: Its weight from the last position on the subject, 0..1.
        blocked: Relative change of P(answer) where it may not look at the subject, -1..
        control: The same for random other tokens; NaN where there are none.
    """

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    direct: Float[np.ndarray, "fact layer head"]
    attention: Float[np.ndarray, "fact layer head"]
    blocked: Float[np.ndarray, "fact layer head"]
    control: Float[np.ndarray, "fact layer head"]

    @property
    def title(self) -> str:
        """The heads whose blocking has the largest effect."""
        rows = self.to_frame().head(3)
        heads = ", ".join(f"L{r.layer}H{r.head} ({r.blocked:+.1%})" for r in rows.itertuples())
        on = self.prompts[0] + " …" if len(self.prompts) == 1 else f"{len(self.prompts)} facts"
        return f"Heads that carry the subject to the last token: {heads}; {on}"

    def to_frame(self) -> pd.DataFrame:
        """One row per head, the costliest to block first: layer, head, then the readings.

        `direct`, `attention`, `blocked`, `control`, each with `_low` and `_high`: 95 %,
        over facts; none (NaN) for a single fact.
        """
        layers, heads = np.indices(self.direct.shape[1:])
        columns = {"layer": layers.ravel(), "head": heads.ravel()}
        for name in READINGS:
            mean, low, high, _ = (values.ravel() for values in over_units(getattr(self, name)))
            columns |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        return pd.DataFrame(columns).sort_values("blocked", kind="stable", ignore_index=True)

    def agreement(self) -> pd.DataFrame:
        """Do the readings rank the heads alike: first, second, mean, low, high, n.

        Spearman's correlation over heads, per fact; the interval covers facts. The sign of
        `blocked` is turned, so that high is important in all of them.
        """
        values = {"direct": self.direct, "attention": self.attention, "blocked": -self.blocked}
        n = len(self.prompts)
        ranks = {
            name: np.apply_along_axis(_ranks, 1, cells.reshape(n, -1))
            for name, cells in values.items()
        }
        rows = []
        for one, other in combinations(values, 2):
            estimate = stats.average(
                [np.corrcoef(a, b)[0, 1] for a, b in zip(ranks[one], ranks[other], strict=True)],
                within=(-1.0, 1.0),
            )
            rows.append({"first": one, "second": other} | estimate.to_dict())
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """A grid of heads for each of the three readings."""
        from labkit.plots import head_grids

        panels = {
            "direct": "adds to the logit",
            "attention": "looks at the subject",
            "blocked": "blocked: P(answer)",
        }
        return head_grids(self.to_frame(), panels, title=self.title, percent=["blocked"])


@checked
def head_report(
    model: LabModel,
    facts: Fact | Sequence[Fact],
    *,
    method: AttentionKnockout | None = None,
    progress: Progress | None = None,
) -> HeadReport:
    """Direct contribution, attention to the subject, and knock-out of every head.

        head_report(model, [fact]).figure()

    The direct contribution takes the memory of a second model, and most of the time.

    Args:
        model: The model.
        facts: One fact, or several to average over.
        method: The knock-out; by default `AttentionKnockout()`.
        progress: Called with what is being done and the share that is done.

    Raises:
        SubjectNotFound: If a subject is not in its prompt.
        InputError: If there is no fact, or a prompt is one token or ends with its subject.

    Shows:
        Whether a head reads the subject, writes the answer, and is missed, side by side.

    Does not show:
        How later blocks use what it writes, what it reads where it looks, or what other heads
        make good.
    """
    method = AttentionKnockout() if method is None else method
    chosen = [facts] if isinstance(facts, Fact) else list(facts)
    if not chosen:
        raise InputError("there are no facts: give at least one")
    chosen = [told(model.tokenizer, fact) for fact in chosen]
    positions = [sources(model, fact)[1]["subject"] for fact in chosen]  # all, before any work
    cells: dict[str, list[np.ndarray]] = {name: [] for name in READINGS}
    answers = []
    for index, (fact, subject) in enumerate(zip(chosen, positions, strict=True)):
        listener(progress)(f"heads, fact {index + 1} of {len(chosen)}", index / len(chosen))
        result = method(model, fact)
        answer = _as_text(model, fact)
        direct = direct_logit_attribution(model, fact.prompt, answer, unit="head")
        weights = attention_patterns(model, fact.prompt).patterns[:, :, -1]
        answers.append(result.answer)
        of_heads = direct["logit"].to_numpy()[: weights.shape[0] * weights.shape[1]]
        cells["direct"].append(of_heads.reshape(weights.shape[:2]))
        cells["attention"].append(weights[:, :, list(subject)].sum(axis=-1))
        cells["blocked"].append(result.change(result.by_head))
        cells["control"].append(result.change(result.by_head_control))
    return HeadReport(
        prompts=tuple(fact.prompt for fact in chosen),
        answers=tuple(answers),
        **measured_on(model),
        **{name: np.stack(values) for name, values in cells.items()},
    )


def _as_text(model: LabModel, fact: Fact) -> str:
    """The object, or the model's own answer as a text that leads back to it."""
    if fact.object is not None:
        return fact.object
    said = int(next_token_logits(model, [fact.prompt])[0].argmax())
    return shown(model.tokenizer, fact.prompt, said)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values, ties shared."""
    from scipy.stats import rankdata

    return rankdata(values)
