"""Side effects: an edit of nothing has none, and planted ones are read as they were planted."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from editing.edits.applying import applied
from editing.readings.forgetting import unrelated_facts
from editing.readings.side_effects import NGRAM, SideEffects, compare
from editing.readings.side_effects_result import METRICS, SideComparison, SideReadings
from labkit import pocket as world
from labkit.errors import FingerprintMismatch, InputError
from labkit.facts.fact import Deletion
from labkit.text.acceptability import MinimalPair

SMALL = SideEffects(n_facts=20, n_pairs=1, n_text_tokens=60, n_openings=3, n_tokens=8)
TEXTS = ("the cat is in the house of the king and the dog is in the sea", "a ship is in the sea")


@contextmanager
def biased(model, token, by):
    """The model with a bias towards one token."""
    push = torch.zeros(model.d_vocab)
    push[token] = by
    handle = model.unembed.register_forward_hook(lambda module, args, out: out + push)
    try:
        yield
    finally:
        handle.remove()


def test_nothing_done_is_exactly_nothing(model):
    few = replace(SMALL, n_facts=0)  # a random model knows none, and all would be asked
    material = few.material(model, texts=TEXTS)
    found = compare(material.before, few.measure(model, material))
    assert {metric for metric in METRICS if found.change(metric)} >= {"nll", "kl", "minimal pairs"}
    for metric in METRICS:
        change = found.change(metric)
        if change is not None:
            assert (change[0].mean, change[1]) == (0, 1)
            # Equal differences have an interval where units are 0 or 1, and it holds 0.
            assert not change[0].has_interval or change[0].low < 0 < change[0].high
    assert material.before.kl == (0, 0)


def test_kl_is_that_of_full_forwards(exact, random_delta, monkeypatch):
    monkeypatch.setattr("labkit.running.reading.KL_STRIDE", 1)  # the distributions of all positions
    effects = SideEffects(n_facts=0, n_pairs=0, n_openings=0)
    material = effects.material(exact, texts=TEXTS)
    delta = random_delta(exact, scale=0.3)
    rows = [torch.tensor([exact.ids(text)]) for text in TEXTS]
    before = [exact.hf(input_ids=row).logits[0].log_softmax(-1).detach() for row in rows]
    with applied(exact, delta):
        after = [exact.hf(input_ids=row).logits[0].log_softmax(-1).detach() for row in rows]
        found = effects.measure(exact, material)
    for piece, (p, q) in enumerate(zip(before, after, strict=True)):
        scored = p.shape[0] - 1
        kl = (p.exp() * (p - q)).sum(-1)[:scored].mean()
        nll = -q[range(scored), rows[piece][0, 1:]].mean()
        assert kl > 1e-6
        np.testing.assert_allclose(found.kl[piece], kl, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(found.nll[piece], nll, rtol=1e-5)


def test_a_planted_bias_is_read_as_planted(pocket):
    material = SMALL.material(pocket)
    word = str(material.facts[0].object)
    token = pocket.tokenizer(word, add_special_tokens=False).input_ids[0]
    with biased(pocket, token, 1e4):
        after = SMALL.measure(pocket, material)
    holds = np.array([word in fact.answers for fact in material.facts])
    assert np.array_equal(after.known, holds)
    np.testing.assert_allclose(after.probability, holds, atol=1e-6)
    assert all(set(text.split()) == {word} for text in after.written)
    n_grams = SMALL.n_tokens - NGRAM + 1
    np.testing.assert_allclose(after.repetition, 1 - 1 / n_grams)
    np.testing.assert_allclose(after.entropy, 0)
    assert min(after.nll) > 1e3 and min(after.kl) > 1e3
    forgotten = compare(material.before, after).forgotten
    assert forgotten.mean == (~holds).mean() and forgotten.n == len(holds)


def test_a_bias_towards_a_word_of_the_bad_sentences_costs_the_pairs(tiny):
    model = tiny("llama")
    pairs = [
        MinimalPair(phenomenon="word", good=f"the {noun} is", bad=f"the {noun} in")
        for noun in ("cat", "dog", "king")
    ]
    effects = SideEffects(n_facts=0, n_openings=0)
    material = effects.material(model, pairs=pairs, texts=TEXTS)
    good, bad = (model.tokenizer(text, add_special_tokens=False).input_ids for text in
                 (pairs[0].good, pairs[0].bad))  # fmt: skip
    only_good, only_bad = (set(good) - set(bad)).pop(), (set(bad) - set(good)).pop()
    for token, share in ((only_good, 1.0), (only_bad, 0.0)):
        with biased(model, token, 1e3):
            after = effects.measure(model, material)
        assert after.means()["minimal pairs"] == share


def test_what_is_measured_has_nothing_to_do_with_the_edit(pocket):
    rewrite = world.demo_case().rewrite
    deletion = Deletion(
        subject="nobody", template="{} is", target_true=str(world.facts()[-1].object)
    )
    facts = unrelated_facts(pocket, 400, exclude=[rewrite, deletion])
    assert len(facts) == 400 and len(set(facts)) == 400
    named = {rewrite.subject, rewrite.target_new, rewrite.target_true, deletion.target_true}
    for fact in facts:
        assert fact.relation != rewrite.relation
        assert named.isdisjoint({fact.subject, *fact.answers})
    assert len({fact.relation for fact in facts[:13]}) == 13  # relations take turns


def test_the_pocket_world_has_no_words_for_the_pairs(pocket):
    material = SMALL.material(pocket)
    assert material.pairs == () and material.before.estimate("minimal pairs") is None
    assert any("minimal pairs" in note for note in material.notes)


def test_text_in_front_is_read_and_not_scored(pocket):
    material = SMALL.material(pocket)
    first, second = world.sentences()[5:7]
    put = []

    def wording(prompt):
        """Another text in front of every other prompt, as in-context editing has it."""
        put.append(prompt)
        return f"{first if len(prompt) % 2 else second} {prompt}"

    after = SMALL.measure(pocket, material, wording)
    assert {fact.prompt for fact in material.facts} <= set(put)  # the subject is in its place
    assert len(after.nll) == len(material.before.nll)
    assert after.nll != material.before.nll and min(after.kl) > 0
    assert len(after.known) == len(material.before.known)


def test_foreign_material_is_refused(pocket, tiny):
    material = SMALL.material(pocket)
    with pytest.raises(FingerprintMismatch, match="prepare it again"):
        SMALL.measure(tiny("llama"), material)
    with pytest.raises(InputError, match="same material"):
        compare(material.before, SideReadings.none())


@pytest.mark.parametrize(
    "fields", [{"n_facts": -1}, {"n_pairs": -1}, {"n_text_tokens": 0}, {"n_tokens": 0}]
)
def test_impossible_amounts_are_refused(fields):
    with pytest.raises(InputError):
        SideEffects(**fields)


def readings(known, good, nll):
    """Readings with known numbers."""
    k, n = len(known), len(nll)
    return SideReadings(
        nll=tuple(nll), kl=(0.0,) * n, good=tuple(good),
        phenomena=("a",) * (len(good) // 2) + ("b",) * (len(good) - len(good) // 2),
        known=tuple(known), probability=(1.0,) * k, relations=("r",) * k,
        repetition=(0.1, 0.3), entropy=(5.0, 4.0), words=(9.0, 7.0), written=("x", "y"),
    )  # fmt: skip


def test_known_readings_give_exact_changes(tmp_path):
    before = readings([True] * 10, [True] * 10, [1.0, 2.0, 3.0])
    after = readings([True] * 7 + [False] * 3, [True] * 5 + [False] * 5, [1.5, 2.5, 3.5])
    found = compare(before, after, method="ROME", model="pocket", notes=["a note"])
    assert found.change("facts")[0].mean == pytest.approx(-0.3)
    assert found.forgotten.mean == pytest.approx(0.3)
    assert found.change("nll")[0].mean == 0.5 and found.change("words")[0].mean == 0
    table = found.to_frame().set_index("metric")
    assert table.loc["minimal pairs", "change"] == -0.5 and table.loc["nll", "edited"] == 2.5
    shares = found.pairs_by_phenomenon().set_index(["state", "phenomenon"])["share"]
    assert shares["edited", "a"] == 1 and shares["edited", "b"] == 0
    assert shares["edited", "all"] == 0.5 and shares["unedited", "all"] == 1
    found.save(tmp_path / "side")
    again = SideComparison.load(tmp_path / "side")
    assert again == found and again.to_frame().equals(found.to_frame())


def test_figures_show_the_changes_and_the_shares():
    before = readings([True] * 10, [True] * 10, [1.0, 2.0, 3.0])
    after = readings([True] * 7 + [False] * 3, [True] * 5 + [False] * 5, [1.4, 2.5, 3.5])
    found = compare(before, after)
    dots = [x for trace in found.figure().data for x in trace.x]
    assert sorted(dots) == pytest.approx(sorted(found.to_frame()["change"]))
    bars = [x for trace in after.figure().data for x in trace.x]
    assert np.mean(bars) == pytest.approx(np.mean(after.good))
