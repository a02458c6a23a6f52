"""The gallery: one card per notebook, and behind it the notebook with its outputs.

A card says the notebook's question, shows its main figure, and gives the answer with its number;
all three are read from the executed notebook.
"""

import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import plotly
from claims_page import claims_page
from executed import executed, on_model
from sphinx.application import Sphinx
from sphinx.util import logging
from written import write

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    """Execute notebooks and write the pages before Sphinx looks for them."""
    app.connect("builder-inited", pages)
    app.connect("html-page-context", script)
    app.connect("build-finished", plotly_js)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def pages(app: Sphinx) -> None:
    """The gallery's page, and the notebooks."""
    model = os.environ.get("LABKIT_SITE_MODEL", "pocket")
    found = executed(model, Path(app.srcdir) / "build" / "executed", logger.info)
    folder = Path(app.srcdir) / "gallery"
    keep = {folder / "index.md"}
    for name, notebook in found.items():
        shown = with_figures(notebook)
        keep.add(write(folder / f"{name}.ipynb", nbformat.writes(shown)))
    write(folder / "index.md", "\n".join(index(found, model)) + "\n")
    results = {name: notebook.metadata["labkit"]["results"] for name, notebook in found.items()}
    own = Path(app.srcdir)
    write(own / "claims.md", claims_page(results, model, own / "claims.toml"))
    for stale in set(folder.glob("*.*")) - keep:
        stale.unlink()


def index(found: dict[str, nbformat.NotebookNode], model: str) -> Iterator[str]:
    """The cards, and the table of contents."""
    yield from (
        "# Gallery",
        "",
        f"Every notebook, executed on {on_model(model)}. Figures can be hovered.",
        "",
    )
    yield from (":::::{grid} 1 1 2 2", ":gutter: 3", "")
    for name, notebook in found.items():
        yield from card(name, notebook)
    yield from (":::::", "", ":::{toctree}", ":hidden:", "")
    yield from (*found, ":::")


def card(name: str, notebook: nbformat.NotebookNode) -> Iterator[str]:
    """One notebook's card."""
    said = notebook.cells[0].source
    title = re.search(r"^# (.+)$", said, flags=re.M)[1]
    question = re.search(r"\*\*Question\.\*\*\s+(.+?)(?:\n\n|\Z)", said, flags=re.S)[1]
    seconds = notebook.metadata["labkit"]["seconds"]
    yield from (f"::::{{grid-item-card}} {title}", f":link: {name}", ":link-type: doc", "")
    yield from (" ".join(question.split()), "")
    figure = main_figure(notebook)
    if figure is not None:
        yield from ("```{raw} html", drawn(figure, still=True), "```", "")
    answer = [result["answer"] for result in notebook.metadata["labkit"]["results"]]
    yield from (
        *(f"**{text}**\n" for text in answer),
        ":::{card-footer}",
        lasted(seconds),
        ":::",
        "::::",
        "",
    )


def lasted(seconds: float) -> str:
    """How long a notebook took, in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def main_figure(notebook: nbformat.NotebookNode) -> dict[str, Any] | None:
    """The figure of the cell tagged `main`, else the first one."""
    cells = sorted(
        (cell for cell in notebook.cells if cell.cell_type == "code"),
        key=lambda cell: "main" not in cell.metadata.get("tags", []),
    )
    figures = (
        out.data[PLOTLY] for cell in cells for out in cell.outputs if PLOTLY in out.get("data", {})
    )
    return next(figures, None)


def with_figures(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is shown: figures as pieces of the page, no widgets and no progress."""
    shown = nbformat.from_dict(json.loads(nbformat.writes(notebook)))
    shown.metadata.pop("widgets", None)  # their state, for which scripts would be fetched
    for cell in shown.cells:
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            data = output.get("data", {})
            if WIDGET in data:
                continue
            if PLOTLY in data:
                output["data"] = {"text/html": drawn(data[PLOTLY], still=False)}
            kept.append(output)
        cell.outputs = kept
    return shown


def drawn(figure: dict[str, Any], *, still: bool) -> str:
    """A figure as a piece of a page; `figures.js` draws it."""
    content = {"data": figure["data"], "layout": figure["layout"]}
    written = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")
    kind = "lab-figure still" if still else "lab-figure"
    name = html.escape(
        str(figure["layout"].get("title", {}).get("text", "figure")).split("<br>")[0]
    )
    return (
        f'<div class="{kind}"><div role="img" aria-label="{name}"></div>'
        f'<script type="application/json">{written}</script></div>'
    )


def script(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """plotly.js, on the pages that have figures."""
    if page.startswith("gallery/") or page == "index":
        app.add_js_file("plotly.min.js", priority=400)


def plotly_js(app: Sphinx, failure: Exception | None) -> None:
    """Bring plotly's own script into the site, once."""
    if failure is None and app.builder.format == "html":
        own = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        shutil.copyfile(own, Path(app.outdir) / "_static" / "plotly.min.js")
