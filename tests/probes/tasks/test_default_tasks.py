"""The default tasks: five families, enough examples, readable by any tokenizer."""

from collections import Counter

import numpy as np
import pytest

from labkit import pocket as world
from labkit.errors import InputError
from labkit.text.acceptability import MinimalPair, minimal_pairs, prefers_good
from probes.states.features import features_of, readable
from probes.tasks.defaults import POCKET_TASKS, TASKS, default_tasks
from probes.tasks.minimal_pairs import grammaticality, preference

FAMILIES = {"surface", "lexical", "syntactic", "semantic", "factual"}


@pytest.fixture(scope="module")
def english(tiny):
    return default_tasks(tiny("llama"))


@pytest.fixture(scope="module")
def invented(pocket):
    return default_tasks(pocket)


def test_five_families_with_at_least_two_tasks_each_and_enough_examples(english):
    assert tuple(english) == TASKS and len(TASKS) >= 12
    counts = Counter(task.family for task in english.values())
    assert set(counts) == FAMILIES and min(counts.values()) >= 3
    for task in english.values():
        split = task.split()
        assert 350 < len(split.train) <= 700 and 140 < len(split.test) <= 700, task.name
        if not task.numeric:
            assert min(Counter(task.labels[split.train].tolist()).values()) >= 8, task.name
        else:
            assert task.labels.std() > 0.5


def test_the_pocket_model_has_tasks_of_its_own_world(invented, pocket):
    assert tuple(invented) == POCKET_TASKS
    assert {task.family for task in invented.values()} == FAMILIES
    unknown = pocket.tokenizer.unk_token_id
    for task in invented.values():
        assert readable(pocket, task) is task
        assert not any(unknown in pocket.ids(task.texts[e.text]) for e in task.examples)


def test_labels_of_the_pocket_world_are_its_facts(invented):
    facts = {(f.relation, f.subject): f.object for f in world.facts()}
    for example in invented["profession"].examples:
        assert facts["person_profession", example.group] == example.label
    sentences = set(world.sentences())
    part = invented["sentence_part"]
    objects = Counter(e.text for e in part.examples if e.label == "object")
    assert set(objects.values()) == {1}
    assert all(part.texts[e.text] in sentences for e in part.examples)
    relations = {r.id: r for r in world.relations()}
    for example in invented["relation"].examples:
        assert example.group in relations[example.label].templates
    split = invented["relation"].split()
    held_out = {invented["relation"].groups[n] for n in split.test}
    assert held_out == {t for r in relations.values() for t in r.templates[4:]}


def test_a_model_reads_them(tiny, family, english):
    model = tiny(family)
    for name in ("tense", "truth"):
        task = english[name].limited(20)
        states = features_of(model, task, cache=False).values
        assert states.shape == (model.n_layers + 1, len(task), model.d_model)
        assert np.isfinite(states).all()


def test_some_of_them_and_the_same_seed(tiny, english):
    model = tiny("llama")
    some = default_tasks(model, names=["truth", "tense"], n_examples=50)
    assert list(some) == ["tense", "truth"] and len(some["tense"].split().train) == 50
    assert default_tasks(model, names=["role"])["role"] == english["role"]
    assert default_tasks(model, names=["truth"], seed=1)["truth"] != english["truth"]
    with pytest.raises(InputError, match="no task 'profession'"):
        default_tasks(model, names=["profession"])


def test_pairs_stay_together_and_are_read_at_their_end():
    pairs = [*minimal_pairs(5), MinimalPair(phenomenon="same", good="A b.", bad="A b.")]
    task = grammaticality(pairs)
    assert Counter(task.groups.tolist()).most_common()[-1][1] == 2
    goods = {pair.good for pair in pairs}
    for example in task.examples:
        text = task.texts[example.text]
        assert (text in goods) == (example.label == "good") and example.span[1] == len(text)
    assert len(task) == 2 * (len(pairs) - 1)


def test_preference_is_the_share_of_pairs_won(tiny):
    model, pairs = tiny("gpt2"), minimal_pairs(6)
    won = prefers_good(model, pairs)
    found = preference(model, pairs)
    assert len(found) == 12
    for name, share in found.items():
        own = [bool(w) for w, pair in zip(won, pairs, strict=True) if pair.phenomenon == name]
        assert (share.mean, share.n) == (sum(own) / 6, 6) and share.low <= share.mean <= share.high
