"""A report is one file that needs nothing else, and shows what it was given as it was given."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from labkit.errors import InputError, OutputError
from labkit.results.report import Report
from labkit.stats import Estimate

EVIL = "<script>alert('x')</script> & <b>\"bold\"</b>"


class Page(HTMLParser):
    """The elements of a page, and the text inside each kind of element."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(html)
        assert self.open == [], f"unclosed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in self.open:
            self.texts[tag][-1] += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def figure() -> go.Figure:
    return go.Figure(go.Bar(x=[EVIL], y=[1])).update_layout(title="t", height=300)


def full_report() -> Report:
    report = Report(f"Report {EVIL}")
    for name in ("One", "Two", "Three", EVIL):
        report.heading(name)
    frame = pd.DataFrame(
        {EVIL: [EVIL, "plain"], "rate": [Estimate(0.5, 0.25, 0.75, 8), None]},
        index=pd.Index([EVIL, "b"], name="case"),
    )
    report.paragraph(EVIL).table(frame, caption=EVIL).facts({"config": {EVIL: [EVIL, 1]}})
    return report.figure(figure(), caption=EVIL).figure(figure())


def test_a_report_embeds_plotly_once_and_asks_the_network_for_nothing():
    html = full_report().html()
    script = get_plotlyjs()
    assert html.count(script) == 1
    rest = html.replace(script, "")
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", rest)
    assert not re.search(r"@import|url\(|https?://", rest)
    page = Page(rest)
    assert not any("src" in attributes for _, attributes in page.elements)
    assert not page.named("link")


def test_a_report_without_figures_does_not_carry_plotly():
    assert len(Report("t").paragraph("p").html()) < 10_000


def test_what_is_given_is_shown_and_never_run():
    page = Page(full_report().html().replace(get_plotlyjs(), ""))
    assert not page.named("b")
    assert len(page.texts["script"]) == 3  # plotly.js and one per figure
    assert not any("<script" in script or "<b>" in script for script in page.texts["script"])
    assert page.texts["h1"] == [f"Report {EVIL}"]
    assert page.texts["h2"][-1] == page.texts["a"][-1] == EVIL
    assert page.texts["p"] == page.texts["caption"] == page.texts["figcaption"] == [EVIL]
    assert page.texts["td"][0] == EVIL and EVIL in page.texts["th"]
    assert page.texts["dt"] == [f"config.{EVIL}"] and page.texts["dd"] == [f"{EVIL}, 1"]


def test_lists_of_mappings_are_told_in_words():
    facts = {"noise": [{"sigma": 3, "of": None, "layers": [1, 2]}, {"sigma": 4}], "seeds": [0, 1]}
    page = Page(Report("t").facts(facts).terms({"sigma": "a width"}).html())
    assert page.texts["dt"] == ["noise.1", "noise.2", "seeds", "sigma"]
    assert page.texts["dd"] == ["sigma 3; layers 1, 2", "sigma 4", "0, 1", "a width"]


def test_figures_have_ids_of_their_own():
    page = Page(full_report().html().replace(get_plotlyjs(), ""))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert {"figure-1", "figure-2"} <= set(ids) and len(ids) == len(set(ids))


def test_four_sections_get_a_table_of_contents_three_do_not():
    report = Report("t").heading("One").heading("Two").heading("Sub", level=3).heading("Three")
    assert "<nav" not in report.html()
    page = Page(report.heading("Four").html())
    links = [attributes["href"].removeprefix("#") for attributes in page.named("a")]
    assert links == [attributes["id"] for attributes in page.named("h2")] and len(links) == 4
    with pytest.raises(InputError, match="level 2 or 3"):
        report.heading("x", level=1)


def test_numbers_are_rounded_and_estimates_carry_their_interval():
    frame = pd.DataFrame(
        {
            "metric": ["efficacy", "paraphrase"],
            "rate": [Estimate(0.98, 0.912, 1.0, 30), Estimate(0.5, 0.25, 0.75, 30)],
            "p": [0.00001, float("nan")],
            "delta": [-1 / 3, 0.0],
            "n": [30, 1200],
            "kept": [True, False],
        }
    )
    page = Page(Report("t").table(frame, caption="c").html())
    first = ["efficacy", "0.980 [0.912, 1.000]", "1.0e-05", "-0.333", "30", "True"]
    second = ["paraphrase", "0.500 [0.250, 0.750]", "–", "0.000", "1200", "False"]
    assert page.texts["td"] == first + second
    numeric = [attributes.get("class") == "number" for attributes in page.named("td")]
    assert numeric == [False, True, True, True, True, False] * 2
    assert all(attributes["scope"] == "col" for attributes in page.named("th"))


def test_a_column_of_numbers_may_have_gaps():
    frame = pd.DataFrame({"gain": [Estimate.exact(1.0, 3), "", None], "none": ["", "", None]})
    page = Page(Report("t").table(frame, caption="c").html())
    assert [one.get("class") for one in page.named("td")] == ["number", None] * 3


def test_what_has_no_interval_says_so():
    frame = pd.DataFrame({"rate": [Estimate.exact(1.79), Estimate.exact(0.3, 3)]})
    page = Page(Report("t").table(frame, caption="c").html())
    assert page.texts["td"] == ["1.790 (n = 1)", "0.300 (n = 3, no interval)"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = Report("old").save(tmp_path / "report.html")
    with pytest.raises(OutputError):
        Report("new").save(tmp_path / "missing" / "report.html")
    assert "old" in path.read_text() and list(tmp_path.iterdir()) == [path]


def test_a_page_follows_the_readers_colour_scheme():
    html = Report("t").html()
    assert "prefers-color-scheme: dark" in html and "@media print" in html
    assert '<html lang="en">' in html and 'name="viewport"' in html
