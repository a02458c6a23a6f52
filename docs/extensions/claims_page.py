"""The page of claims: one row each, from the results that the executed notebooks wrote."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from executed import on_model

from labkit.stats import Estimate

VERDICTS = {
    "supports": "success",
    "contradicts": "danger",
    "in part": "warning",
    "leaves open": "secondary",
}
"""How a verdict is coloured."""


def claims_page(results: dict[str, list[dict[str, Any]]], model: str, claims: Path) -> str:
    """The page as Markdown.

    Args:
        results: By notebook, what its `results.json` files say.
        model: The model that the notebooks ran on.
        claims: The file of claims.
    """
    known = tomllib.loads(claims.read_text("utf-8"))
    findings: dict[str, list[tuple[str, dict[str, Any]]]] = {number: [] for number in known}
    for notebook, answers in results.items():
        for answer in answers:
            for finding in answer["findings"]:
                findings[finding["claim"]].append((notebook, finding))
    lines = [
        "# Claims", "",
        "What the literature says about language models, and what the notebooks measured of it on "
        f"{on_model(model)}. Brackets hold 95 % intervals; values that are all equal, and what is "
        "counted, have none. A verdict is about this model and this measurement, not about all "
        "models.", "",
    ]  # fmt: skip
    lines += [":::{list-table}", ":header-rows: 1", ":widths: 34 66", ":class: claims", ""]
    lines += ["* - what is claimed", "  - what was measured, the verdict, what would change it"]
    for number, claim in known.items():
        lines += row(number, claim, findings[number])
    return "\n".join([*lines, ":::", ""])


def row(
    number: str, claim: dict[str, str], found: list[tuple[str, dict[str, Any]]]
) -> Iterator[str]:
    """One claim's row."""
    yield f"* - ({number.lower()})=\n    **{number}** {claim['says']}\n\n    *{claim['source']}*"
    if not found:
        yield "  - {bdg-light}`open` Not measured here yet."
        return
    answers = [
        f"{{bdg-{VERDICTS[finding['verdict']]}}}`{finding['verdict']}` "
        f"{sentence(finding['measured'])}: **{number_of(finding['value'])}**; "
        f"{finding['control']}: {number_of(finding['control_value'])}. On {finding['on']} "
        f"({{doc}}`notebook <gallery/{notebook}>`).\n\n    *{sentence(finding['changed_by'])}*"
        for notebook, finding in found
    ]
    yield "  - " + "\n\n    ".join(answers)


def sentence(text: str) -> str:
    """Its first letter large; names and signs stay as they are."""
    return text[:1].upper() + text[1:]


def number_of(value: Any) -> str:
    """A number as `results.json` holds it, as text."""
    if isinstance(value, dict):
        return str(Estimate(**{k: float(v) if k != "n" else v for k, v in value.items()}))
    return f"{float(value):.3g}"
