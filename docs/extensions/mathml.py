"""Equations as MathML, which browsers draw themselves: no script, and nothing to fetch."""

import html
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx draw equations so."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(writer: HTML5Translator, node: nodes.math) -> None:
    """An equation within a line."""
    writer.body.append(written(node.astext(), "inline"))
    raise nodes.SkipNode


def display(writer: HTML5Translator, node: nodes.math_block) -> None:
    """An equation of its own."""
    equation = written(node.astext(), "block")
    writer.body.append(f'<div class="equation">{equation}</div>\n')
    raise nodes.SkipNode


def written(latex: str, how: str) -> str:
    """LaTeX as MathML, with the LaTeX beside it for those who cannot see it."""
    return convert(latex, display=how).replace(
        "<math ", f'<math alttext="{html.escape(latex)}" ', 1
    )
