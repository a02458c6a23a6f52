"""A figure of an executed notebook, on another page.

    :::{figure-of} 00_tour
    :from: CausalTrace()
    :::

It is the first figure of the first cell that says what stands behind `from`.
"""

from pathlib import Path
from typing import Any, ClassVar

import nbformat
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DRAWN = '<div class="lab-figure'


class FigureOf(SphinxDirective):
    """The directive."""

    required_arguments = 1
    option_spec: ClassVar[Any] = {"from": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """The figure as the gallery drew it."""
        path = Path(self.env.srcdir) / "gallery" / f"{self.arguments[0]}.ipynb"
        self.env.note_dependency(str(path))
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and self.options["from"] in cell.source:
                for output in cell.outputs:
                    shown = output.get("data", {}).get("text/html", "")
                    if shown.startswith(DRAWN):
                        return [nodes.raw("", shown, format="html")]
        raise self.error(f"{path.name} has no figure of a cell that says {self.options['from']!r}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("figure-of", FigureOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
