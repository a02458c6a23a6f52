"""How a model degrades as edits accumulate, and whether it could have been foreseen.

A model that is edited repeatedly withstands it for a while and then, often within a few edits,
collapses: its text is no longer sensible, and earlier edits are lost with the rest. Efficacy over
the edits made so far shows when. Two readings that need no list of edits may show it earlier: how
far the weights have moved, relative to their own size, and the loss on held-out text.

Thresholds are conventions, and fields: a crossing is a reason to look, not a verdict.

References:
    Yang et al. 2024, The Butterfly Effect of Model Editing, section 4, for perplexity as a
    stand-in for everything else. Gupta et al. 2024, Model Editing at Scale leads to Gradual
    and Catastrophic Forgetting, section 4, for gradual and sudden forgetting and for norms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from editing.edits.delta import WeightDelta
from editing.edits.effect import Edit, in_effect
from editing.readings.unedited import Unedited
from labkit import stats
from labkit.errors import InputError
from labkit.facts.fact import Rewrite
from labkit.models.model import LabModel
from labkit.results.result import Result
from labkit.running.scoring import score
from labkit.stats import Estimate

QUANTITIES = {
    "success": "share of the edits so far",
    "argmax accuracy": "share of the edits so far",
    "perplexity": "times the unedited model's",
    "KL": "nats per token",
    "norm growth": "‖Δ‖ / ‖W‖, largest of all weights",
}
"""What a curve holds, with its unit."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """From which value on a reading counts as a warning.

    Attributes:
        norm_growth: Of `||D||_F / ||W||_F`, the largest of the changed weights. In SmolLM2-135M a
            hundred edits by MEMIT reach 0.42 and hold; a hundred without `C` pass 0.5 between
            the 20th and the 50th, while all of them are still likelier than the old answers.
        perplexity: Of held-out perplexity, relative to the unedited model's.
        success: Below this share of edits in force, efficacy has fallen.
    """

    norm_growth: float = 0.5
    perplexity: float = 1.1
    success: float = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class CollapseCurve(Result):
    """Readings of the edited model after some numbers of edits.

    Attributes:
        points: One per number of edits: `edits`, `success` and `accuracy` of each edit so far
            (1, 0, or null without a true object to compare with), `nll` and `kl` of each
            piece of held-out text, `norms` by weight.
        nll_before: Nats per token of the unedited model, by piece.
        thresholds: From which value on a reading counts as a warning.
        method: Name of the method.
        model: Name of the model.
        seed: Seed of the intervals.
    """

    points: tuple[dict[str, Any], ...]
    nll_before: tuple[float, ...]
    thresholds: Thresholds = field(default_factory=Thresholds)
    method: str
    model: str
    seed: int = 0

    @property
    def title(self) -> str:
        """Method, model, and how many edits."""
        return f"{self.method} on {self.model}: up to {self.points[-1]['edits']} edits in force"

    def to_frame(self) -> pd.DataFrame:
        """One row per number of edits and quantity: mean, low, high, n, unit.

        Intervals are over edits for success and accuracy, over pieces of text for perplexity
        (paired with the unedited model's) and KL; a norm is known exactly.
        """
        return self._frame

    @cached_property
    def _frame(self) -> pd.DataFrame:
        rows = []
        for point in self.points:
            for quantity, estimate in self._estimates(point).items():
                rows.append(
                    {
                        "edits": point["edits"],
                        "quantity": quantity,
                        **estimate.to_dict(),
                        "unit": QUANTITIES[quantity],
                    }
                )
        return pd.DataFrame(rows)

    def _estimates(self, point: dict[str, Any]) -> dict[str, Estimate]:
        found = {}
        for quantity, key in (("success", "success"), ("argmax accuracy", "accuracy")):
            passed = [value for value in point[key] if value is not None]
            if passed:
                found[quantity] = stats.proportion(sum(passed), len(passed))
        more = stats.paired_difference(point["nll"], self.nll_before, seed=self.seed)[0]
        low, mean, high = (math.exp(nats) for nats in (more.low, more.mean, more.high))
        found["perplexity"] = Estimate(mean, low, high, more.n)
        found["KL"] = stats.average(point["kl"])
        if point["norms"]:
            largest = max(point["norms"].values())
            found["norm growth"] = Estimate.exact(largest, len(point["norms"]))
        return found

    def warnings(self) -> pd.DataFrame:
        """One row per sign: its threshold, and after how many edits it was seen first.

        `crossed_at` is missing where the threshold was not crossed; so is `fell_at`, the
        first number of edits of which fewer than `thresholds.success` are in force. `early`
        says whether the sign came before the fall (missing where nothing fell): seen at a
        smaller number of edits, not at the same.
        """
        fell = self._first("success", lambda mean: mean < self.thresholds.success)
        rows = []
        for quantity, threshold in (
            ("norm growth", self.thresholds.norm_growth),
            ("perplexity", self.thresholds.perplexity),
        ):
            crossed = self._first(quantity, lambda mean, at=threshold: mean >= at)
            early = None if fell is None else crossed is not None and crossed < fell
            rows.append((quantity, threshold, crossed, fell, early))
        columns = ["quantity", "threshold", "crossed_at", "fell_at", "early"]
        return pd.DataFrame(rows, columns=columns, dtype=object)

    def metrics(self) -> dict[str, Any]:
        """The points and the signs, JSON-ready."""
        return {
            "points": self.to_frame().to_dict(orient="records"),
            "warnings": self.warnings().to_dict(orient="records"),
        }

    def _first(self, quantity: str, crossed: Any) -> int | None:
        frame = self.to_frame()
        rows = frame[frame["quantity"] == quantity]
        return next((int(r.edits) for r in rows.itertuples() if crossed(r.mean)), None)

    def figure(self) -> Any:
        """One panel per quantity over the number of edits, with the thresholds."""
        from labkit.plots import collapse_curves

        levels = {
            "success": self.thresholds.success,
            "perplexity": self.thresholds.perplexity,
            "norm growth": self.thresholds.norm_growth,
        }
        return collapse_curves(self.to_frame(), title=self.title, thresholds=levels)


def checkpoints(n: int) -> list[int]:
    """Numbers of edits at which a curve is read: 1, 2, 5, 10, 20, 50, ... and `n` itself."""
    if n < 1:
        raise InputError(f"a curve over {n} edits has no point")
    steps = (factor * 10**power for power in range(len(str(n))) for factor in (1, 2, 5))
    return [*(step for step in steps if step < n), n]


def point(edit: Edit | None, rewrites: Sequence[Rewrite], unedited: Unedited) -> dict[str, Any]:
    """One point of a curve; see `CollapseCurve.points`. Nothing is in effect yet.

    Args:
        edit: All edits made so far.
        rewrites: The rewrites asked for so far.
        unedited: The unedited model's readings.
    """
    model = unedited.model
    with in_effect(model, edit) as wording:
        wanted = [(wording(r.prompt), r.target_new) for r in rewrites]
        rivals = [(wording(r.prompt), r.target_true) for r in rewrites if r.target_true is not None]
        nll, argmax = score(model, [*wanted, *rivals])
    rival_nll = iter(nll[len(rewrites) :].tolist())
    success = [
        None if r.target_true is None else int(own < next(rival_nll))
        for r, own in zip(rewrites, nll.tolist(), strict=False)
    ]
    text, kl = unedited.read_text(edit)
    return {
        "edits": len(rewrites),
        "success": success,
        "accuracy": [int(top) for top in argmax[: len(rewrites)].tolist()],
        "nll": text.tolist(),
        "kl": kl.tolist(),
        "norms": growth(model, edit),
    }


def growth(model: LabModel, edit: Edit | None) -> dict[str, float]:
    """Each change relative to its weight: `||D||_F / ||W||_F`; empty for a text edit."""
    if not isinstance(edit, WeightDelta):
        return {}
    weights = dict(model.hf.named_parameters())
    return {
        name: float(change.dense().double().norm() / weights[name].detach().double().norm().cpu())
        for name, change in edit.changes.items()
    }
