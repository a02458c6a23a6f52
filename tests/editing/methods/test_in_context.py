"""What stands in front of a question: the fact, the most similar of many, and nothing else."""

import dataclasses

import pytest
import torch

from editing.edits.effect import in_effect
from editing.methods.in_context import InContext, PromptEdit, sentence
from labkit.errors import (
    ContradictoryRewrites,
    EmptyTarget,
    FingerprintMismatch,
    InputError,
)
from labkit.facts.fact import Deletion, Rewrite
from tests.reference import full_logits

FACTS = [
    Rewrite(subject="France", template="The capital of {} is", target_new="London"),
    Rewrite(subject="Germany", template="The capital of {} is", target_new="Oslo"),
    Rewrite(subject="Eiffel Tower", template="The {} stands in", target_new="Rome"),
    Rewrite(subject="Frank", template="{} works as a", target_new="baker"),
]


@pytest.fixture
def edit(tiny):
    return InContext(shown=2)(tiny("llama"), FACTS)


def test_the_question_stands_verbatim_behind_the_fact(model, rewrite):
    edit = InContext()(model, [rewrite])
    for question in (rewrite.prompt, "Where is the cat? ", "  odd\n spacing"):
        asked = edit.prompt(question)
        assert asked.endswith(question) and "the cat is in Rome.\n" in asked
        assert asked == edit.text + question
    assert edit.provenance["rewrites"][0]["target_new"] == "Rome"


def test_the_model_is_what_it_was_and_hears_the_fact(model, rewrite, weights, changed):
    before = weights(model)
    said = full_logits(model, model.tokens([rewrite.prompt]))[0, -1]
    with in_effect(model, InContext()(model, [rewrite])) as prompt:
        told = full_logits(model, model.tokens([prompt(rewrite.prompt)]))[0, -1]
        assert changed(model, before) == set()
    assert (told - said).abs().max() > 0.01


def test_the_most_similar_facts_are_shown_the_most_similar_last(edit):
    shown = [rewrite.subject for rewrite in edit.similar("The capital of Germany is")]
    assert shown == ["France", "Germany"]
    # The subject counts before the wording, and as a word: Frank is not in France.
    assert edit.similar("Who has seen the Eiffel Tower?")[-1].subject == "Eiffel Tower"
    assert edit.similar("I ask you, of all people: is Frank the capital?")[-1].subject == "Frank"
    asked = edit.prompt("The capital of France is")
    assert "London" in asked and "baker" not in asked
    assert asked.index("Oslo") < asked.index("London")
    for rewrite in FACTS:
        assert rewrite.target_new in edit.text
        assert edit.similar(rewrite.prompt)[-1] == rewrite


def test_a_hundred_facts_do_not_lengthen_the_prompt(tiny):
    many = [
        Rewrite(subject=f"place {n}", template="{} lies in", target_new=f"land {n}")
        for n in range(100)
    ]
    edit = InContext()(tiny("llama"), many)
    alone = InContext()(tiny("llama"), many[7:8])
    prompt = many[7].prompt
    assert edit.similar(prompt)[-1] == many[7]
    assert len(edit.prompt(prompt)) < InContext().shown * len(alone.prompt(prompt))


def test_edits_follow_one_another_and_the_later_one_holds(tiny):
    model, method = tiny("llama"), InContext()
    first = method(model, FACTS[:2])
    again = method(model, [dataclasses.replace(FACTS[0], target_new="Madrid")], after=first)
    total = first.then(again).then(method(model, FACTS[2:3]))
    assert [(r.subject, r.target_new) for r in total.rewrites] == [
        ("Germany", "Oslo"),
        ("France", "Madrid"),
        ("Eiffel Tower", "Rome"),
    ]
    steps = total.provenance["steps"]
    assert [len(step["rewrites"]) for step in steps] == [2, 1, 1]
    with pytest.raises(FingerprintMismatch, match="do not compose"):
        first.then(method(tiny("gpt2"), FACTS[:1]))
    with pytest.raises(FingerprintMismatch), in_effect(tiny("gpt2"), first):
        pass


# --- demonstrations -----------------------------------------------------------------------


def parts(demonstration):
    fact, answered = demonstration.text.rstrip("\n").split("\n")
    return fact.removeprefix("New fact: "), answered.removeprefix("Prompt: ")


def test_demonstrations_copy_update_and_retain_what_the_model_knows(pocket):
    method = InContext(demonstrations=7, seed=1)
    shown = method.prepare(pocket)
    assert [d.kind for d in shown] == ["copy", "update", "retain"] * 2 + ["copy"]
    from labkit import pocket as world

    facts = world.facts()
    truths = {sentence(fact.prompt, fact.object) for fact in facts}
    for demonstration in shown:
        fact, answered = parts(demonstration)
        (about,) = {f.subject for f in facts if f.prompt == fact.rsplit(" ", 1)[0]}
        assert fact not in truths
        if demonstration.kind == "retain":
            assert answered in truths and about not in answered
            assert answered.rsplit(" ", 1)[1] != fact.rsplit(" ", 1)[1]
        else:
            assert (answered == fact) == (demonstration.kind == "copy")
            assert about in answered and answered.rsplit(" ", 1)[1] == fact.rsplit(" ", 1)[1]
    assert method.prepare(pocket) == shown
    assert InContext(demonstrations=7, seed=2).prepare(pocket) != shown

    rewrite = world.demo_case().rewrite
    edit = method(pocket, [rewrite])
    asked = edit.prompt(rewrite.prompt)
    assert asked.startswith("".join(d.text for d in shown)) and asked.endswith(rewrite.prompt)
    assert isinstance(edit, PromptEdit)


def test_too_many_demonstrations_are_refused(pocket):
    with pytest.raises(InputError, match="facts"):
        InContext(demonstrations=10**6).prepare(pocket)


@pytest.mark.slow
def test_the_default_model_repeats_what_it_is_told(smollm2):
    """Where it does not know better: that the Eiffel Tower stands in Rome it does not take."""
    rewrite = FACTS[0]
    with in_effect(smollm2, InContext()(smollm2, [rewrite])) as prompt, torch.no_grad():
        best = full_logits(smollm2, smollm2.tokens([prompt(rewrite.prompt)]))[0, -1].argmax()
    assert smollm2.tokenizer.decode([int(best)]) == " London"


# --- refusals -----------------------------------------------------------------------------


def test_what_cannot_be_stated_is_refused(tiny, rewrite):
    model = tiny("llama")
    with pytest.raises(InputError, match="cannot delete"):
        InContext()(model, [Deletion(subject="cat", template="the {} is", target_true="here")])
    with pytest.raises(ContradictoryRewrites):
        InContext()(model, [rewrite, dataclasses.replace(rewrite, target_new="Paris")])
    with pytest.raises(InputError, match="twice"):
        InContext()(model, [rewrite, rewrite])
    for wrong in ({"shown": 0}, {"demonstrations": -1}):
        with pytest.raises(InputError, match="at least one fact"):
            InContext(**wrong)
    wrong = dataclasses.replace(rewrite)
    object.__setattr__(wrong, "target_new", " ")
    with pytest.raises(EmptyTarget):
        InContext()(model, [wrong])
