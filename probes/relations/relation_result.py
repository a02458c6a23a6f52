"""Faithfulness and causality of operators, with their baselines."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from labkit import stats
from labkit.errors import InputError
from labkit.results.measured import Measured
from labkit.stats import Estimate

OPERATOR, OTHER = "linear operator", "another relation's operator"
ALL = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class RelationScores(Measured):
    """Faithfulness and causality of some relations' operators.

    Attributes:
        operators: One row per relation: relation, depth, beta, rank, examples, asked (held-out
            subjects), known (of these, answered by the model itself).
        cases: One row per subject, measure and method: relation, subject, object, target (for
            causality), measure, method, success (0 or 1).
        seed: Seed of the draws.
    """

    operators: pd.DataFrame
    cases: pd.DataFrame
    seed: int

    @property
    def title(self) -> str:
        """What was scored."""
        n = len(self.cases[["relation", "subject"]].drop_duplicates())
        return f"Linear operators of {len(self.operators)} relations, {n} subjects, {self.model}"

    def score(self, measure: str, method: str = OPERATOR, relation: str = ALL) -> Estimate:
        """Share of subjects, with its Wilson interval.

        Args:
            measure: "faithfulness" or "causality".
            method: One of the measure's methods.
            relation: One relation, or all of them.

        Raises:
            InputError: If nothing of the kind was measured.
        """
        rows = self.cases[(self.cases["measure"] == measure) & (self.cases["method"] == method)]
        if relation != ALL:
            rows = rows[rows["relation"] == relation]
        if rows.empty:
            raise InputError(f"no {measure} of {method!r} was measured on {relation!r}")
        return stats.proportion(int(rows["success"].sum()), len(rows))

    def gain(self, measure: str, over: str) -> tuple[Estimate, float]:
        """The operator's share less a baseline's, over the subjects that have both.

        Returns:
            The difference with its interval, and the sign-flip p-value.

        Raises:
            InputError: If no subject has both.
        """
        rows = self.cases[self.cases["measure"] == measure]
        table = rows.pivot_table(index=["relation", "subject"], columns="method", values="success")
        if OPERATOR not in table or over not in table:
            raise InputError(f"no {measure} of {over!r} was measured")
        both = table[[OPERATOR, over]].dropna()
        return stats.paired_difference(
            both[OPERATOR].to_numpy(), both[over].to_numpy(), seed=self.seed
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per relation ("all" first), measure and method: mean, low, high, n."""
        rows = []
        for relation in (ALL, *self.operators["relation"]):
            chosen = self.cases
            if relation != ALL:
                chosen = chosen[chosen["relation"] == relation]
            for (measure, method), some in chosen.groupby(["measure", "method"], sort=False):
                found = stats.proportion(int(some["success"].sum()), len(some))
                row = {"relation": relation, "measure": measure, "method": method}
                rows.append(row | found.to_dict())
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """Faithfulness by relation: the operator and its baselines."""
        return self._figure("faithfulness")

    def figure_causality(self) -> Any:
        """Causality by relation: the operator's move, the placebo, and the others."""
        return self._figure("causality")

    def _figure(self, measure: str) -> Any:
        from labkit.plots import relation_intervals

        return relation_intervals(self.to_frame(), measure=measure, title=self.title)
