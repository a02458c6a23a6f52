"""A site with a link to nowhere, or one that would fetch something, is found out."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
sys.path.append(str(Path(__file__).parents[2] / "docs" / "extensions"))

from checked_site import problems


def site(folder, body, style=""):
    (folder / "index.html").write_text(f"<html><body id='top'>{body}</body></html>")
    (folder / "other.html").write_text("<html><body><p id='there'></p></body></html>")
    (folder / "own.css").write_text(style)
    return list(problems(folder))


def test_a_sound_site_has_no_problem(tmp_path):
    body = "<a href='other.html#there'></a><a href='#top'></a><a href='https://example.org'></a>"
    assert site(tmp_path, body + "<link rel='stylesheet' href='own.css?v=1'>") == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<a href='gone.html'></a>", "not there"),
        ("<a href='other.html#gone'></a>", "nothing there has that name"),
        ("<script src='https://example.org/x.js'></script>", "fetches https://example.org/x.js"),
        ("<link rel='stylesheet' href='//example.org/x.css'>", "fetches //example.org/x.css"),
        ("<img src='gone.png'>", "not there"),
    ],
)
def test_each_problem_is_named(tmp_path, body, said):
    (problem,) = site(tmp_path, body)
    assert said in problem


def test_a_style_that_fetches_is_named(tmp_path):
    (problem,) = site(tmp_path, "", "@font-face { src: url('https://example.org/f.woff2') }")
    assert "own.css fetches https://example.org/f.woff2" in problem
