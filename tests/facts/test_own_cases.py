"""A rewrite by hand gets the prompts that judge it."""

import pytest

from labkit import Rewrite, case_of, predict
from labkit.errors import InputError
from labkit.facts.fact import Neighbour
from labkit.facts.worlds import facts_of


def test_what_is_not_handed_in_comes_from_the_relation_that_asks_the_same(pocket):
    fact = next(fact for fact in facts_of(pocket) if fact.relation == "city_country")
    new = next(
        f.object
        for f in facts_of(pocket)
        if f.relation == fact.relation and f.object != fact.object
    )
    rewrite = Rewrite(
        subject=fact.subject, template=fact.template, target_new=new, target_true=fact.object
    )
    case = case_of(pocket, rewrite, n_neighbours=6)
    truth = {f.prompt: f.object for f in facts_of(pocket) if f.relation == fact.relation}
    assert case.rewrite == rewrite and len(case.neighbours) == 6
    assert all(truth[near.prompt] == near.object != new for near in case.neighbours)
    assert case.attributes and all(truth[prompt] == new for prompt in case.attributes)
    assert case.paraphrases and rewrite.prompt not in case.paraphrases
    assert all(fact.subject in prompt for prompt in case.paraphrases)
    assert case_of(pocket, rewrite, n_neighbours=6) == case
    assert case_of(pocket, rewrite, n_neighbours=6, seed=1) != case


def test_neighbours_are_taken_as_people_write_them(pocket):
    fact, other, third = facts_of(pocket)[:3]
    rewrite = Rewrite(subject="Nobody", template="What {} likes is", target_new="bread")
    own = [Neighbour(prompt=other.prompt, object="x"), third, fact.prompt]
    case = case_of(pocket, rewrite, neighbours=own, paraphrases=["Nobody likes"])
    assert [near.object for near in case.neighbours] == [
        "x", third.object, predict(pocket, fact.prompt).tokens[0],
    ]  # fmt: skip
    assert case.paraphrases == ("Nobody likes",) and case.attributes == ()


def test_without_a_relation_neighbours_are_asked_for(pocket, no_forward):
    rewrite = Rewrite(subject="Nobody", template="What {} likes is", target_new="bread")
    with pytest.raises(InputError, match="hand over neighbours"):
        case_of(pocket, rewrite)


def test_a_rewrite_from_a_prompt():
    rewrite = Rewrite.from_prompt("The Louvre is in", "Louvre", "Rome", "Paris")
    assert (rewrite.template, rewrite.target_new, rewrite.target_true) == (
        "The {} is in",
        "Rome",
        "Paris",
    )
