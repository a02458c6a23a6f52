"""A report as one HTML file that opens anywhere: offline, light or dark, on paper.

    report = Report("ROME on the Eiffel Tower")
    report.heading("What the model says")
    report.paragraph("Next-token predictions before and after the edit.")
    report.figure(plots.predictions_bar(frame))
    report.table(metrics, caption="30 cases, 95 % intervals")
    report.facts(run.environment)
    report.save("report.html")

plotly.js is embedded once, and nothing refers to the network. Everything given is plain
text: it is escaped here, so that a prompt with `<b>` in it reads as it was written.
"""

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from labkit.errors import InputError
from labkit.files import atomic_write
from labkit.plots.output import plotly_js, to_html
from labkit.results.encoding import to_json
from labkit.stats import Estimate

CONTENTS_FROM = 4  # headings of the top level from which a table of contents helps


class Report:
    """A page built from top to bottom; each method adds one element and returns the report.

    Args:
        title: Title of the page.
        language: Language of the prose, as in HTML's `lang`.
    """

    def __init__(self, title: str, *, language: str = "en") -> None:
        """Start an empty page."""
        self.title = title
        self.language = language
        self._body: list[str] = []
        self._headings: list[tuple[str, str]] = []
        self._n_figures = 0

    def heading(self, heading: str, *, level: int = 2) -> "Report":
        """A heading of level 2 (in the table of contents) or 3.

        Raises:
            InputError: For another level; level 1 is the page's title.
        """
        if level not in (2, 3):
            raise InputError(f"a heading of a report has level 2 or 3, not {level}")
        anchor = f"section-{len(self._headings) + 1}" if level == 2 else ""
        if anchor:
            self._headings.append((anchor, heading))
        attribute = f' id="{anchor}"' if anchor else ""
        return self._add(f"<h{level}{attribute}>{escape(heading)}</h{level}>")

    def paragraph(self, text: str) -> "Report":
        """A paragraph of plain text; line ends are kept."""
        return self._add(f"<p>{escape(text)}</p>")

    def table(self, frame: pd.DataFrame, *, caption: str, digits: int = 3) -> "Report":
        """A table with the frame's columns; estimates appear as `mean [low, high]`.

        Args:
            frame: Any frame. Its index is shown, as row headers, if it is not the default.
            caption: What the table shows, with units.
            digits: Decimals of floating-point numbers.
        """
        index = not isinstance(frame.index, pd.RangeIndex)
        numeric = [_is_number_column(frame.iloc[:, i]) for i in range(frame.shape[1])]
        heads = [f'<th scope="col">{escape(str(frame.index.name or ""))}</th>'] if index else []
        heads += [
            f'<th scope="col"{_NUMBER if number else ""}>{escape(str(column))}</th>'
            for column, number in zip(frame.columns, numeric, strict=True)
        ]
        rows = []
        for label, values in zip(frame.index, frame.itertuples(index=False), strict=True):
            head = f'<th scope="row">{_cell(label, digits)}</th>' if index else ""
            cells = (
                f"<td{_NUMBER if number else _LONG if _is_long(value) else ''}>"
                f"{_cell(value, digits)}</td>"
                for value, number in zip(values, numeric, strict=True)
            )
            rows.append(f"<tr>{head}{''.join(cells)}</tr>")
        # A wide table scrolls by itself; the keyboard can reach it.
        return self._add(
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
            f"<table><caption>{escape(caption)}</caption><thead><tr>{''.join(heads)}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )

    def figure(self, figure: Any, *, caption: str | None = None) -> "Report":
        """A plotly figure, live in the page.

        Args:
            figure: From `labkit.plots` or a result's `.figure()`.
            caption: What to see in it, below the figure.
        """
        self._n_figures += 1
        fragment = to_html(figure, div_id=f"figure-{self._n_figures}")
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return self._add(f"<figure>{fragment}{below}</figure>")

    def facts(self, facts: Mapping[str, Any]) -> "Report":
        """Names and values, such as a config or an environment; nested ones are flattened."""
        return self._list(_flatten(to_json(facts)), "facts")

    def terms(self, terms: Mapping[str, str]) -> "Report":
        """What names mean that the page shows."""
        return self._list(list(terms.items()), "terms")

    def _list(self, pairs: Sequence[tuple[str, str]], kind: str) -> "Report":
        lines = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
        return self._add(f'<dl class="{kind}">{"".join(lines)}</dl>')

    def html(self) -> str:
        """The whole page as one string."""
        style = resources.files("labkit.plots").joinpath("report.css").read_text(encoding="utf-8")
        script = f"<script>{plotly_js()}</script>\n" if self._n_figures else ""
        return (
            f'<!doctype html>\n<html lang="{escape(self.language)}">\n<head>\n'
            '<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>\n{style}</style>\n{script}</head>\n"
            f"<body>\n<main>\n<h1>{escape(self.title)}</h1>\n{self._contents()}"
            + "\n".join(self._body)
            + "\n</main>\n</body>\n</html>\n"
        )

    def save(self, path: str | Path) -> Path:
        """Write the page as one file.

        Raises:
            OutputError: If it cannot be written.
        """
        return atomic_write(path, self.html())

    def _add(self, element: str) -> "Report":
        self._body.append(element)
        return self

    def _contents(self) -> str:
        if len(self._headings) < CONTENTS_FROM:
            return ""
        items = (f'<li><a href="#{a}">{escape(heading)}</a></li>' for a, heading in self._headings)
        return f'<nav aria-label="Contents"><ol>{"".join(items)}</ol></nav>\n'


_NUMBER, _LONG = ' class="number"', ' class="long"'


def _is_long(value: object) -> bool:
    """Whether a cell is text of several words, which a narrow column would stack up."""
    return isinstance(value, str) and len(value) > 24


def _is_number_column(column: pd.Series) -> bool:
    if is_numeric_dtype(column):
        return not is_bool_dtype(column)
    there = [value for value in column[column.notna()] if value != ""]
    return len(there) > 0 and all(isinstance(value, Estimate | Real) for value in there)


def _cell(value: object, digits: int) -> str:
    if isinstance(value, Estimate):
        mean, _, ends = f"{value:.{digits}f}".partition(" ")
        return f'{mean} <span class="interval">{ends}</span>'
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, bool | Integral) or not isinstance(value, Real):
        return escape(str(value))
    number = float(value)
    rounds_to_zero = 0 < abs(number) < 0.5 * 10**-digits
    return f"{number:.1e}" if rounds_to_zero else f"{number:.{digits}f}"


def _flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Leaves of nested mappings with dotted names; a list of plain values is one leaf.

    Mappings in a list are one leaf each, in words, numbered from 1.
    """
    if isinstance(value, dict):
        return [
            pair
            for key, item in value.items()
            for pair in _flatten(item, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return [(f"{name}.{n}", _in_words(item)) for n, item in enumerate(value, start=1)]
    if isinstance(value, list):
        return [(name, ", ".join(str(item) for item in value))]
    return [(name, "–" if value is None else str(value))]


def _in_words(value: Any) -> str:
    """A leaf of a list as text: no brackets, no quotes."""
    if isinstance(value, dict):
        shown = ((name, item) for name, item in value.items() if item not in (None, [], {}))
        return "; ".join(f"{name} {_in_words(item)}" for name, item in shown)
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return str(value)
