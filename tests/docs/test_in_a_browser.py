"""Every page of the built site in Chromium: `make docs` first. Half a minute."""

from pathlib import Path

import pytest

from tests.docs.browser import complaints, no_browser, search

SITE = Path(__file__).resolve().parents[2] / "docs" / "build" / "html"


@pytest.fixture(scope="module")
def browser():
    if no_browser():
        pytest.skip("no Chromium on this machine")


@pytest.fixture(scope="module")
def pages():
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built: make docs")
    return sorted(SITE.rglob("*.html"))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_no_page_complains_asks_elsewhere_or_is_wider_than_the_window(browser, pages, width, dark):
    assert len(pages) > 50
    assert complaints(pages, width=width, dark=dark) == {}


def test_the_search_works_from_a_file(browser, pages):
    found, complained = search(SITE / "search.html", "causal trace")
    assert found > 5 and not complained
    assert search(SITE / "search.html", "nothingiscalledthis") == (0, [])


def test_what_is_wrong_with_a_page_is_seen(browser, tmp_path):
    """The walk can fail: each fault on a page of its own, and a page without any."""
    faults = {
        "error": "<script>null.x</script>",
        "console": "<script>console.error('no')</script>",
        "elsewhere": "<img src='http://127.0.0.1:9/a.png'>",
        "missing": "<img src='nowhere.png'>",
        "figure": "<div class='lab-figure'><div></div></div>",
        "wide": "<div style='width:2000px'>a</div>",
        "fine": "<p>text</p>",
    }
    for name, body in faults.items():
        (tmp_path / f"{name}.html").write_text(f"<!doctype html><title>a</title>{body}")
    found = complaints(sorted(tmp_path.glob("*.html")), width=400, dark=False)
    assert {Path(page).stem for page in found} == set(faults) - {"fine"}
    assert any("127.0.0.1" in text for text in found[str(tmp_path / "elsewhere.html")])
