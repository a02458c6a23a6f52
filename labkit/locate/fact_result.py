"""What the results of one fact share: the fact as it was asked, and the tables over its cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from labkit.facts.fact import Fact
from labkit.models.model import LabModel
from labkit.results.measured import Measured, MeasuredOn, measured_on
from labkit.stats.intervals import over_units


class AboutFact(MeasuredOn):
    """What `about_fact` fills in."""

    prompt: str
    subject: str
    answer: str
    tokens: tuple[str, ...]
    subject_positions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class FactResult(Measured):
    """Base of the results of one fact.

    Attributes:
        prompt: The prompt.
        subject: Its subject.
        answer: The token whose probability is followed.
        tokens: The prompt's tokens, as text.
        subject_positions: Positions of the subject's tokens.
        clean: P(answer) of the model left alone.
        config: The method's fields.
    """

    prompt: str
    subject: str
    answer: str
    tokens: tuple[str, ...]
    subject_positions: tuple[int, ...]
    clean: float
    config: dict[str, Any]

    def _over_cells(
        self,
        values: Float[np.ndarray, "sample pos layer"],
        within: tuple[float, float] | None = None,
    ) -> pd.DataFrame:
        """One row per cell: pos, token, layer, in_subject, and mean, low, high over samples."""
        mean, low, high, _ = over_units(values, within=within)
        cells = cell_columns(mean.shape, self.tokens, self.subject_positions)
        return pd.DataFrame(
            cells | {"mean": mean.ravel(), "low": low.ravel(), "high": high.ravel()}
        )


def about_fact(
    model: LabModel,
    fact: Fact,
    ids: Sequence[int],
    *,
    answer_id: int,
    subject_positions: Iterable[int],
) -> AboutFact:
    """What a result says of the fact that was asked.

    Args:
        model: The model.
        fact: The fact.
        ids: Ids of its prompt.
        answer_id: The token whose probability is followed.
        subject_positions: Positions of the subject's tokens.

    Returns:
        The keyword arguments of `FactResult`, but for what was measured and how.
    """
    decode = model.tokenizer.decode
    return {
        **measured_on(model),
        "prompt": fact.prompt,
        "subject": fact.subject,
        "answer": decode([answer_id]),
        "tokens": tuple(decode([token]) for token in ids),
        "subject_positions": tuple(subject_positions),
    }


def cell_columns(
    shape: tuple[int, ...],
    tokens: Sequence[str],
    subject_positions: Sequence[int],
    *,
    first: int = 0,
) -> dict[str, Any]:
    """The columns that say which cell of a grid of positions and layers a row is of.

    Args:
        shape: Numbers of positions and layers.
        tokens: The token at each position.
        subject_positions: Positions of the subject's tokens.
        first: The position of the grid's first row.

    Returns:
        `pos`, `token`, `layer` and `in_subject`, a row per cell.
    """
    positions, layers = (index.ravel() for index in np.indices(shape))
    return {
        "pos": positions + first,
        "token": [tokens[place] for place in positions],
        "layer": layers,
        "in_subject": np.isin(positions + first, list(subject_positions)),
    }
