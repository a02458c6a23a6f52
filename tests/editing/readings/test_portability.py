"""Portability: the right questions, read as they are meant, beside their control."""

import json

import pytest
import torch

from editing.edits.delta import LowRank, WeightDelta
from editing.readings.consequences import (
    METRICS,
    implications,
    measure,
    mirrored,
    require,
)
from editing.readings.implication import Implication, Reply
from editing.readings.portability_result import Carried, Portability, portability
from editing.readings.published import fair_tests, multihop_implications, ripple_implications
from labkit import pocket as pocket_
from labkit import pocket as world
from labkit.errors import InputError
from labkit.facts.cases import demo_case
from labkit.facts.datasets import read_multihop
from labkit.facts.fact import Rewrite
from labkit.facts.ripple import read_ripple_edits
from labkit.facts.worlds import real_world
from tests.facts.test_datasets_ripple import EDIT, query
from tests.reference import full_logits, shows

EIFFEL = demo_case().rewrite
CHAINS = real_world().chains


def of(asked, metric):
    return [question for question in asked if question.metric == metric]


def reply(question, wanted=1.0, rival=2.0, argmax=False, rival_argmax=False, text=None):
    return Reply(
        question=question, wanted_nll=wanted, rival_nll=rival, argmax=argmax,
        rival_argmax=rival_argmax, text=text,
    )  # fmt: skip


# --- the questions ------------------------------------------------------------------------


def test_what_follows_from_the_tower_in_rome():
    asked = implications(EIFFEL, CHAINS)
    assert {question.metric for question in asked} == set(METRICS)
    assert {(q.wanted, q.rival) for q in of(asked, "one-hop")} == {("Italy", "France")}
    assert ("Italian", "French") in {(q.wanted, q.rival) for q in of(asked, "two-hop")}
    (alias,) = of(asked, "alias")
    assert (alias.prompt, alias.wanted) == ("The Tour Eiffel is located in the city of", "Rome")
    (back,) = of(asked, "reversed")
    assert (back.prompt, back.wanted) == ("A famous landmark in Rome is the", "Eiffel Tower")
    assert CHAINS.fact(["landmark_city"], back.rival).object == "Paris"
    (denied,) = of(asked, "negation")
    assert denied.prompt == "The Eiffel Tower is not located in the city of"
    assert (denied.wanted, denied.rival, denied.denied) == ("Paris", "Rome", True)


def test_what_both_objects_share_decides_nothing():
    """Euro and Europe are the same for Paris and Rome; the capital of Italy names Rome again."""
    prompts = " ".join(question.prompt for question in implications(EIFFEL, CHAINS))
    assert not any(word in prompts for word in ("currency", "continent", "capital"))


def test_a_chain_that_comes_back_to_the_subject_is_left_out():
    """The capital of France is Rome: the country of the capital of France is no question."""
    rewrite = Rewrite(subject="France", template="The capital of {} is", target_new="Rome",
                      target_true="Paris", relation="country_capital")  # fmt: skip
    asked = implications(rewrite, CHAINS)
    assert not of(asked, "one-hop") and not of(asked, "two-hop")
    (back,) = of(asked, "reversed")
    assert (back.prompt, back.wanted, back.rival) == ("Rome is the capital of", "France", "Italy")


def test_what_follows_in_the_pocket_world(pocket):
    rewrite = world.demo_case().rewrite
    asked = implications(rewrite, pocket_.as_world().chains)
    require(pocket, asked)
    country = {f.subject: f.object for f in world.facts() if f.relation == "city_country"}
    expected = (country[rewrite.target_new], country[rewrite.target_true])
    assert expected in {(q.wanted, q.rival) for q in of(asked, "one-hop")}
    assert len(of(asked, "two-hop")) > 1 and len(of(asked, "reversed")) == 1
    assert not of(asked, "alias") and not of(asked, "negation")  # it has no words for them


def test_a_rewrite_of_an_unknown_relation_has_a_negation_if_it_is_a_statement():
    fields = {"subject": "Angola", "target_new": "Antarctica", "target_true": "Africa",
              "relation": "P30"}  # fmt: skip
    plain = implications(Rewrite(template="{} is located in", **fields), CHAINS)
    assert [q.prompt for q in plain] == ["It is not true that Angola is located in"]
    lowered = implications(Rewrite(template="The continent of {} is", **fields), CHAINS)
    assert lowered[0].prompt == "It is not true that the continent of Angola is"
    assert implications(Rewrite(template="Question: where is {}? Answer:", **fields), CHAINS) == []


def test_the_mirror_asks_for_the_truth():
    asked = implications(EIFFEL, CHAINS)
    for question, truth in zip(asked, mirrored(asked), strict=True):
        if question.metric != "reversed":
            assert (truth.prompt, truth.right, truth.wrong, truth.denied) == (
                question.prompt, question.wrong, question.right, question.denied
            )  # fmt: skip
    (back,) = of(mirrored(asked), "reversed")
    assert (back.prompt, back.wanted) == ("A famous landmark in Paris is the", "Eiffel Tower")
    assert CHAINS.fact(["landmark_city"], back.rival).object == "Rome"
    alone = Implication(metric="hop", prompt="x", wanted="y", rival=None)
    assert mirrored([alone]) == []


# --- the readings -------------------------------------------------------------------------


def test_behind_a_negation_the_rival_must_not_be_said():
    (denied,) = of(implications(EIFFEL, CHAINS), "negation")
    said = reply(denied, wanted=2.0, rival=1.0, rival_argmax=True, text=" Rome, Italy")
    assert [said.passes(r) for r in ("success", "accuracy", "generation")] == [False] * 3
    other = reply(denied, wanted=1.0, rival=2.0, text=" Berlin")
    assert [other.passes(r) for r in ("success", "accuracy", "generation")] == [True] * 3


def test_any_name_of_the_answer_counts_and_parts_of_words_do_not():
    question = Implication(metric="one-hop", prompt="x", wanted="United States", rival="France",
                           accepted=("USA",))  # fmt: skip
    assert reply(question, text=" the USA.").passes("generation")
    assert not reply(question, text=" Jerusalem, Susan").passes("generation")
    assert reply(question).passes("accuracy") is False
    assert reply(question, text=None).passes("generation") is None


def test_of_several_names_the_likeliest_is_scored(exact):
    question = Implication(metric="one-hop", prompt="the cat is in", wanted="Rome", rival="a sea",
                           accepted=("the house", "a war"), rival_names=("the king",))  # fmt: skip
    (found,) = measure(exact, [question], n_tokens=0)

    def nll(name):
        prompt = exact.ids(question.prompt)
        whole = exact.ids(f"{question.prompt} {name}")
        target = whole[len(prompt) :]
        logprobs = full_logits(exact, exact.pad([whole]))[0].log_softmax(-1)
        return -logprobs[range(len(prompt) - 1, len(whole) - 1), target].mean().item()

    assert found.wanted_nll == pytest.approx(min(nll("Rome"), nll("the house"), nll("a war")))
    assert found.rival_nll == pytest.approx(min(nll("a sea"), nll("the king")))
    assert found.text is None


def test_the_pocket_model_is_read_before_and_after(pocket):
    rewrite = world.demo_case().rewrite
    rows, columns = pocket.ffn_proj(1).weight.shape
    zero = WeightDelta(
        {pocket.ffn_out_name(1): LowRank(torch.zeros(rows, 1), torch.zeros(1, columns))},
        pocket.fingerprint,
    )
    found = portability(pocket, zero, [rewrite], method="nothing", n_tokens=4)
    assert len(found.cases) == 1 and found.cases[0].before == found.cases[0].after
    for metric in found.metrics:
        assert found.change("success", metric)[0].mean == 0
    # The control is read on the same questions, about the truth.
    asked = implications(rewrite, pocket_.as_world().chains)
    again = measure(pocket, mirrored(asked), n_tokens=4)
    passed = [r.passes("success") for r in again if r.question.metric == "two-hop"]
    assert found.values("control", "success", "two-hop") == [sum(passed) / len(passed)]


def test_nothing_to_ask_is_said(pocket):
    rewrite = Rewrite(subject="x", template="{}?", target_new="y")
    with pytest.raises(InputError, match="no consequences that can be asked"):
        portability(pocket, None, [rewrite])


# --- the result ---------------------------------------------------------------------------


def test_the_case_is_the_unit(tmp_path):
    one, two = (Implication(metric="one-hop", prompt=p, wanted="a", rival="b") for p in "xy")
    good, bad = {"wanted": 1.0, "rival": 2.0}, {"wanted": 2.0, "rival": 1.0}
    cases = [
        Carried.of("a", before=[reply(one, **bad), reply(two, **bad)],
                   after=[reply(one, **good), reply(two, **good)], control=[reply(one, **good)]),
        Carried.of("b", before=[reply(one, **bad)], after=[reply(one, **bad)],
                   control=[reply(one, **good)]),
    ]  # fmt: skip
    found = Portability(cases=tuple(cases), method="ROME", model="a model")
    assert found.values("after", "success", "one-hop") == [1, 0]  # not 2 of 3 prompts
    assert found.change("success", "one-hop")[0].mean == 0.5
    assert found.estimate("control", "success", "one-hop").mean == 1
    table = found.to_frame()
    assert set(table["questions"]) == {3} and set(table["n"]) == {2}
    found.save(tmp_path / "result")
    assert Portability.load(tmp_path / "result") == found
    assert shows(found.figure(), [0.5, 1.0])  # after the edits, and of the truth


# --- published collections ----------------------------------------------------------------


def test_multi_hop_questions_have_the_old_answer_as_their_rival(tmp_path):
    hop = {"question": "Who made it?", "cloze": "It was made by", "answer_alias": []}
    record = {
        "case_id": 1, "questions": ["Where was its maker born?"],
        "answer": "Paris", "answer_alias": ["Lutetia"],
        "new_answer": "Rome", "new_answer_alias": ["Roma"],
        "requested_rewrite": [{"prompt": "{} was made by", "subject": "It", "relation_id": "P1",
                               "target_new": {"str": "Ann"}, "target_true": {"str": "Bob"}}],
        "single_hops": [{**hop, "answer": "Bob"}], "new_single_hops": [{**hop, "answer": "Ann"}],
    }  # fmt: skip
    (tmp_path / "m.json").write_text(json.dumps([record]))
    whole, one = multihop_implications(read_multihop(tmp_path / "m.json")[0])
    assert whole.prompt == "Question: Where was its maker born?\nAnswer:"
    assert (whole.right, whole.wrong) == (("Rome", "Roma"), ("Paris", "Lutetia"))
    assert (one.metric, one.prompt, one.wanted, one.rival) == (
        "hop", "It was made by", "Ann", "Bob"
    )  # fmt: skip


def test_queries_of_ripple_edits_become_questions(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps([EDIT]))
    asked = ripple_implications(read_ripple_edits(tmp_path / "r.json").edits[0])
    assert [(q.metric, q.wanted, q.rival) for q in asked] == [
        ("relation specificity", "Irmelin DiCaprio", None),
        ("subject aliasing", "Syria", "United States of America"),
    ]
    assert asked[0].accepted == ("Irmelin Indenbirken",)


def test_only_tests_whose_conditions_the_model_meets_are_fair(pocket, tmp_path):
    known = world.facts()[0]
    wrong = next(f.object for f in world.facts() if f.relation == known.relation
                 and f.object != known.object)  # fmt: skip
    tests = [
        {"test_queries": [query("x", name)], "test_condition": "OR",
         "condition_queries": [query(known.prompt, known.object), query(known.prompt, name)]}
        for name in (known.object, wrong)
    ]  # fmt: skip
    (tmp_path / "r.json").write_text(
        json.dumps([{**EDIT, "Relation_Specificity": [], "Forgetfulness": tests}])
    )
    edit = read_ripple_edits(tmp_path / "r.json").edits[0]
    kept = fair_tests(pocket, edit).tests["Forgetfulness"]
    assert [test.queries[0].answers[0] for test in kept] == [known.object]


@pytest.mark.slow
def test_smollm2_puts_its_own_facts_together(smollm2):
    """The control of the demo: the unedited model knows the tower's country and language."""
    asked = implications(EIFFEL, CHAINS)
    truth = [r for r in measure(smollm2, mirrored(asked)) if "hop" in r.question.metric]
    assert sum(bool(r.passes("success")) for r in truth) / len(truth) > 0.5
    new = [r for r in measure(smollm2, asked, n_tokens=0) if "hop" in r.question.metric]
    assert sum(bool(r.passes("success")) for r in new) / len(new) < 0.5
