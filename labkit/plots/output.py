"""Where figures go: fragments of HTML, PNG files, notebooks."""

import os
from pathlib import Path

import plotly.io as pio
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from labkit.errors import OutputError
from labkit.files import atomic_write
from labkit.notebook_errors import shorten_in_notebooks
from labkit.progress import show_in_notebooks

# plotly 7 shows a 'Share chart' button that uploads the figure; nothing here leaves the machine.
CONFIG = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
}


def to_html(figure: go.Figure, *, div_id: str | None = None) -> str:
    """A `<div>` for a page that already has plotly.js; it contains no plotly.js itself.

    Args:
        figure: Any figure.
        div_id: Id of the element, unique on its page; random if not given.
    """
    return pio.to_html(
        figure, config=CONFIG, include_plotlyjs=False, full_html=False, div_id=div_id
    )


def plotly_js() -> str:
    """The text of plotly.js (5 MB), for a page that is to work offline."""
    return get_plotlyjs()


def to_png(
    figure: go.Figure,
    path: str | Path,
    *,
    background: str = "white",
    width: int = 900,
    scale: float = 2,
) -> Path:
    """Write a figure as a PNG file, through kaleido and a Chrome or Chromium.

    Args:
        figure: Any figure; it is not changed.
        path: The file.
        background: A CSS colour, or `"rgba(0,0,0,0)"` for none.
        width: Width in CSS pixels; the height is the figure's own.
        scale: Pixels of the file per CSS pixel.

    Raises:
        OutputError: If kaleido or a browser is missing (it says what to install), or the
            file cannot be written.
    """
    painted = go.Figure(figure).update_layout(paper_bgcolor=background)
    try:
        image = painted.to_image(format="png", width=width, scale=scale)
    except (RuntimeError, ImportError) as error:  # plotly's words for both are several lines
        needed = (
            "a Chrome or Chromium browser (apt-get install chromium, or plotly_get_chrome)"
            if "Chrome" in str(error)
            else "the png extra (pip install 'labkit[png]')"
        )
        raise OutputError(f"cannot draw {path}: PNG files need {needed}") from error
    return atomic_write(path, image)


def use_in_notebooks() -> None:
    """Show figures in JupyterLab and in HTML made from notebooks, and bars below slow cells.

    Sets plotly's own default renderer for this process, without the share button: a library
    does not do that at import, so a notebook asks for it. From then on a cell that runs for
    more than two seconds says what it is doing and how far it is (`labkit.progress`), and an
    interrupt or an error that the lab names is shown at the cell's own lines; `%tb` shows the rest.
    """
    show_in_notebooks()
    shorten_in_notebooks()
    for name in ("plotly_mimetype", "notebook"):
        pio.renderers[name].config = dict(CONFIG)
    # JupyterLab draws the mimetype itself; a copy of plotly.js in the file is for HTML made of it.
    pio.renderers.default = os.environ.get("PLOTLY_RENDERER", "plotly_mimetype")
