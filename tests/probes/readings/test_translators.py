"""Translators: the identity at the end, a planted map in the middle, quality on unseen text."""

import dataclasses

import numpy as np
import pytest
import torch

from labkit.errors import FingerprintMismatch, InputError
from labkit.metrics import kl_divergence
from labkit.running.execute import Execution
from labkit.running.logits import next_token_logits
from labkit.text.corpus import Corpus
from probes.cloze import translator_fit as module
from probes.cloze.translator_fit import TranslatorFit
from probes.cloze.translators import Translators, depths, lens_logits
from tests.reference import full_run, random_batch

QUICK = TranslatorFit(tokens=600, held_out=60)


@torch.no_grad()
def test_depths_are_hugging_faces_hidden_states(model):
    batch = random_batch(model, 7, 7)
    hidden = full_run(model, batch, output_hidden_states=True).hidden_states
    found = list(depths(Execution(model, batch)))
    assert len(found) == model.n_layers + 1
    for own, theirs in zip(found[:-1], hidden[:-1], strict=True):
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_last_depth_is_the_models_own_answer_with_either_lens(model, corpus):
    found = QUICK(model, corpus, cache=False)
    batch = random_batch(model, 9, 5)
    states = torch.stack([resid[:, -1] for resid in depths(Execution(model, batch))], dim=1)
    for translators in (None, found):
        logits = lens_logits(model, states, translators)
        torch.testing.assert_close(
            logits[:, -1], next_token_logits(model, batch), rtol=0, atol=1e-5
        )
    assert not torch.equal(lens_logits(model, states), lens_logits(model, states, found))


@torch.no_grad()
def test_they_are_closer_to_the_model_than_the_logit_lens_on_unseen_text(tiny, corpus):
    model = tiny("qwen2")
    found = QUICK(model, corpus, cache=False)
    logit, translated = found.divergence.mean(axis=1)
    assert (translated[:-1] < logit[:-1]).all()
    assert np.abs(translated[-1]) < 1e-6
    table = found.to_frame().set_index(["lens", "depth"])
    assert table.loc[("logit", 0), "mean"] == pytest.approx(logit[0])
    assert table.loc["logit", "agreement"].tolist() == pytest.approx(
        found.agreement[0].mean(axis=0)
    )
    assert table.loc[("translated", model.n_layers), "agreement"] == 1  # the model itself
    assert (table["n"] == 1).all()  # one text: no interval
    assert table[["low", "high"]].isna().all(axis=None)
    two = dataclasses.replace(
        found,
        divergence=np.concatenate([found.divergence, found.divergence + 1], axis=1),
        agreement=np.tile(found.agreement, (1, 2, 1)),
    )
    table = two.to_frame()
    assert (table["low"] < table["mean"]).all() and (table["mean"] < table["high"]).all()


def planted(n=400, depth=3, width=6, seed=0):
    """Token states whose last depth is a known map of each depth before."""
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(n, depth, width, generator=draw, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64))[0]
    states[:, -1] = states[:, 0] @ turn.T  # a rotation: norms, by which all is divided, stay
    return states, turn


def test_a_planted_rotation_is_recovered(monkeypatch):
    monkeypatch.setattr(module, "RIDGES", (1e-9, 1.0))
    states, turn = planted()
    fit, check = module._Moments(), module._Moments()
    fit.add(states[:300])
    check.add(states[300:])
    weight, bias, ridge = module._ridge(fit, check, 0)
    torch.testing.assert_close(weight + torch.eye(6), turn.to(weight), rtol=0, atol=1e-5)
    assert bias.abs().max() < 1e-5 and ridge == 1e-9


def test_the_closed_form_is_that_of_brute_force_and_the_ridge_is_the_best_on_the_others():
    states, _ = planted(seed=1)
    states[:, -1] += 3 * torch.randn(
        states[:, -1].shape, generator=torch.Generator().manual_seed(2)
    )
    fit, check = module._Moments(), module._Moments()
    fit.add(states[:60])
    check.add(states[60:])
    normed = states / states.square().mean(-1, keepdim=True).sqrt()
    x = torch.nn.functional.pad(normed[:, 1], (0, 1), value=1.0)
    r = normed[:, -1] - normed[:, 1]
    errors = {}
    for ridge in module.RIDGES:
        rows = torch.cat([x[:60], (60 * ridge) ** 0.5 * torch.eye(7)[:6].double()])
        targets = torch.cat([r[:60], torch.zeros(6, 6).double()])
        solution = torch.linalg.lstsq(rows, targets).solution
        errors[ridge] = float((x[60:] @ solution - r[60:]).square().sum()), solution
    best = min(errors, key=lambda ridge: errors[ridge][0])
    weight, bias, ridge = module._ridge(fit, check, 1)
    assert ridge == best
    torch.testing.assert_close(weight, errors[best][1][:6].T, rtol=0, atol=1e-5)
    torch.testing.assert_close(bias, errors[best][1][6], rtol=0, atol=1e-5)


def test_a_states_scale_does_not_matter_to_what_is_read(tiny, corpus):
    model = tiny("llama")
    found = QUICK(model, corpus, cache=False)
    states = torch.randn(2, model.n_layers + 1, model.d_model)
    torch.testing.assert_close(found(7 * states), 7 * found(states), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_reported_quality_is_a_mean_over_the_tokens_of_each_text(tiny, corpus, monkeypatch):
    model, texts = tiny("gpt2"), ("the house is on a hill", "a man of the sea")
    monkeypatch.setattr(module, "held_out", lambda model: texts)
    found = TranslatorFit(tokens=300)(model, corpus, cache=False)
    for row, text in enumerate(texts):
        run = Execution(model, model.tokens([text]))
        states = torch.stack([resid[0, 1:] for resid in depths(run)], dim=1)
        for place, lens in enumerate((None, found)):
            logits = lens_logits(model, states, lens)
            own = logits[:, -1:].expand_as(logits)
            kl = kl_divergence(own, logits).mean(dim=0)
            same = (own.argmax(-1) == logits.argmax(-1)).float().mean(dim=0)
            np.testing.assert_allclose(found.divergence[place, row], kl, atol=1e-5)
            np.testing.assert_allclose(found.agreement[place, row], same)


def test_they_are_cached_by_everything_they_depend_on(tiny, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    model = tiny("gpt2")
    first = QUICK(model, corpus)
    monkeypatch.setattr(TranslatorFit, "_fitted", None)  # whoever fits now fails
    again = QUICK(model, corpus)
    assert torch.equal(first.weight, again.weight) and first.ridge == again.ridge
    assert np.array_equal(first.divergence, again.divergence)
    other = Corpus(documents=corpus.documents[1:], source=corpus.source)
    for fit, text in ((TranslatorFit(tokens=500, held_out=60), corpus), (QUICK, other)):
        with pytest.raises(TypeError):
            fit(model, text)
    (file,) = (tmp_path / "translators").glob("*.safetensors")
    file.write_bytes(b"half a file")
    with pytest.raises(TypeError):
        QUICK(model, corpus)
    file.unlink()


def test_they_are_saved_drawn_and_refused_by_other_models(tiny, corpus, tmp_path):
    model = tiny("gpt2")
    found = QUICK(model, corpus, cache=False)
    loaded = Translators.load(found.save(tmp_path / "translators"))
    assert torch.equal(loaded.weight, found.weight)
    lines = {data.name: data for data in loaded.figure().data if data.name}
    assert np.allclose(lines["translated lens"].y, found.divergence[1].mean(axis=0))
    with pytest.raises(FingerprintMismatch):
        lens_logits(tiny("llama"), torch.randn(1, 4, 32), found)
    with pytest.raises(InputError, match="two are needed"):
        QUICK(model, Corpus(documents=("one text only",), source="one"), cache=False)
    with pytest.raises(InputError, match="at least 2"):
        TranslatorFit(tokens=0)
