"""A sample of `python -m tests.bad_inputs`, which runs them all."""

import pytest

from tests.bad_inputs.lines import LINES
from tests.bad_inputs.runner import GOOD, workshop

EVERY = {"usage": 6}
SAMPLE = [(kind, *one) for kind, some in LINES.items() for one in some[:: EVERY.get(kind, 40)]]


def test_there_are_many_of_them():
    assert sum(len(some) for some in LINES.values()) >= 300


@pytest.fixture(scope="module")
def shop():
    with workshop() as shop:
        yield shop


@pytest.mark.usefixtures("unchecked")
def test_they_end_in_one_line_or_do_what_they_say(shop):
    found = [shop.run(*one) for one in SAMPLE]
    assert not [(one.line, one.verdict, one.said) for one in found if one.verdict not in GOOD]
