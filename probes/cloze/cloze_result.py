"""Results of cloze probing: ranks by fact and depth, and the measures derived from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit import stats
from labkit.errors import InputError
from labkit.results.measured import Measured
from labkit.stats import Estimate

READINGS = ("the answer", "another object", "another subject", "unrelated state")
"""The fact's own object in its own state, and three controls; see `probes.cloze.objects`."""

ANSWER, ANOTHER_OBJECT, ANOTHER_SUBJECT, UNRELATED = READINGS


@dataclass(frozen=True, kw_only=True, eq=False)
class ClozeResult(Measured):
    """Ranks of the answers at the last token of many prompts, after every block.

    Depth 0 is the embedding, depth n_layers the model's own answer. Intervals are over facts;
    facts of one relation share their prompt's wording.

    Attributes:
        prompts: The facts' prompts.
        relations: Their relations.
        subjects: Their subjects.
        answers: Their objects.
        lens: "logit" or "translated".
        ks: Ranks at which precision is reported.
        rank: By reading (`READINGS`): 0 is the top; NaN where a fact has no such control.
        popularity: Of the subjects, above 0; NaN where it is not known.
        seed: Seed of the controls and of the intervals.
    """

    prompts: tuple[str, ...]
    relations: tuple[str | None, ...]
    subjects: tuple[str, ...]
    answers: tuple[str, ...]
    lens: str
    ks: tuple[int, ...]
    rank: Float[np.ndarray, "reading fact depth"]
    popularity: Float[np.ndarray, " fact"]
    seed: int

    @property
    def title(self) -> str:
        """What was read, and of how many facts the answer is said in the end."""
        said = self.precision(1)[-1].mean
        return (
            f"{len(self.prompts)} facts through the {self.lens} lens, {self.model}: "
            f"{said:.0%} are answered in the end"
        )

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.rank.shape[2] - 1

    def precision(self, k: int, reading: str = ANSWER) -> list[Estimate]:
        """Share of facts with a rank below k, by depth, Wilson interval.

        Raises:
            InputError: If there is no such reading, or no fact has it.
        """
        ranks = self._of(reading)
        return [stats.proportion(int((row < k).sum()), len(row)) for row in ranks.T]

    def depth_within(self, k: int, reading: str = ANSWER) -> Float[np.ndarray, " fact"]:
        """First depth from which on the rank stays below k; NaN where it does not end there."""
        outside = ~(self._of(reading) < k)
        n_depths = outside.shape[1]
        first = np.where(outside.any(axis=1), n_depths - outside[:, ::-1].argmax(axis=1), 0)
        return np.where(first < n_depths, first, np.nan)

    def readable_before_said(self, k: int = 10) -> tuple[Estimate, float]:
        """Depths between a fact's becoming readable (within k) and its becoming the answer.

        Over the facts that are answered in the end: mean with its interval, and the sign-flip
        p-value.

        Raises:
            InputError: If no fact is answered.
        """
        said, readable = self.depth_within(1), self.depth_within(k)
        answered = np.isfinite(said)
        if not answered.any():
            raise InputError("the model answers none of these facts")
        return stats.paired_difference(said[answered], readable[answered], seed=self.seed)

    def advantage(self, reading: str = ANOTHER_OBJECT) -> list[Estimate]:
        """By depth, how much better the answer's rank is than a control's, in powers of ten.

        log10(1 + rank of the control) - log10(1 + rank of the answer), mean over the facts
        that have the control.

        Raises:
            InputError: If there is no such reading, or no fact has it.
        """
        control = self.rank[self._place(reading)]
        has = np.isfinite(control).all(axis=1)
        if not has.any():
            raise InputError(f"no fact has the control {reading!r}")
        gain = np.log10(1 + control[has]) - np.log10(1 + self.rank[0][has])
        return [stats.average(row) for row in gain.T]

    def to_frame(self) -> pd.DataFrame:
        """One row per reading, k and depth: share of facts with a rank below k, low, high, n."""
        rows = [
            {"reading": reading, "k": k, "depth": depth} | found.to_dict()
            for reading in self._readings
            for k in self.ks
            for depth, found in enumerate(self.precision(k, reading))
        ]
        return pd.DataFrame(rows)

    def ranks_frame(self) -> pd.DataFrame:
        """One row per reading and depth: geometric mean of 1 + rank over facts, low, high, n."""
        rows = []
        for reading in self._readings:
            for depth, ranks in enumerate(self._of(reading).T):
                found = stats.average(np.log10(1 + ranks))
                ends = {name: 10 ** getattr(found, name) for name in ("mean", "low", "high")}
                rows.append({"reading": reading, "depth": depth} | ends | {"n": found.n})
        return pd.DataFrame(rows)

    def depths_frame(self) -> pd.DataFrame:
        """One row per relation (all of them first) and k: from which depth facts stay within k.

        Columns relation, k, facts, reach (how many end within k), and of these the mean depth
        with its interval (mean, low, high) and the median.
        """
        relations = np.asarray([str(relation) for relation in self.relations])
        groups = [("all", np.full(len(relations), True))]
        groups += [(name, relations == name) for name in dict.fromkeys(relations.tolist())]
        rows = []
        for name, group in groups:
            for k in self.ks:
                reached = self.depth_within(k)[group]
                reached = reached[np.isfinite(reached)]
                row = {"relation": name, "k": k, "facts": int(group.sum()), "reach": len(reached)}
                if len(reached):
                    found = stats.average(reached, within=(0.0, float(self.n_layers)))
                    row |= {"mean": found.mean, "low": found.low, "high": found.high}
                    row |= {"median": float(np.median(reached))}
                rows.append(row)
        columns = ["relation", "k", "facts", "reach", "mean", "low", "high", "median"]
        return pd.DataFrame(rows).reindex(columns=columns)

    def popularity_frame(self, *, bins: int = 6, depth: int | None = None) -> pd.DataFrame:
        """One row per bin of popularity (equally many facts) and k: precision at k, low, high, n.

        Args:
            bins: Number of bins; fewer where many facts are equally popular.
            depth: Where it is read; by default after the last block.

        Raises:
            InputError: If no popularity is known, or there is no such bin or depth.
        """
        depth = self.n_layers if depth is None else depth
        known = np.isfinite(self.popularity)
        if not known.any():
            raise InputError("the popularity of these facts is not known")
        if bins < 1 or not 0 <= depth <= self.n_layers:
            raise InputError(f"{bins} bins at depth {depth} of 0..{self.n_layers}")
        views, ranks = self.popularity[known], self.rank[0][known, depth]
        place = pd.qcut(np.log10(views), bins, labels=False, duplicates="drop")
        place = np.nan_to_num(place.astype(float)).astype(int)  # all equally popular: one bin
        rows = []
        for number in sorted(set(place.tolist())):
            some = place == number
            middle = 10 ** float(np.log10(views[some]).mean())
            for k in self.ks:
                found = stats.proportion(int((ranks[some] < k).sum()), int(some.sum()))
                rows.append({"bin": number, "popularity": middle, "k": k} | found.to_dict())
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """Precision at each k by depth: the answer, and another object of the relation."""
        from labkit.plots import cloze_precision

        return cloze_precision(self.to_frame(), title=self.title)

    def figure_ranks(self) -> Any:
        """Mean rank by depth: the answer and the controls."""
        from labkit.plots import cloze_ranks

        return cloze_ranks(self.ranks_frame(), title=self.title)

    def figure_relations(self) -> Any:
        """By relation, the depth from which facts are readable, and from which they are said."""
        from labkit.plots import cloze_depths

        return cloze_depths(self.depths_frame(), n_layers=self.n_layers, title=self.title)

    def figure_popularity(self, *, bins: int = 6) -> Any:
        """Precision after the last block against the popularity of the subject."""
        from labkit.plots import cloze_popularity

        return cloze_popularity(self.popularity_frame(bins=bins), title=self.title)

    @property
    def _readings(self) -> list[str]:
        """The readings that at least one fact has."""
        return [
            name
            for name, table in zip(READINGS, self.rank, strict=True)
            if np.isfinite(table).any()
        ]

    def _place(self, reading: str) -> int:
        if reading not in READINGS:
            raise InputError(f"no reading {reading!r}; there are {', '.join(READINGS)}")
        return READINGS.index(reading)

    def _of(self, reading: str) -> Float[np.ndarray, "fact depth"]:
        """Ranks of the facts that have this reading."""
        ranks = self.rank[self._place(reading)]
        has = np.isfinite(ranks).all(axis=1)
        if not has.any():
            raise InputError(f"no fact has the control {reading!r}")
        return ranks[has]
