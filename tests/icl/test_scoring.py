"""Reuse changes nothing: scores are those of every prompt run from scratch."""

from dataclasses import replace

import pytest
import torch

from labkit.errors import AmbiguousLabels, ContextTooShort, EmptyTarget
from labkit.icl import (
    Item,
    Shot,
    Task,
    Template,
    label_ids,
    prompt_ids,
    scorable,
    score_labels,
    told_apart,
)
from labkit.icl.tasks.prompts import write

LABELS = ("on", "one", "the one", "the other thing")
SHOTS = [Shot(input=a, label=b) for a, b in zip("rain the sun".split(), LABELS, strict=False)]
WORDS = ("red", "the one")
QUERIES = ("of it", "is", "a longer question than that", "moon", "in the sky")


@torch.no_grad()
def from_scratch(model, prompt, label):
    """Hugging Face's own model on one unpadded prompt, label and all."""
    ids = torch.tensor([[*prompt, *label]])
    logits = model.hf(input_ids=ids, use_cache=False).logits[0].log_softmax(dim=-1)
    places = range(len(prompt) - 1, ids.shape[1] - 1)
    return float(sum(logits[p, ids[0, p + 1]] for p in places))


def groups_of(model, ks=(0, 1, 2, 3), queries=QUERIES, template=None):
    """Nested demonstrations, and others of other lengths."""
    sets = [SHOTS[:k] for k in ks] + [SHOTS[1:][:k][::-1] for k in ks]
    return [prompt_ids(model, [write(template or Template(), s, q) for q in queries]) for s in sets]


@pytest.mark.parametrize(("n_queries", "memory"), [(1, 1 << 30), (2, 1 << 30), (5, 1)])
def test_reuse_equals_no_reuse(exact, n_queries, memory):
    labels = [(270 - 9, 5), (40,), (40 + 1, 7, 9), (41, 7, 8, 3)]
    groups = groups_of(exact, ks=(0, 1, 3), queries=QUERIES[:n_queries])
    tables = score_labels(exact, groups, labels, memory=memory)
    for prompts, table in zip(groups, tables, strict=True):
        expected = [[from_scratch(exact, prompt, label) for label in labels] for prompt in prompts]
        torch.testing.assert_close(
            table, torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0
        )


def test_in_single_precision_too(model):
    labels = label_ids(model, Template(), ("on", "the one", "the other thing"))
    groups = groups_of(model, ks=(0, 3))
    for prompts, table in zip(groups, score_labels(model, groups, labels), strict=True):
        expected = [[from_scratch(model, prompt, label) for label in labels] for prompt in prompts]
        torch.testing.assert_close(table.float(), torch.tensor(expected), atol=2e-5, rtol=0)


def test_no_position_is_run_twice(tiny):
    """Positions that go through the blocks: the longest demonstrations, and the questions."""
    model = tiny("llama")
    ffn = model.blocks[0].get_submodule(model.anatomy.ffn)
    template, run = Template(), []
    nested = [
        prompt_ids(model, [write(template, (SHOTS * 4)[:k], query) for query in QUERIES])
        for k in (0, 2, 4, 8, 12)
    ]
    handle = ffn.register_forward_hook(lambda _, args, out: run.append(args[0].shape[:2].numel()))
    try:
        score_labels(model, nested, [(40,)])
    finally:
        handle.remove()
    longest = max(map(len, nested[-1]))
    questions = len(nested) * len(QUERIES) * max(len(f"{query}\nA:") for query in QUERIES)
    assert sum(run) <= longest + questions
    assert 2 * sum(run) < sum(len(prompt) for prompts in nested for prompt in prompts)


def test_labels_are_those_behind_the_query(model):
    template = Template()
    for label, ids in zip(WORDS, label_ids(model, template, WORDS), strict=True):
        text = write(template, SHOTS, "it")
        assert [*prompt_ids(model, [text])[0], *ids] == model.ids(f"{text} {label}")
    first = label_ids(model, Template(demonstration="{input}\n\n{label}"), ("red",), tokens="first")
    assert len(first[0]) == 1


def test_labels_that_scores_cannot_tell_apart(tiny, pocket):
    model = tiny("gpt2")
    with pytest.raises(AmbiguousLabels, match="same token"):
        label_ids(model, Template(), ("the cat", "the dog"), tokens="first")
    assert len(label_ids(model, Template(), ("the cat", "the dog"))) == 2
    with pytest.raises(AmbiguousLabels, match="beginning"):
        label_ids(model, Template(), ("dog", "cats", "cat"))
    with pytest.raises(EmptyTarget):
        label_ids(pocket, Template(demonstration="{input} makes {label}"), ("xyzzy", "candles"))
    items = tuple(
        Item(input=x, label=y) for x, y in zip("abc", ("the cat", "the dog", "of"), strict=True)
    )
    own = Task(name="t", items=items, source="s")
    assert told_apart(model, own).labels == ("the cat", "of")
    assert told_apart(model, own, tokens="all").labels == own.labels
    unseen = replace(
        own, items=items[1:], labels=("of", "the dog", "the cat", *map(str, range(20)))
    )
    assert not unseen.closed and "the cat" not in scorable(model, unseen)[0].labels
    assert scorable(model, own) == (own, "all")


def test_too_long_is_refused_before_any_forward(tiny, no_forward):
    model = tiny("gpt2")
    with pytest.raises(ContextTooShort, match="256"):
        score_labels(model, [[(1,) * 256, (2,) * 3]], [(3, 4)])
