"""What holds of every closed form: who is grouped, what is remembered, what is refused."""

import dataclasses

import pytest

from editing import METHODS
from editing.edits.applying import applied
from editing.edits.delta import WeightDelta
from editing.edits.requests import grouped
from editing.methods.closed_form.keys import subject_states
from labkit.errors import (
    AlreadyTrue,
    ContradictoryRewrites,
    FingerprintMismatch,
    InputError,
    LayerOutOfRange,
    SingularSystem,
    SubjectOnSink,
)
from labkit.facts.fact import Deletion, Rewrite
from labkit.text.corpus import Corpus
from tests.editing.conftest import FAST
from tests.reference import full_logits

SEVERAL = ["emmet", "memit", "blue", "pmet", "alphaedit"]


@pytest.fixture(params=SEVERAL)
def method(request):
    return METHODS[request.param](**FAST[request.param])


@pytest.fixture
def prepared(method, tiny, corpus):
    return method.prepare(tiny("llama"), corpus=corpus)


# --- what is made -------------------------------------------------------------------------


def test_several_rewrites_in_one_change(method, model, rewrites, corpus):
    """One rank per subject in every weight, and every prompt reacts."""
    delta = method(model, rewrites, prepared=method.prepare(model, corpus=corpus))
    assert all(change.rank == 3 for change in delta.changes.values())
    batch = model.tokens([rewrite.prompt for rewrite in rewrites])
    before = full_logits(model, batch)
    with applied(model, delta):
        moved = (full_logits(model, batch) - before)[:, -1].abs().amax(-1)
    assert (moved > 0.01).all()
    assert len(delta.provenance["search_steps"]) == 3


def test_a_deletion_goes_the_same_way(method, pocket):
    from labkit import pocket as world

    known = world.demo_case().rewrite
    gone = Deletion(subject=known.subject, template=known.template, target_true=known.target_true)
    batch = pocket.tokens([known.prompt])
    answer = pocket.tokenizer.convert_tokens_to_ids(known.target_true)
    before = full_logits(pocket, batch)[0, -1].softmax(-1)[answer]
    with applied(pocket, type(method)()(pocket, [gone])):
        # A soft method need not reach what its search found: AlphaEdit stays above a half.
        assert full_logits(pocket, batch)[0, -1].softmax(-1)[answer] < 0.75 * before


def test_the_order_of_subjects_is_of_no_account(method, tiny, rewrites, prepared):
    model = tiny("llama")
    some = [rewrites[0], rewrites[1], rewrites[3]]
    forth, back = (method(model, asked, prepared=prepared) for asked in (some, some[::-1]))
    for name, change in forth.changes.items():
        difference = back.changes[name].dense() - change.dense()
        assert difference.norm() < 0.05 * change.dense().norm()


# --- what is remembered -------------------------------------------------------------------


def test_memory_grows_by_a_key_a_subject_and_comes_back(method, tiny, rewrites, prepared, tmp_path):
    model = tiny("llama")
    first = method(model, rewrites[:3], prepared=prepared)
    with applied(model, first):
        second = method(model, rewrites[3:], prepared=prepared, after=first)
    assert second.on_top_of == first.digest
    assert {len(rows) for rows in first.memory.values()} == {2}
    total = first.then(second)
    again = WeightDelta.load(total.save(tmp_path / "total"))
    assert len(again.memory) == len(again.changes)
    for rows in again.memory.values():
        assert rows.shape == (3, model.d_mlp)


def test_a_later_edit_leaves_the_answer_to_an_earlier_key(method, tiny, rewrites, prepared):
    """With the earlier keys among the costs, `k_1 D_2` is a fraction of what it is without."""
    model = tiny("llama")
    careful = dataclasses.replace(method, weight=1e-3)
    prepared = dataclasses.replace(
        prepared, metrics={layer: scaled(m) for layer, m in prepared.metrics.items()}
    )
    first = careful(model, rewrites[:1], prepared=prepared)
    disturbed = {}
    for remember in (True, False):
        editor = dataclasses.replace(careful, remember=remember)
        with applied(model, first):
            second = editor(model, rewrites[3:], prepared=prepared, after=first)
        disturbed[remember] = sum(
            float((rows.double() @ values_as_rows(model, second, layer)).norm())
            for layer, rows in ((int(name.split(".")[1]), r) for name, r in first.memory.items())
        )
    assert disturbed[True] < 0.1 * disturbed[False]


def test_a_new_rewrite_of_a_subject_takes_the_place_of_the_earlier_one(
    method, tiny, rewrite, prepared
):
    """Else the earlier key would forbid what is asked now."""
    model = tiny("llama")
    again = dataclasses.replace(rewrite, target_new="a boat")
    first = method(model, [rewrite], prepared=prepared)
    with applied(model, first):
        kept = method(model, [again], prepared=prepared, after=first)
        free = dataclasses.replace(method, remember=False)(
            model, [again], prepared=prepared, after=first
        )
    for name, change in free.changes.items():
        difference = kept.changes[name].dense() - change.dense()
        assert difference.norm() < 0.05 * change.dense().norm()


# --- what is refused ----------------------------------------------------------------------


def test_rewrites_that_do_not_go_together_are_refused(method, tiny, rewrite):
    other = dataclasses.replace(rewrite, target_new="Paris")
    with pytest.raises(ContradictoryRewrites, match=r"Rome.*Paris"):
        method.require([rewrite, other])
    for rewrites in ([], [rewrite, rewrite]):
        with pytest.raises(InputError):
            method(tiny("llama"), rewrites)


def test_what_the_model_says_already_is_refused(method, pocket):
    from labkit import pocket as world

    known = world.demo_case().rewrite
    with pytest.raises(AlreadyTrue, match=known.subject):
        type(method)()(pocket, [dataclasses.replace(known, target_new=known.target_true)])


def test_a_subject_on_the_attention_sink_is_refused(method, tiny, prepared):
    sunk = Rewrite(subject="a", template="{} is in", target_new="Rome")
    model = tiny("gpt2")
    with pytest.raises(SubjectOnSink, match="first token"):
        method(model, [sunk])


def test_second_moments_of_another_model_are_refused(method, tiny, rewrite, prepared):
    with pytest.raises(FingerprintMismatch, match="measured on the model"):
        method(tiny("qwen2"), [rewrite], prepared=prepared)


def test_layers_that_were_not_prepared_are_refused(method, tiny, rewrite, prepared):
    field = {"layer": 2} if hasattr(method, "layer") else {"layers": (1, 2)}
    with pytest.raises(InputError, match=r"layers \[2\].*prepared for"):
        dataclasses.replace(method, **field)(tiny("llama"), [rewrite], prepared=prepared)


def test_second_moments_of_too_little_text_are_refused(method, tiny):
    short = Corpus(documents=("The cat sees a dog. The dog sees it.",), source="two sentences")
    few = dataclasses.replace(method, n_contexts=2)
    with pytest.raises(SingularSystem, match="too few for 64 neurons"):
        few.prepare(tiny("llama"), corpus=short)


def test_fields_that_mean_nothing_are_refused(method, tiny, rewrite):
    for field in ({"bare_weight": 2.0}, {"facts_share": -1.0}, {"weight": 0.0}):
        with pytest.raises(InputError):
            dataclasses.replace(method, **field)
    far = {"layer": 3} if hasattr(method, "layer") else {"layers": (2, 3)}
    with pytest.raises(LayerOutOfRange):
        dataclasses.replace(method, **far)(tiny("llama"), [rewrite])
    if not hasattr(method, "layer"):
        for layers in ((), (1, 0), (1, 1)):
            with pytest.raises(InputError, match="ascending"):
                dataclasses.replace(method, layers=layers)


def test_ctrl_c_between_two_layers_leaves_the_model_alone(
    method, tiny, rewrite, prepared, weights, changed, monkeypatch
):
    """The second measurement runs with the first layer written."""
    model = tiny("llama")
    before, calls = weights(model), []

    def measured(*args, **kwargs):
        calls.append(changed(model, before))
        if calls[-1]:
            raise KeyboardInterrupt
        return subject_states(*args, **kwargs)

    monkeypatch.setattr("editing.methods.closed_form.plan.subject_states", measured)
    if hasattr(method, "layer"):
        pytest.skip("one layer: nothing is written while measuring")
    with pytest.raises(KeyboardInterrupt):
        method(model, [rewrite], prepared=prepared)
    assert calls[-1] == {model.ffn_out_name(0)}
    assert changed(model, before) == set()


def scaled(metric):
    """A metric in which everything but remembered keys costs little."""
    field = "weight" if hasattr(metric, "weight") else "scale"
    return dataclasses.replace(metric, **{field: 1e-2 * getattr(metric, field)})


def values_as_rows(model, delta, layer):
    dense = delta.changes[model.ffn_out_name(layer)].dense().double()
    return dense.T if model.ffn_out_transposed(layer) else dense


def test_groups_are_subjects(rewrites):
    assert [len(group.requests) for group in grouped(rewrites)] == [2, 1, 1]
