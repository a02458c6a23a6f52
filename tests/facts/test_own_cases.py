"""A rewrite by hand gets the prompts that judge it."""

import pytest

from editing import ROME, applied, audit, compare_methods, evaluate, sweep_layers
from labkit import CausalTrace, Rewrite, case_of, known_facts, load, logit_lens, predict
from labkit.errors import InputError, LabkitError
from labkit.facts.fact import Neighbour
from labkit.facts.worlds import demo_case_of, facts_of


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


A_REWRITE = Rewrite(subject="Nobody", template="What {} likes is", target_new="bread")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: case_of("pocket", A_REWRITE), "opened by labkit.load"),
        (lambda m: case_of(m, facts_of(m)[0]), "rewrite is a Rewrite, .* not a Fact"),
        (lambda m: case_of(m, A_REWRITE, neighbours="a b"), "neighbours is.*in brackets"),
        (lambda m: case_of(m, A_REWRITE, neighbours=[("a", "b")]), "Neighbour.*a list of 1 .tuple"),
        (lambda m: case_of(m, A_REWRITE, paraphrases="No"), "paraphrases is.*in brackets"),
        (lambda m: case_of(m, A_REWRITE, attributes=[7]), "attributes is.*a list of 1 .int"),
        (lambda m: predict("pocket", "a"), "opened by labkit.load"),
        (lambda m: known_facts("pocket", facts_of(m)), "opened by labkit.load"),
        (lambda m: known_facts(m, facts_of(m)[0]), "not a Fact: a single one in br"),
        (lambda m: known_facts(m, ["a"]), "Fact.from_prompt"),
        (lambda m: CausalTrace()("pocket", facts_of(m)[0]), "opened by labkit.load"),
        (lambda m: CausalTrace()(m, "a b"), "Fact.from_prompt"),
        (lambda m: logit_lens(m, ["a b"]), "prompt is text.*: one call for each"),
        (lambda m: m.layer("3"), "layer '3' of pocket"),
        (lambda m: ROME()("pocket", [A_REWRITE]), "opened by labkit.load"),
        (lambda m: evaluate("pocket", ROME(), [1]), "opened by labkit.load"),
        (lambda m: evaluate(m, "rome", [1]), "such as ROME.*the text 'rome'"),
        (lambda m: evaluate(m, ROME, [1]), "the class ROME, without brackets"),
        (lambda m: evaluate(m, ROME(), A_REWRITE), r"\[case\], not a Rewrite"),
        (lambda m: evaluate(m, ROME(), [A_REWRITE]), "case_of.* makes one"),
        (lambda m: compare_methods(m, [ROME()], [1]), "ROME.layer=5"),
        (lambda m: applied(m, ROME()).__enter__(), "not a ROME"),
        (lambda m: audit(m, ROME(), demo_case_of(m)), "not a ROME"),
        (lambda m: sweep_layers(m, None, 2), "layers is a list.*not the int 2"),
        (lambda m: load(3), "not a int"),
        (lambda m: Rewrite.from_prompt("a b is", "b", None), "is text, not a NoneType"),
        (lambda m: Rewrite.from_prompt("a b is", "b", 1945), "not a int: 1945"),
        (lambda m: Rewrite.from_prompt(facts_of(m)[0], "b", "c"), "the prompt is text, not a Fact"),
    ],
)  # fmt: skip
def test_another_kind_of_argument_is_named_before_any_work(
    pocket, no_forward, unchecked, call, said
):
    with pytest.raises(LabkitError, match=said):
        call(pocket)
