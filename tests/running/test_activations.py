"""Activations are what Hugging Face computes; what is written is used; no hook stays."""

import pytest
import torch

from labkit.errors import InputError, LayerOutOfRange
from labkit.models.anatomy import Site
from labkit.running.activations import capture, patched, patched_embedding, run_with_cache
from labkit.running.execute import Execution, freeze
from labkit.running.logits import read_logits
from tests.reference import full_logits, full_run, inputs_of, n_hooks, output_hook, random_batch

SITES = Site.__args__


def close(left, right):
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


# --- reading ------------------------------------------------------------------------------


@torch.no_grad()
def test_the_residual_stream_is_that_of_hugging_face(model):
    batch = random_batch(model, 9, 6)
    with capture(model, ["resid_pre", "resid_post"]) as seen:
        hidden = full_run(model, batch, output_hidden_states=True).hidden_states
    for layer in range(model.n_layers):
        assert torch.equal(seen["resid_pre", layer], hidden[layer])
        if layer + 1 < model.n_layers:  # the last one is shown behind the final norm
            assert torch.equal(seen["resid_post", layer], hidden[layer + 1])
    close(model.final_norm(seen["resid_post", model.n_layers - 1]), hidden[-1])


@torch.no_grad()
def test_parts_of_a_block_answer_as_their_modules_do(model):
    """Each output is what the module, called by hand on the captured input, gives."""
    batch = random_batch(model, 9)
    with capture(model, SITES) as seen:
        full_logits(model, batch)
    for layer in range(model.n_layers):
        at = {site: seen[site, layer] for site in SITES}
        block = model.blocks[layer]
        ffn = block.get_submodule(model.anatomy.ffn)
        close(ffn(at["ffn_in"]), at["ffn_out"])
        close(model.ffn_proj(layer)(at["ffn_key"]), at["ffn_value"])
        close(block.get_submodule(model.anatomy.attn_proj)(at["head_out"]), at["attn_out"])
        close(at["resid_pre"] + at["attn_out"] + at["ffn_out"], at["resid_post"])
        assert at["ffn_key"].shape == (1, 9, model.d_mlp)


@torch.no_grad()
def test_partial_runs_show_the_same_activations(model):
    batch = random_batch(model, 9, 9)
    with capture(model, SITES, layers=[1]) as full:
        full_logits(model, batch)
    run = Execution(model, batch, freeze(model, batch, length=4))
    with capture(model, SITES, layers=[1]) as part:
        run.forward(stop=2)
    assert set(part) == {(site, 1) for site in SITES}
    for key, tensor in part.items():
        close(tensor, full[key][:, 4:])


# --- writing ------------------------------------------------------------------------------


@torch.no_grad()
def test_what_is_written_last_is_what_the_head_reads(model):
    batch = random_batch(model, 7)
    stream = torch.randn(1, 7, model.d_model)
    with patched(model, {("resid_post", model.n_layers - 1): lambda out: stream}):
        close(full_logits(model, batch), model.unembed(model.final_norm(stream)))


@torch.no_grad()
@pytest.mark.parametrize("site", SITES)
def test_a_write_at_one_position_moves_that_position_and_later_ones(model, site):
    batch = random_batch(model, 8)
    before = full_logits(model, batch)

    def push(tensor):
        pushed = tensor.clone()
        pushed[:, 5, ::3] += 1.0  # not all alike: a layer norm would take it out again
        return pushed

    with patched(model, {(site, 1): push}), capture(model, ["resid_post"]) as seen:
        moved = (full_logits(model, batch) - before).abs().amax(-1)[0]
    with capture(model, ["resid_post"]) as unmoved:
        full_logits(model, batch)
    assert torch.equal(moved[:5], torch.zeros(5))
    assert (moved[5:] > 1e-5).all()
    assert torch.equal(seen["resid_post", 0], unmoved["resid_post", 0])
    assert not torch.equal(seen["resid_post", 1], unmoved["resid_post", 1])


@torch.no_grad()
def test_writing_what_is_there_changes_nothing(model):
    batch = random_batch(model, 9, 5)
    before = full_logits(model, batch)
    with patched(model, {(site, 1): torch.clone for site in SITES}):
        assert torch.equal(full_logits(model, batch), before)


@torch.no_grad()
def test_patches_reach_partial_runs(model):
    batch = random_batch(model, 8)
    change = {("ffn_key", 1): lambda key: key * 2}
    with patched(model, change):
        full = full_logits(model, batch)
        close(read_logits(model, Execution(model, batch).forward()), full)
    assert not torch.equal(full_logits(model, batch), full)


@torch.no_grad()
def test_a_patched_embedding_enters_the_first_block(model):
    batch = random_batch(model, 8)
    with inputs_of(model.blocks[0]) as before:
        full_logits(model, batch)
    with inputs_of(model.blocks[0]) as after, patched_embedding(model, lambda out: out + 1.0):
        full_logits(model, batch)
    close(after[0] - before[0], torch.ones_like(before[0]))


# --- nothing stays ------------------------------------------------------------------------


class Burst(Exception):
    pass


def burst(tensor):
    raise Burst


@pytest.mark.parametrize("interrupt", [Burst, KeyboardInterrupt])
def test_no_hook_is_left_after_an_exception(model, interrupt):
    batch = random_batch(model, 5)
    assert n_hooks(model) == 0
    with pytest.raises(interrupt), capture(model, SITES), patched_embedding(model, torch.clone):
        assert n_hooks(model) == len(SITES) * model.n_layers + 1
        raise interrupt
    assert n_hooks(model) == 0
    with pytest.raises(Burst), patched(model, {("attn_out", 0): torch.clone, ("ffn_in", 2): burst}):
        Execution(model, batch).forward()
    assert n_hooks(model) == 0


def test_a_site_that_does_not_exist_leaves_no_hook_of_those_before_it(model):
    with pytest.raises(LayerOutOfRange), capture(model, ["ffn_key"], layers=[0, 3]):
        pass
    with (
        pytest.raises(LayerOutOfRange),
        patched(model, {("ffn_key", 0): torch.clone, ("ffn_key", -1): torch.clone}),
    ):
        pass
    assert n_hooks(model) == 0


def test_an_unknown_site_is_refused(tiny, unchecked):
    with pytest.raises(InputError, match="unknown site"), capture(tiny("gpt2"), ["ffn"]):
        pass


# --- everything at once -------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(8,), (9, 5)], ids=["single", "padded"])
def test_everything_cached_is_what_the_bridge_caches(model, lengths):
    batch = random_batch(model, *lengths)
    logits, cache = run_with_cache(model, batch)
    padded = None if len(lengths) == 1 else batch.mask.long()
    expected_logits, expected = model.bridge.run_with_cache(batch.ids, attention_mask=padded)
    assert torch.equal(logits, expected_logits)
    assert set(cache.keys()) == set(expected.keys())
    for name in cache.keys():  # noqa: SIM118 - the cache is no mapping
        assert torch.equal(cache[name], expected[name]), name


@torch.no_grad()
def test_caching_everything_leaves_no_hook(model, monkeypatch):
    def points():
        hooks = sum(len(point._forward_hooks) for point in model.hook_points)
        return hooks, sum("forward" in vars(point) for point in model.hook_points)

    batch = random_batch(model, 6)
    before = points()
    assert before[1] == 0
    run_with_cache(model, batch)
    assert points() == before
    with pytest.raises(Burst), output_hook(model.bridge.blocks[1].mlp, burst):
        run_with_cache(model, batch)
    assert points() == before


def test_a_run_with_cache_takes_text(tiny):
    model = tiny("gpt2")
    texts = ["the cat", "of the old ship"]
    logits, cache = run_with_cache(model, texts)
    expected, _ = run_with_cache(model, model.tokens(texts))
    assert torch.equal(logits, expected) and cache["pattern", 0].shape[0] == 2
    assert torch.equal(run_with_cache(model, "the cat")[0], run_with_cache(model, ["the cat"])[0])
