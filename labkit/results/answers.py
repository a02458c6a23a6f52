"""What a notebook answers: one sentence with its number, and what it found about each claim.

The last cell of a notebook says it, shows it and keeps it:

    answered(
        model, "05_edit_one_fact", "One matrix changed by rank one: Rome, with probability .99.",
        Finding(claim="C6", measured="P(new object) after ROME", value=after, control="before",
                control_value=before, on="1 fact", verdict="supports", changed_by="..."),
    ).keep()

`results.json` is what pages about the claims are made of, so that no number is typed twice.
"""

from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.files import atomic_write, output_errors
from labkit.results.encoding import dumps
from labkit.results.measured import Measured, measured_on
from labkit.results.provenance import environment
from labkit.stats import Estimate

if TYPE_CHECKING:
    from labkit.models.model import LabModel

Verdict = Literal["supports", "contradicts", "in part", "leaves open"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was measured about one claim.

    Attributes:
        claim: Its number in the list of claims, such as "C6".
        measured: What the number is, in words, with its unit.
        value: The number; with an interval wherever it comes from a sample.
        control: What it is compared with, in words.
        control_value: The number of the control.
        on: What both were measured on, with how many of it.
        verdict: What this says of the claim.
        changed_by: What would have to be measured for another verdict.
    """

    claim: str
    measured: str
    value: Estimate | float
    control: str
    control_value: Estimate | float
    on: str
    verdict: Verdict
    changed_by: str

    def __post_init__(self) -> None:
        """Refuse what a page about claims could not show."""
        if not (self.claim.startswith("C") and self.claim[1:].isdigit()):
            raise InputError(f"{self.claim!r} is no number of a claim, such as 'C6'")
        if self.verdict not in get_args(Verdict):
            raise InputError(f"{self.claim}: {self.verdict!r} is none of {get_args(Verdict)}")
        for field in fields(self):
            if getattr(self, field.name) == "":
                raise InputError(f"{self.claim} does not say {field.name!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers(Measured):
    """What one notebook answers.

    Attributes:
        notebook: Its name, without an ending.
        answer: The answer in one sentence, with its number.
        findings: What it found about the claims at stake.
        versions: Of the library and what the numbers depend on.
    """

    notebook: str
    answer: str
    findings: tuple[Finding, ...]
    versions: dict[str, Any]

    @property
    def title(self) -> str:
        """The answer."""
        return self.answer

    def to_frame(self) -> pd.DataFrame:
        """One row per claim: the number, its control, what on, and the verdict."""
        columns = [field.name for field in fields(Finding)]
        rows = [[shown(getattr(found, name)) for name in columns] for found in self.findings]
        return pd.DataFrame(rows, columns=columns)

    def figure(self) -> Any:
        """None: an answer is a sentence and a table."""
        raise NotImplementedError("an answer has a sentence and a table, and no figure")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The sentence and the table."""
        table = self.to_frame().to_html(index=False, border=0)
        page = f"<p><strong>{escape(self.answer)}</strong></p>{table if self.findings else ''}"
        return {"text/plain": self.answer, "text/html": page}

    def keep(self, folder: str | Path = "runs") -> "Answers":
        """Write `results.json` into a folder named after the notebook, in place of an older one.

        Args:
            folder: The folder of such folders.

        Raises:
            OutputError: If it cannot be written.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        place = Path(folder) / self.notebook
        with output_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        atomic_write(place / "results.json", dumps(values) + "\n")
        return self


@checked
def answered(model: "LabModel", notebook: str, answer: str, *findings: Finding) -> Answers:
    """The answer of a notebook, on a model.

    Args:
        model: The model that it was measured on.
        notebook: The notebook's name, without an ending.
        answer: The answer in one sentence, with its number.
        findings: What was measured about the claims at stake.

    Raises:
        InputError: If the answer has no number.
    """
    if not any(character.isdigit() for character in answer):
        raise InputError(f"the answer of {notebook} has no number: {answer!r}")
    return Answers(
        notebook=notebook, answer=answer, findings=findings, versions=environment(model),
        **measured_on(model),
    )  # fmt: skip


def shown(value: Any) -> Any:
    """A number as a table shows it."""
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
