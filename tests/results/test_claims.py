"""Claims: what supports a difference, what supports there being none, and what decides nothing."""

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.results.claims import Claim, verdicts
from labkit.stats import holm

RANDOM = np.random.default_rng(0)
LARGE = 0.3 + 0.1 * RANDOM.normal(size=40)
SMALL = 0.01 * RANDOM.normal(size=400)


def claim(values, expects="more", margin=None, what="a - b"):
    return Claim(claim="C", what=what, values=values, expects=expects, margin=margin)


def verdict(*arguments, **more):
    return verdicts([claim(*arguments, **more)], model="m").of("a - b")


def test_a_difference_supports_what_expected_it_and_contradicts_what_expected_none():
    assert verdict(LARGE) == "supports" and verdict(-LARGE) == "contradicts"
    assert verdict(LARGE, "alike", 0.05) == verdict(-LARGE, "alike", 0.05) == "contradicts"
    assert verdict(LARGE, "no more", 0.05) == "contradicts"
    assert verdict(-LARGE, "no more", 0.05) == "supports"


def test_no_difference_supports_only_what_stated_a_margin_and_only_with_enough_units():
    assert verdict(SMALL) == "leaves open"
    assert verdict(SMALL, "alike", 0.05) == verdict(SMALL, "no more", 0.05) == "supports"
    assert verdict(SMALL[:8], "alike", 0.05) == "leaves open"


def test_equal_values_are_no_certainty():
    """A difference of 0 in all of thirty queries is no proof of one below 0.05."""
    assert verdict(np.zeros(30), "alike", 0.05) == "leaves open"
    assert verdict(np.zeros(30)) == "leaves open"
    assert verdict(np.zeros(2000), "alike", 0.05) == "supports"


def test_five_units_decide_nothing():
    found = verdicts([claim(np.full(5, 0.9)), claim(LARGE, what="c - d")], model="m")
    assert found.of("a - b") == "too few" and found.of("c - d") == "supports"
    assert verdict(np.full(6, 0.9)) == "supports"  # the least p of six signs is 2 / 64


def test_what_is_left_open_grows_with_the_number_of_claims():
    """One claim at p = .03 stands alone, and not among ten."""
    values = np.array([0.3, 0.2, 0.4, 0.1, 0.3, 0.2])
    assert verdict(values) == "supports"
    nothing = [claim(RANDOM.normal(size=20) / 10, what=f"n{i}") for i in range(9)]
    table = verdicts([claim(values), *nothing], model="m").to_frame()
    assert list(table["p_holm"]) == pytest.approx(holm(table["p"].tolist()))
    assert table["verdict"].iloc[0] == "leaves open"


@pytest.mark.parametrize("expects", ["alike", "no more"])
def test_at_the_margin_a_claim_is_supported_at_most_one_time_in_twenty(expects):
    """The truth lies on the margin: the claim is wrong, and the test may say so or be silent."""
    draw = np.random.default_rng(1)
    n = 300
    tables = [
        verdict(0.1 + 0.3 * draw.normal(size=30), expects, 0.1) == "supports" for _ in range(n)
    ]
    assert sum(tables) <= 0.05 * n


def test_a_figure_has_a_point_for_every_claim():
    found = verdicts([claim(LARGE), claim(SMALL, what="c - d")], model="m")
    figure = found.figure()
    assert sorted(x for trace in figure.data for x in trace.x) == pytest.approx(
        sorted(found.table["mean"])
    )
    assert "1 supports" in found.title and list(figure.layout.yaxis.ticktext) == [
        "C: a - b", "C: c - d",
    ]  # fmt: skip


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(InputError, match="margin"):
        claim(LARGE, "alike")
    with pytest.raises(InputError, match="margin"):
        claim(LARGE, "more", 0.1)
    with pytest.raises(InputError, match="not between"):
        claim(LARGE, "alike", 1.5)
    with pytest.raises(InputError, match="no claims"):
        verdicts([], model="m")
    with pytest.raises(InputError, match="no claim about"):
        verdicts([claim(LARGE)], model="m").of("x")
