"""An attribution is the slope of the exact trace, measured by hand-written hooks."""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labkit.errors import (
    EmptyTarget,
    FingerprintMismatch,
    InputError,
    NothingToTrace,
    SubjectNotFound,
)
from labkit.facts.fact import Fact
from labkit.locate.attributions.attribution import AttributionPatching, first_order
from labkit.locate.attributions.attribution_result import AttributionResult, TraceAgreement
from labkit.locate.attributions.pairs import attribution_pairs
from labkit.locate.traces.tracing import CausalTrace, Corruption, TraceResult
from labkit.running.execute import repeat_rows
from labkit.stats import generator
from tests.reference import full_logits, output_hook, outputs_of, shows

FACT = Fact(subject="cat", template="the {} is in", object=" of")
SAMPLES = 2
KINDS = ("resid", "ffn", "attn")


class ByHand:
    """P(answer) of full runs under a share of the noise, with a share of a state restored."""

    def __init__(self, model, fact, kind, noise=None):
        self.model, self.fact, self.kind = model, fact, kind
        self.span = model.span(fact.prompt, fact.subject)
        if noise is None:
            shape = (SAMPLES, len(self.span), model.d_model)
            draw = torch.randn(shape, generator=generator(0, "trace", fact.prompt, fact.subject))
            table = model.hf.get_input_embeddings()(torch.arange(model.d_vocab))
            noise = draw * 3 * table.std()
        self.noise = noise.to(model.dtype)
        self.batch = repeat_rows(model.tokens([fact.prompt]), len(noise))
        (self.answer,) = model.tokenizer(fact.object, add_special_tokens=False).input_ids
        self.sites = [model.site(self.site, layer)[0] for layer in range(model.n_layers)]
        self.clean, self.corrupted = self.states(0.0), self.states(1.0)

    @property
    def site(self):
        return {"resid": "resid_post", "ffn": "ffn_out", "attn": "attn_out"}[self.kind]

    def run(self, noise_share, moved=()):
        """P(answer); `moved` are (layer, pos, vector) added to a state."""

        def noisy(out):
            out = out.clone()
            out[:, self.span.start : self.span.stop] += noise_share * self.noise
            return out

        with ExitStack() as stack:
            stack.enter_context(output_hook(self.model.hf.get_input_embeddings(), noisy))
            for layer, pos, vector in moved:

                def move(out, pos=pos, vector=vector):
                    out = out.clone()
                    out[:, pos] += vector
                    return out

                stack.enter_context(output_hook(self.sites[layer], move))
            return full_logits(self.model, self.batch)[:, -1].softmax(-1)[:, self.answer]

    def states(self, noise_share):
        with ExitStack() as stack:
            seen = [stack.enter_context(outputs_of(site)) for site in self.sites]
            self.run(noise_share)
        return [outputs[0] for outputs in seen]

    def slope(self, layer, pos, points, step=1e-2):
        """Rate at which P(answer) grows from the corrupted towards the clean state.

        The step is that large because some families compute their norms in float32 only.
        """
        towards = (self.clean[layer] - self.corrupted[layer])[:, pos]
        gains = [
            self.run(share, [(layer, pos, step * towards)])
            - self.run(share, [(layer, pos, -step * towards)])
            for share in points
        ]
        return (torch.stack(gains).mean(0) / (2 * step)).numpy()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "points"), [(1, (1.0,)), (2, (0.75, 0.25))])
def test_every_cell_is_the_slope_of_the_exact_effect(exact, kind, steps, points):
    window = None if kind == "resid" else 1
    method = AttributionPatching(kind=kind, samples=SAMPLES, steps=steps, window=window)
    result = method(exact, FACT)
    hand = ByHand(exact, FACT, kind)
    expected = np.empty_like(result.effects)
    for pos, layer in np.ndindex(*result.effects.shape[1:]):
        expected[:, pos, layer] = hand.slope(layer, pos, points)
    np.testing.assert_allclose(result.corrupted, hand.run(1.0), rtol=1e-5)
    np.testing.assert_allclose(
        result.effects, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max()
    )
    assert np.abs(expected).max() > 1e-6  # there is something to attribute


def test_small_noise_makes_it_exact(exact):
    """Where the corruption is a small step, the trace itself is linear."""
    fact, small = FACT, {"noise": 1e-3, "samples": SAMPLES}
    trace = CausalTrace(**small)(exact, fact)
    result = AttributionPatching(**small)(exact, fact)
    np.testing.assert_allclose(result.corrupted, trace.corrupted, rtol=1e-5)  # the same draws
    effect = trace.cells.astype(float) - trace.corrupted[:, None, None].astype(float)
    np.testing.assert_allclose(result.effects, effect, atol=0.05 * np.abs(effect).max())
    agreement = result.agreement(trace)
    assert agreement.pearson.mean > 0.99 and agreement.spearman.mean > 0.9


@pytest.mark.parametrize("kind", ["ffn", "attn"])
def test_a_window_adds_up_the_layers_that_a_trace_restores_together(tiny, kind):
    model, trace = tiny("gpt2"), CausalTrace(kind=kind, window=2)
    single = AttributionPatching(kind=kind, samples=SAMPLES, window=1)(model, FACT).effects
    double = AttributionPatching(kind=kind, samples=SAMPLES, window=2)(model, FACT).effects
    for layer in range(model.n_layers):
        inside = [other for other in (layer - 1, layer) if other >= 0]
        np.testing.assert_allclose(
            double[..., layer], single[..., inside].sum(-1), rtol=1e-4, atol=1e-9
        )
    wide = AttributionPatching(kind=kind, samples=SAMPLES, window=10)(model, FACT).effects
    assert trace.window == 2
    np.testing.assert_allclose(wide[..., 0], single.sum(-1), rtol=1e-4, atol=1e-9)


def test_more_steps_lead_to_the_integral(tiny):
    """At the last state of the last layer alone the path and the effect are the whole answer."""
    model = tiny("llama", "float64")
    few, many, more = (
        AttributionPatching(samples=SAMPLES, steps=n)(model, FACT).effects for n in (8, 32, 64)
    )
    # The error falls with the square of the number of steps: here to a 16th.
    assert np.abs(many - more).max() < 0.1 * np.abs(few - more).max()


# --- the same by transformer_lens --------------------------------------------------------


def test_a_pair_of_prompts_gives_what_transformer_lens_gives(model):
    """Noise that turns one token into another is a corrupted prompt."""
    clean, corrupted = "the cat is in", "the dog is in"
    fact = Fact.from_prompt(clean, "cat", " of")
    batch, span = model.tokens([clean]), model.span(clean, "cat")
    embed = model.hf.get_input_embeddings()
    ids = model.tokens([corrupted]).ids[:, span.start : span.stop]
    noise = embed(ids) - embed(batch.ids[:, span.start : span.stop])
    pairs = attribution_pairs(model, [(clean, corrupted)], " of")
    hand = ByHand(model, fact, "ffn", noise)
    for kind, by_lens in (("ffn", pairs.ffn), ("attn", pairs.heads.sum(-1))):
        how, corrupt = AttributionPatching(kind=kind), Corruption(span, noise)
        grid = first_order(model, batch, corrupt, hand.answer, how)
        scale = np.abs(grid.effects).max()
        np.testing.assert_allclose(by_lens, grid.effects, rtol=1e-3, atol=1e-4 * scale)
        assert scale > 1e-6
    assert pairs.clean[0] == pytest.approx(grid.clean, rel=1e-4)
    assert pairs.corrupted[0] == pytest.approx(grid.corrupted[0], rel=1e-4)


def test_pairs_are_averaged_with_their_interval(tiny, tmp_path):
    model = tiny("gpt2")
    prompts = [("the cat is in", "the dog is in"), ("the cow is in", "the rat is in")]
    both = attribution_pairs(model, prompts, " of")
    alone = attribution_pairs(model, prompts[1:], " of")
    np.testing.assert_allclose(both.ffn[1], alone.ffn[0], rtol=1e-4, atol=1e-8)
    frame = both.to_frame()
    row = frame.query("kind == 'ffn' and pos == 2 and layer == 1").iloc[0]
    assert row["mean"] == pytest.approx(both.ffn[:, 2, 1].mean())
    assert row["low"] < row["mean"] < row["high"]
    n_positions = len(both.tokens)
    assert len(frame) == n_positions * (1 + model.n_layers * (model.n_heads + 1))
    again = type(both).load(both.save(tmp_path / "pairs"))
    assert np.array_equal(again.heads, both.heads) and "2 pairs" in both.title
    assert shows(both.figure(), [frame["mean"].max(), frame["mean"].min()])


def test_pairs_that_cannot_be_compared_are_refused(tiny):
    model = tiny("gpt2")
    with pytest.raises(InputError, match="tokens"):
        attribution_pairs(model, [("the cat is in", "the horse is in")], " of")
    with pytest.raises(InputError, match="same"):
        attribution_pairs(model, [("the cat is in", "the cat is in")], " of")
    with pytest.raises(InputError, match="pair"):
        attribution_pairs(model, [], " of")


# --- what the numbers do not depend on, and what they cost --------------------------------


def test_the_memory_bound_does_not_matter(tiny):
    model = tiny("gptj")
    whole = AttributionPatching(samples=3)(model, FACT)
    small = AttributionPatching(samples=3, memory=1)(model, FACT)
    np.testing.assert_allclose(small.effects, whole.effects, rtol=1e-3, atol=1e-8)


def test_before_the_noise_there_is_no_effect_and_the_model_asks_for_no_gradient(model):
    with torch.no_grad():  # a caller's own setting does not matter
        result = AttributionPatching(samples=1)(model, FACT)
    assert not result.effects[:, : result.subject_positions[0]].any()
    assert result.effects[:, result.subject_positions[0] :].any()
    assert all(p.grad is None and not p.requires_grad for p in model.hf.parameters())


def test_one_forward_and_one_backward_run_from_the_subject_on(tiny):
    model = tiny("llama")
    batch = model.tokens([FACT.prompt])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.hf.base_model(batch.ids, use_cache=False)
    of_a_position = counter.get_total_flops() / batch.shape[1]
    with FlopCounterMode(display=False) as counter:
        result = AttributionPatching(samples=SAMPLES)(model, FACT)
    run = batch.shape[1] - result.subject_positions[0]
    head = 2 * model.d_model * model.d_vocab
    predicted = (batch.shape[1] + 2 * SAMPLES * run) * of_a_position + (1 + 2 * SAMPLES) * head
    assert counter.get_total_flops() == pytest.approx(predicted, rel=0.15)


# --- agreement with the trace --------------------------------------------------------------


def pair_of_results(effects, cells, **changed):
    config = {"seed": 0, "samples": len(cells), "window": None, "noise": 3.0}
    shared = dict(
        prompt="a b c",
        subject="b",
        answer=" d",
        tokens=("a", " b", " c"),
        subject_positions=(1,),
        kind="resid",
        clean=0.9,
        model="by hand",
        fingerprint="0" * 64,
        config=config,
    )
    corrupted = np.full(len(cells), 0.1, dtype=np.float32)
    trace = TraceResult(**{**shared, **changed}, corrupted=corrupted, cells=np.float32(cells))
    result = AttributionResult(**shared, corrupted=corrupted, effects=np.float32(effects))
    return result, trace


def test_agreement_is_the_correlation_of_the_mean_effects(tmp_path):
    from scipy.stats import pearsonr, spearmanr

    draw = np.random.default_rng(0)
    effects = draw.normal(size=(6, 3, 5))
    cells = 0.1 + effects**3 + 0.3 * draw.normal(size=effects.shape)
    effects[:, 0] = 99  # before the subject: never looked at
    result, trace = pair_of_results(effects, cells)
    found = result.agreement(trace)
    x, y = effects[:, 1:].mean(0), (np.float32(cells) - np.float32(0.1))[:, 1:].mean(0)
    assert found.spearman.mean == pytest.approx(spearmanr(x.ravel(), y.ravel()).statistic)
    assert found.pearson.mean == pytest.approx(pearsonr(x.ravel(), y.ravel()).statistic, rel=1e-5)
    assert found.spearman_subject.mean == pytest.approx(spearmanr(x[0], y[0]).statistic)
    assert found.pearson_subject.mean == pytest.approx(pearsonr(x[0], y[0]).statistic, rel=1e-5)
    assert found.spearman.low < found.spearman.mean <= found.spearman.high <= 1
    assert found.spearman.n == 6
    row = found.to_frame().query("pos == 2 and layer == 3").iloc[0]
    assert (row.exact, row.approximate) == (pytest.approx(y[1, 3]), pytest.approx(x[1, 3]))
    again = TraceAgreement.load(found.save(tmp_path / "agreement"))
    assert again.title == found.title and np.array_equal(again.exact, found.exact)


def test_only_traced_cells_are_compared():
    cells = np.random.default_rng(1).uniform(size=(4, 3, 5))
    effects = np.random.default_rng(2).uniform(size=(4, 3, 5))
    result, trace = pair_of_results(effects, cells)
    cells[:, 2] = np.nan
    found = result.agreement(replace(trace, cells=np.float32(cells)))
    assert found.spearman.mean == found.spearman_subject.mean
    assert found.spearman.mean != result.agreement(trace).spearman.mean
    assert "5 cells" in found.title and len(found.figure().data) >= 2


def test_an_approximation_that_is_exact_agrees_fully():
    cells = np.random.default_rng(1).uniform(size=(4, 3, 5))
    result, trace = pair_of_results(cells - 0.1, cells)
    found = result.agreement(trace)
    for estimate in (found.spearman, found.pearson, found.spearman_subject, found.pearson_subject):
        assert estimate.mean == pytest.approx(1, abs=1e-5)
        assert not estimate.has_interval  # every resample of the draws agrees fully, too


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"fingerprint": "1" * 64}, FingerprintMismatch),
        ({"prompt": "a b d"}, InputError),
        ({"kind": "ffn"}, InputError),
        ({"answer": " e"}, InputError),
        ({"config": {"window": 3, "noise": 3.0}}, InputError),
        ({"config": {"window": None, "noise": 1.0}}, InputError),
        ({"config": {"window": None, "noise": 3.0, "severed": "ffn"}}, InputError),
    ],
)
def test_only_the_same_question_can_agree(changed, error):
    cells = np.random.default_rng(1).uniform(size=(4, 3, 5))
    result, trace = pair_of_results(cells, cells, **changed)
    with pytest.raises(error):
        result.agreement(trace)
    flat, trace = pair_of_results(np.zeros_like(cells), cells)
    with pytest.raises(InputError, match="correlation"):
        flat.agreement(trace)


# --- the result ----------------------------------------------------------------------------


def test_the_result_shows_its_cells_and_comes_back_as_it_was_saved(tiny, tmp_path):
    result = AttributionPatching(samples=3, kind="ffn", window=1)(tiny("qwen2"), FACT)
    frame = result.to_frame()
    assert frame.columns.tolist() == "pos token layer in_subject mean low high".split()
    pos, layer = result.peak()
    assert pos in result.subject_positions
    best = frame[frame.in_subject].sort_values("mean").iloc[-1]
    assert (best.pos, best.layer) == (pos, layer)
    assert result.indirect_effect(pos, layer).mean == pytest.approx(best["mean"], rel=1e-5)
    again = AttributionResult.load(result.save(tmp_path / "a"))
    assert np.array_equal(again.effects, result.effects) and again.title == result.title
    (heatmap,) = result.figure().data
    assert heatmap.z[pos][layer] == pytest.approx(best["mean"])
    assert heatmap.zmin == -heatmap.zmax


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "mlp"},
        {"noise": 0.0},
        {"samples": 0},
        {"steps": 0},
        {"window": 2},
        {"kind": "ffn", "window": 0},
    ],
)
def test_an_attribution_that_means_nothing_is_refused(wrong, unchecked):
    with pytest.raises(InputError):
        AttributionPatching(**wrong)


def test_nothing_to_attribute_is_refused(tiny):
    model, method = tiny("llama"), AttributionPatching(samples=1)
    with pytest.raises(SubjectNotFound):
        method(model, Fact.from_prompt("the cat is in", "dog"))
    with pytest.raises(NothingToTrace, match="one token"):
        method(model, Fact(subject="the", template="{}", object=" of"))
    with pytest.raises(NothingToTrace, match="whole prompt"):
        method(model, Fact(subject="the cat", template="{}", object=" of"))
    with pytest.raises(EmptyTarget):
        Fact(subject="cat", template="the {} is in", object=" ")


# --- models that know ----------------------------------------------------------------------


def test_in_the_pocket_model_integrated_gradients_find_what_the_trace_finds(pocket):
    """The model is all but certain, where plain gradients have little to say."""
    from labkit import pocket as world

    plain, integrated = [], []
    for fact in world.facts()[:90:30]:
        trace = CausalTrace(samples=6)(pocket, fact)
        for found, steps in ((plain, 1), (integrated, 5)):
            result = AttributionPatching(samples=6, steps=steps)(pocket, fact)
            found.append(result.agreement(trace).pearson_subject.mean)
    assert min(integrated) > 0.9
    assert np.mean(integrated) > np.mean(plain)


@pytest.mark.slow
def test_on_smollm2_it_follows_the_trace_at_a_hundredth_of_a_textbooks_arithmetic(smollm2):
    fact = Fact.from_prompt("The Eiffel Tower is located in the city of", "Eiffel Tower", "Paris")
    samples = 2
    with FlopCounterMode(display=False) as counter:
        result = AttributionPatching(samples=samples)(smollm2, fact)
    spent = counter.get_total_flops()
    batch = repeat_rows(smollm2.tokens([fact.prompt]), samples + 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        smollm2.hf(batch.ids)  # a textbook runs all of this for every cell
    n_cells = batch.shape[1] * smollm2.n_layers
    assert n_cells * counter.get_total_flops() > 100 * spent
    found = result.agreement(CausalTrace(samples=samples)(smollm2, fact))
    assert found.pearson.low > 0.5 and found.spearman_subject.low > 0.2
