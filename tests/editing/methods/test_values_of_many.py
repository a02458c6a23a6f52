"""Many searches at once are the same searches; one subject has one value; deletions."""

import dataclasses
from collections import Counter

import pytest
import torch

import editing.methods.closed_form.values as values_module
from editing.edits.requests import check, grouped
from editing.methods.closed_form.keys import contexts, group_keys, key_star, subject_keys
from editing.methods.closed_form.value_search import ValueSearch
from editing.methods.closed_form.values import refuse_already_true, value_stars
from labkit import pocket as world
from labkit.errors import AlreadyTrue, ContradictoryRewrites, InputError, SubjectOnSink
from labkit.facts.fact import Deletion, Rewrite
from labkit.running.activations import patched
from labkit.running.logits import next_token_logits
from labkit.text.corpus import corpus_of

LAYER = 1
SEARCH = ValueSearch(steps=6, enough=1.0)


@pytest.fixture
def several(rewrite):
    """Subjects, prompts and targets of different lengths; one subject twice."""
    return [
        rewrite,
        Rewrite(subject="old king", template="One day the {} went to", target_new="the sea"),
        Rewrite(subject="cat", template="Where is the {}? It sits on", target_new="a roof"),
        Rewrite(subject="ship", template="the {} is", target_new="red"),
    ]


@pytest.fixture
def before(corpus):
    return contexts(corpus, 3, seed=0)


# --- many at once -------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_together_is_each_alone(model, several, before, memory, monkeypatch):
    """In one batch, or a batch each; they end after different numbers of steps."""
    groups = grouped(several)
    reached = value_stars(model, groups, LAYER, before, dataclasses.replace(SEARCH, steps=3))
    search = dataclasses.replace(SEARCH, enough=0.999 * float(reached.probability.median()))
    monkeypatch.setattr(values_module, "MEMORY", memory)
    found = value_stars(model, groups, LAYER, before, search)
    assert len(set(found.steps.tolist())) > 1
    for number, group in enumerate(groups):
        alone = value_stars(model, [group], LAYER, before, search)
        assert int(alone.steps[0]) == int(found.steps[number])
        torch.testing.assert_close(
            found.change[number], alone.change[0], rtol=0, atol=5e-3 * alone.change.abs().max()
        )
        assert found.probability[number] == pytest.approx(alone.probability[0].item(), rel=0.02)
        assert found.losses[number] == pytest.approx(alone.losses[0], rel=0.02, abs=0.02)


def test_a_batch_holds_no_more_than_its_bound(tiny, several, before, monkeypatch):
    sizes = []
    run = torch.optim.Adam

    def counted(parameters, **fields):
        sizes.append(parameters[0].shape[1])
        return run(parameters, **fields)

    monkeypatch.setattr(torch.optim, "Adam", counted)
    for memory in (1, 1 << 30):
        monkeypatch.setattr(values_module, "MEMORY", memory)
        value_stars(tiny("llama"), grouped(several), LAYER, before, SEARCH)
    assert sizes == [1, 1, 1, 3]


# --- one subject --------------------------------------------------------------------------


def test_requests_about_one_subject_are_one_group(several):
    groups = grouped(several)
    assert [group.subject for group in groups] == ["cat", "old king", "ship"]
    assert groups[0].requests == (several[0], several[2])


def test_a_groups_key_is_the_mean_of_its_requests_keys(tiny, several, before):
    model = tiny("gpt2")
    own = key_star(subject_keys(model, several, LAYER, before), 0.25).double()
    found = group_keys(model, grouped(several), LAYER, before, 0.25)
    torch.testing.assert_close(found, torch.stack([own[[0, 2]].mean(0), own[1], own[3]]))


def test_one_value_makes_every_request_about_a_subject_true(pocket):
    """Two facts about one subject, of two relations, both given new objects."""
    counts = Counter(fact.subject for fact in world.facts())
    subject = next(subject for subject, n in counts.items() if n > 1)
    facts = [fact for fact in world.facts() if fact.subject == subject][:2]
    objects = {
        f.relation: f.object
        for f in world.facts()
        if f.object not in (facts[0].object, facts[1].object)
    }
    asked = [Rewrite.from_fact(fact, objects[fact.relation]) for fact in facts]
    before = contexts(corpus_of(pocket), 3, seed=0)
    found = value_stars(pocket, grouped(asked), 0, before, ValueSearch(steps=60))
    assert found.v_star.shape[0] == 1 and found.probability[0] >= 0.9


def test_contradictions_and_repetitions_are_refused(rewrite):
    other = dataclasses.replace(rewrite, target_new="Paris")
    with pytest.raises(ContradictoryRewrites, match="'Rome' and 'Paris'"):
        grouped([rewrite, other])
    with pytest.raises(InputError, match="twice"):
        grouped([rewrite, rewrite])
    with pytest.raises(InputError, match="nothing to edit"):
        grouped([])


def test_a_search_minds_no_callers_no_grad(tiny, several, before):
    search, groups = dataclasses.replace(SEARCH, steps=2), grouped(several)
    with torch.no_grad():
        found = value_stars(tiny("llama"), groups, LAYER, before, search)
    wanted = value_stars(tiny("llama"), groups, LAYER, before, search)
    assert torch.equal(found.v_star, wanted.v_star)


# --- bad requests -------------------------------------------------------------------------


def test_what_the_model_says_already_is_named(tiny, several, before):
    found = value_stars(tiny("llama"), grouped(several), LAYER, before, ValueSearch(enough=0.0))
    assert found.steps.tolist() == [0, 0, 0] and torch.equal(found.v_star, found.v)
    with pytest.raises(AlreadyTrue, match="cat, old king, ship"):
        refuse_already_true(grouped(several), found)


def test_a_subject_that_is_the_first_token_alone_is_refused(tiny, rewrite):
    alone = dataclasses.replace(rewrite, subject="a", template="{} is in")
    with pytest.raises(SubjectOnSink, match="put words in front"):
        check(tiny("gpt2"), [rewrite, alone])
    check(tiny("gpt2"), [dataclasses.replace(alone, template="the {} is in")])
    check(tiny("gpt2"), [dataclasses.replace(alone, subject="cats")])  # it ends behind the sink


# --- deletions ----------------------------------------------------------------------------


def test_a_deletion_makes_the_answer_uncertain(pocket):
    known = world.demo_case().rewrite
    request = Deletion(
        subject=known.subject, template=known.template, target_true=known.target_true
    )
    answer = pocket.tokenizer.convert_tokens_to_ids(known.target_true)
    before = contexts(corpus_of(pocket), 3, seed=0)
    found = value_stars(pocket, grouped([request]), 0, before, ValueSearch(steps=60))
    batch = pocket.tokens([request.prompt])
    last = pocket.span(request.prompt, request.subject).last

    def push(out):
        out = out.clone()
        out[:, last] += found.change[0]
        return out

    unedited = next_token_logits(pocket, batch)[0]
    with patched(pocket, {("ffn_value", 0): push}):
        deleted = next_token_logits(pocket, batch)[0]
    assert unedited.softmax(-1)[answer] > 0.9 and deleted.softmax(-1)[answer] < 0.2
    spread = [torch.distributions.Categorical(logits=said) for said in (deleted, unedited)]
    assert spread[0].entropy() > spread[1].entropy() + 0.5
