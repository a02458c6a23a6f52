"""Trees that lie in states are found at their depth, and beyond what the order of words gives."""

from dataclasses import replace

import numpy as np
import pytest

from labkit.errors import EmptySplit, InputError
from probes.sentences.own import language
from probes.states.features import Features
from probes.trees import by_depth as trees
from probes.trees.by_depth import TreesResult, probe_trees
from probes.trees.configuration import TreeProbing
from probes.trees.structural import tree_distances


@pytest.fixture(scope="module")
def sentences():
    return language(90, part="train", seed=1)


@pytest.fixture
def planted(monkeypatch):
    """States in which, at depth 1 alone, squared distances are those of the tree."""
    axes = {}

    def extract(model, texts, spans, how):
        by_text = {sentence.text: sentence for sentence in language(90, part="train", seed=1)}
        draw = np.random.default_rng(0)
        states = draw.normal(size=(2, len(spans), 48))
        for number, (text, *span) in enumerate(spans):
            words = by_text[texts[text].text].words
            at = next(i for i, word in enumerate(words) if word.span == tuple(span))
            path = [at]
            while words[path[-1]].head:
                path.append(words[path[-1]].head - 1)
            states[1, number] = 0
            for step in path:  # one axis per arc: the squared distance is the number of arcs
                states[1, number, axes.setdefault((texts[text].text, step), len(axes)) % 48] += 1
        return Features("resid", (0, 1), states.astype(np.float32), "planted", "by hand")

    monkeypatch.setattr(trees, "extract", extract)
    axes.clear()


def test_a_planted_tree_is_found_where_it_is(pocket, sentences, planted):
    how = TreeProbing(rank=48, epochs=40, controls=False)
    found = probe_trees(pocket, sentences, how)
    nowhere, there = found.depths
    assert there.uuas.mean > 0.95 and there.correlation.mean > 0.9
    assert there.above_chain.low > 0 and there.p < 0.01
    assert nowhere.uuas.mean < 0.6 and found.best is there


def test_the_chain_is_the_share_of_arcs_between_neighbours(pocket, sentences, planted):
    found = probe_trees(pocket, sentences, TreeProbing(epochs=1, controls=False))
    test = trees._sides(sentences, None, TreeProbing())[1]
    shares = []
    for sentence in test:
        kept = [i for i, word in enumerate(sentence.words) if word.upos != "PUNCT"]
        gold = tree_distances([word.head - 1 for word in sentence.words])[np.ix_(kept, kept)]
        arcs = np.argwhere(np.triu(gold == 1))
        shares.append(np.mean([second - first == 1 for first, second in arcs]))
    assert found.chain.mean == pytest.approx(np.mean(shares))


def test_a_model_is_probed_with_its_twin_and_kept(tiny, sentences, tmp_path):
    how = TreeProbing(rank=4, epochs=2, depths=[0, 2], n_train=20, n_test=9)
    found = probe_trees(tiny("llama"), sentences, how)
    assert [at.depth for at in found.depths] == [0, 2] and found.n_test == 9
    assert all(at.twin != at.uuas for at in found.depths)  # it is another model
    frame = found.to_frame()
    assert set(frame["reading"]) == {"score", "twin", "chain"}
    assert (frame["low"] <= frame["mean"]).all() and (frame["mean"] <= frame["high"]).all()
    loaded = TreesResult.load(found.save(tmp_path / "trees"))
    assert loaded.to_frame().equals(frame)
    names = {trace.name for trace in loaded.figure().data if trace.name}
    assert names == {"the probe", "random weights", "each word on the one before"}


def test_a_sentence_without_an_arc_between_readable_words_is_left_out(tiny, sentences):
    whole = trees._Trees.of(tiny("llama"), sentences[:3])
    words = tuple(
        replace(word, span=word.span if place == 0 else None)
        for place, word in enumerate(sentences[1].words)
    )
    found = trees._Trees.of(tiny("llama"), [sentences[0], replace(sentences[1], words=words)])
    assert whole.numbers == [0, 1, 2] and found.numbers == [0]
    assert found.spans == whole.spans[:1]


def test_no_sentence_stands_on_both_sides(sentences):
    train, test = trees._sides(sentences, sentences[:10], TreeProbing(n_train=400, n_test=200))
    assert {s.text for s in test} == {s.text for s in sentences[:10]}
    assert not {s.text for s in train} & {s.text for s in test}


NONE = {"n_train": 0, "n_test": -1, "rank": 0, "epochs": 0, "batch": 0, "depths": [],
        "learning_rate": float("nan")}  # fmt: skip


def test_what_cannot_be_probed_is_refused(tiny, sentences):
    with pytest.raises(InputError, match="depths"):
        probe_trees(tiny("llama"), sentences, TreeProbing(depths=[9]))
    for name, value in NONE.items():
        with pytest.raises(InputError, match=name):
            TreeProbing(**{name: value})
    with pytest.raises(EmptySplit):
        probe_trees(tiny("llama"), [])
