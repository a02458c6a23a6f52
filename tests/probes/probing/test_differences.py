"""What tells two words apart: the state of one less that of the other, and of all that is read."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from labkit.errors import InputError
from labkit.text.acceptability import MinimalPair, minimal_pairs
from probes.probing.controls import bag
from probes.states.features import extract, features_of
from probes.tasks.defaults import MORE_TASKS, TASKS, default_tasks
from probes.tasks.factual import birth_year
from probes.tasks.minimal_pairs import better_of_pair
from probes.tasks.task import Split
from probes.use.interventions import forget


@pytest.fixture(scope="module")
def pairs():
    return minimal_pairs(4)


def test_the_features_of_a_pair_are_the_difference_of_its_two_states(model, pairs):
    task = better_of_pair(pairs)
    found = features_of(model, task, cache=False)
    ends = [(text, len(sentence) - 1, len(sentence)) for text, sentence in enumerate(task.texts)]
    alone = extract(model, task.texts, ends)
    for depth in (0, model.n_layers):
        states = alone.at(depth)
        own = [states[example.text] - states[example.less[0]] for example in task.examples]
        assert np.allclose(found.at(depth), own, atol=1e-6)


def test_each_kind_has_the_good_sentence_first_in_half_of_its_pairs(pairs):
    task = better_of_pair(pairs)
    assert len(task) == len(pairs)
    by_kind = Counter((example.item, example.label) for example in task.examples)
    assert set(by_kind.values()) == {2}
    for example, pair in zip(task.examples, pairs, strict=True):
        first = pair.good if example.label == "first" else pair.bad
        assert task.texts[example.text] == first
        assert {task.texts[example.text], task.texts[example.less[0]]} == {pair.good, pair.bad}


def test_a_bag_sees_the_difference_and_not_one_text_alone():
    # Each word is the better one beside the next, and the worse one beside the last.
    ranked = "alpha beta gamma delta epsilon zeta".split()
    pairs = [
        MinimalPair(
            phenomenon=f"{n % 5}", good=f"{n} {ranked[n % 5]}", bad=f"{n} {ranked[n % 5 + 1]}"
        )
        for n in range(80)
    ]
    task = better_of_pair(pairs)
    split = Split(np.arange(40), np.arange(40, 80))
    assert (bag(task, split) == task.labels[split.test]).all()


def test_differences_and_states_are_not_mixed_or_moved(tiny, pairs):
    task = better_of_pair(pairs)
    with pytest.raises(InputError, match="states for others"):
        replace(task, examples=(replace(task.examples[0], less=None), *task.examples[1:]))
    with pytest.raises(InputError, match="stands in text"):
        replace(task, examples=(replace(task.examples[0], less=(999, (0, 1))), *task.examples[1:]))
    with pytest.raises(InputError, match="reads single states"):
        forget(tiny("llama"), task, 1)


def test_years_are_those_of_people_each_in_three_openings():
    task = birth_year()
    year = {example.item: example.label for example in task.examples}
    assert year["Isaac Newton"] == 1643 and year["Albert Einstein"] == 1879
    assert task.numeric and len(task) == 3 * len(year) and len(year) > 500
    read = {task.texts[e.text][slice(*e.span)] == e.item for e in task.examples}
    assert read == {True} and min(year.values()) > 1100 and max(year.values()) < 2010


def test_more_tasks_come_when_they_are_named(tiny):
    model = tiny("llama")
    assert set(default_tasks(model, names=MORE_TASKS, n_examples=60)) == set(MORE_TASKS)
    assert not set(MORE_TASKS) & set(TASKS)
