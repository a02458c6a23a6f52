"""A sweep is the evaluation of each layer, side by side, and never touches the model."""

import dataclasses

import numpy as np
import pytest
import torch

from editing.edits.requests import grouped
from editing.evaluation.many_cases import evaluate
from editing.evaluation.options import EvaluationOptions
from editing.layers.screening import ScreeningOptions, screen
from editing.layers.sweep import SweepOptions, at_layer, sweep_layers
from editing.layers.sweep_result import SCREENING, LayerSweep
from editing.layers.tuning_cases import known_cases
from editing.methods.closed_form.keys import contexts, group_keys, key_star, subject_keys
from editing.methods.closed_form.prepared import Prepared, moments
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.solve import Occurring
from editing.presets.preset_files import preset, write_preset
from editing.readings.asking import ask, shares
from labkit.errors import InputError, LayerOutOfRange
from labkit.running.activations import capture
from tests.editing.conftest import FAST


@pytest.fixture
def fast():
    return ROME(**FAST["rome"] | {"n_contexts": 1}, facts_share=0.0)


def edited(found):
    return found.table[found.table["state"] != SCREENING]


# --- editing ------------------------------------------------------------------------------


def test_each_layer_is_what_evaluate_says_there(tiny, case, fast, weights, changed):
    model = tiny("llama")
    before = weights(model)
    told = []
    found = sweep_layers(
        model, [case], [2, 0, 0], fast, progress=lambda stage, share: told.append((stage, share))
    )
    assert sorted(set(found.table["layer"])) == [0, 2]
    for layer in (0, 2):
        alone = evaluate(
            model, dataclasses.replace(fast, layer=layer), [case], EvaluationOptions(n_tokens=0)
        )
        rows = edited(found)[edited(found)["layer"] == layer].drop(columns="layer")
        expected = alone.to_frame()
        assert rows.reset_index(drop=True)[expected.columns].equals(expected)
    assert not changed(model, before)
    shares_told = [share for _, share in told]
    assert shares_told == sorted(shares_told) and 0 <= shares_told[0] <= shares_told[-1] <= 1
    assert {"layer 0", "layer 2"} <= {stage.split(",")[0] for stage, _ in told}


def test_layers_left_out_are_gaps(tiny, case, fast):
    model = tiny("gpt2")
    found = sweep_layers(model, [case], [1], fast)
    profile = found.by_layer("efficacy")
    assert len(profile) == model.n_layers and list(np.flatnonzero(np.isfinite(profile))) == [1]
    with pytest.raises(InputError, match="no 'novelty'"):
        found.by_layer("novelty")


def test_a_sweep_is_saved_and_drawn(tiny, case, fast, tmp_path):
    found = sweep_layers(tiny("llama"), [case], [0, 1], fast)
    loaded = LayerSweep.load(found.save(tmp_path / "sweep"))
    assert loaded.table.equals(found.table)
    lines = {trace.name: trace for trace in found.figure().data if trace.name}
    assert list(lines["efficacy"].y) == list(found.by_layer("efficacy")[:2])


def test_only_the_candidates_are_edited_and_they_have_the_widest_margins(tiny, case, fast):
    model = tiny("llama")
    found = sweep_layers(model, [case], None, fast, SweepOptions(n_candidates=2))
    margin = found.margin()
    assert np.isfinite(margin).all()
    tried = np.flatnonzero(np.isfinite(found.by_layer("efficacy")))
    assert set(tried) == set(np.argsort(-margin)[:2])


def test_a_corpus_is_behind_the_screening_as_behind_the_edits(tiny, case, corpus):
    """Contexts and `C` of the screening are those that the edits are made with."""
    model, method = tiny("llama"), ROME(**FAST["rome"] | {"n_contexts": 3})
    found = sweep_layers(model, [case], [1], method, SweepOptions(corpus=corpus))
    screened = found.table[found.table["state"] == SCREENING].set_index("metric")["mean"]
    before = contexts(corpus, 3, seed=0)
    prepared = method.prepare(model, corpus=corpus)
    assert prepared.contexts == before != method.prepare(model).contexts
    own = screen(model, [case], [1], before, ScreeningOptions(facts_share=0.0, corpus=corpus))
    assert screened.to_dict() == own.set_index("metric")["mean"].to_dict()


def test_a_killed_sweep_goes_on_where_it_stopped(tiny, case, fast, tmp_path, monkeypatch):
    model = tiny("llama")
    whole = sweep_layers(model, [case], [0, 1], fast)

    def stop(stage, share):
        if stage.startswith("layer 1, case"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_layers(model, [case], [0, 1], fast, run=tmp_path / "run", progress=stop)
    edits = []
    call = ROME.__call__
    monkeypatch.setattr(
        ROME, "__call__", lambda self, *a, **m: edits.append(self.layer) or call(self, *a, **m)
    )
    resumed = sweep_layers(model, [case], [0, 1], fast, run=tmp_path / "run")
    assert edits == [1]
    assert resumed.table.equals(whole.table)


@pytest.mark.parametrize(
    "wrong",
    [{"layers": []}, {"cases": []}, {"method": object()}, {"how": SweepOptions}],
    ids=["layers", "cases", "method", "options"],
)
def test_what_cannot_be_swept_is_refused(tiny, case, fast, wrong, unchecked):
    arguments = {"cases": [case], "layers": [0], "method": fast} | wrong
    with pytest.raises(InputError):
        sweep_layers(tiny("llama"), **arguments)


def test_a_sweep_without_candidates_or_shares_is_refused(unchecked):
    with pytest.raises(InputError, match="n_candidates 0"):
        SweepOptions(n_candidates=0)
    with pytest.raises(InputError, match="facts_share 2"):
        ScreeningOptions(facts_share=2)


def test_a_wrong_layer_is_refused(tiny, case, fast):
    with pytest.raises(LayerOutOfRange):
        sweep_layers(tiny("llama"), [case], [99], fast)


def test_a_method_of_several_layers_is_swept_one_at_a_time():
    @dataclasses.dataclass(frozen=True)
    class Several:
        layers: tuple[int, ...] | None = None

    assert at_layer(Several((1, 2)), 4) == Several((4,))
    assert at_layer(ROME(layer=1), 4) == ROME(layer=4)


# --- screening ----------------------------------------------------------------------------


def test_the_screening_is_the_share_of_an_edit_that_other_keys_are_answered_with(tiny, case):
    """Hit and leak by hand, from an edit's own change of the weight."""
    model, layer = tiny("llama"), 1
    method, before = ROME(layer=layer), ("", "The sea is blue.", "A king.")
    found = moments(model, [layer], 0.0)
    prepared = Prepared(before, {layer: Occurring(found[layer])}, found)
    delta = method(model, [case.rewrite], prepared=prepared)
    (k_star,) = group_keys(model, grouped([case.rewrite]), layer, before, method.bare_weight)
    (change,) = (found.dense().double() for found in delta.changes.values())
    whole = change @ k_star  # what k* itself is answered with

    def answered(prompt, stop=None):
        with torch.no_grad(), capture(model, ["ffn_key"], [layer]) as seen:
            model.hf(torch.tensor([model.ids(prompt)[:stop]]))
        return (seen["ffn_key", layer][0].double() @ change.T) @ whole / (whole @ whole)

    ends = [model.span(p, case.rewrite.subject).last + 1 for p in case.paraphrases]
    hit = np.mean([answered(p, end)[-1] for p, end in zip(case.paraphrases, ends, strict=True)])
    leak = np.mean([answered(near.prompt).abs().max() for near in case.neighbours])
    found = screen(model, [case], [layer], before, ScreeningOptions(facts_share=0.0)).set_index(
        "metric"
    )["mean"]
    assert found["hit"] == pytest.approx(hit, abs=1e-3)
    assert found["leak"] == pytest.approx(leak, abs=1e-3)
    assert found["margin"] == pytest.approx(hit - leak, abs=1e-3)


def test_the_screening_works_for_every_family(model, case):
    found = screen(
        model, [case], range(model.n_layers), ("", "The sea."), ScreeningOptions(facts_share=0.0)
    )
    assert len(found) == 3 * model.n_layers
    assert np.isfinite(found["mean"]).all()


def test_the_key_itself_is_hit_in_full(tiny, case):
    model = tiny("llama")
    alone = dataclasses.replace(case, paraphrases=(case.rewrite.prompt,))
    found = screen(model, [alone], [1], ("",), ScreeningOptions(facts_share=0.0)).set_index(
        "metric"
    )["mean"]
    assert found["hit"] == pytest.approx(1.0, abs=1e-6)
    keys = subject_keys(model, [case.rewrite], 1, ("",))
    w = moments(model, [1], 0.0)[1].solve(key_star(keys, 0.5))
    assert torch.isfinite(w).all()


# --- what is found ------------------------------------------------------------------------


def test_on_the_pocket_model_the_planted_layer_is_found_and_then_used(
    pocket, tmp_path, monkeypatch
):
    """Its facts are read at the subject's last token early on: layer 0 edits best there."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    found = sweep_layers(
        pocket, known_cases(pocket, 4), method=ROME(n_contexts=2), how=SweepOptions(keep=True)
    )
    assert (found.layer, found.n_cases) == (0, 4)
    assert found.margin()[0] > found.margin()[[4, 5]].max() + 0.1
    assert set(np.flatnonzero(np.isnan(found.by_layer()))) == {4, 5}
    assert 0 in found.layers and len(found.layers) == 3
    here = preset(pocket)
    assert (here.layer, here.measured) == (0, True) and here.source.startswith("sweep of pocket")
    assert ROME().layer_for(pocket) == 0
    write_preset(pocket, "rome", dataclasses.replace(here, layer=1))
    delta = ROME(n_contexts=2)(pocket, [known_cases(pocket, 1)[0].rewrite])
    assert list(delta.changes) == [pocket.ffn_out_name(1)]


def test_the_cases_are_facts_that_the_model_knows_and_a_new_object(pocket):
    cases = known_cases(pocket, 12, seed=3)
    assert len({case.case_id for case in cases}) == 12
    assert known_cases(pocket, 12, seed=3) == cases != known_cases(pocket, 12, seed=4)
    unedited = [shares(ask(pocket, case, n_tokens=0)) for case in cases]
    assert np.mean([one["success"]["efficacy"] for one in unedited]) < 0.2
    assert all(case.neighbours and case.paraphrases for case in cases)
