"""Every partial run equals the same cells of a full run, and does less arithmetic."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labkit.errors import InputError
from labkit.running.execute import Execution, freeze, repeat_rows
from labkit.running.logits import next_token_logits, read_logits, rows_within
from tests.reference import (
    at_tokens,
    full_logits,
    full_run,
    n_hooks,
    output_hook,
    random_batch,
)

BATCHES = {"padded": (9, 6, 3), "alike": (7, 7), "single": (8,)}
N_LAYERS = 3


@pytest.fixture(params=["float32", "float64"])
def case(request, tiny, family):
    """A model and the largest difference that its precision excuses."""
    if request.param == "float32":
        return tiny(family), 1e-5
    return request.getfixturevalue("exact"), 1e-10


@pytest.fixture(params=BATCHES)
def lengths(request):
    return BATCHES[request.param]


def same(left, right, tolerance):
    """Equal but for rounding, as a share of the largest value."""
    scale = max(1.0, right.abs().max().item())
    torch.testing.assert_close(left, right, rtol=0, atol=tolerance * scale)


# --- the same numbers ---------------------------------------------------------------------


@torch.no_grad()
def test_stopping_early_gives_the_stream_at_that_block(case, lengths):
    model, tolerance = case
    batch = random_batch(model, *lengths)
    hidden = full_run(model, batch, output_hidden_states=True).hidden_states
    run = Execution(model, batch)
    for stop in range(N_LAYERS):
        same(at_tokens(run.forward(stop=stop), batch), at_tokens(hidden[stop], batch), tolerance)


@torch.no_grad()
def test_resuming_gives_the_logits_of_the_full_run(case, lengths):
    model, tolerance = case
    batch = random_batch(model, *lengths)
    full = at_tokens(full_logits(model, batch), batch)
    run = Execution(model, batch)
    for start in range(N_LAYERS + 1):
        resumed = run.forward(run.forward(stop=start), start=start)
        same(at_tokens(read_logits(model, resumed), batch), full, tolerance)


@torch.no_grad()
def test_a_frozen_prefix_leaves_the_rest_as_it_was(case, lengths):
    model, tolerance = case
    batch = random_batch(model, *lengths)
    full = full_logits(model, batch)
    whole = freeze(model, batch, length=batch.shape[1])
    for length in (1, 4, batch.shape[1] - 1):
        for prefix in (freeze(model, batch, length=length), whole.head(length)):
            run = Execution(model, batch, prefix)
            assert run.first == length
            middle = run.forward(stop=1)
            logits = read_logits(model, run.forward(middle, start=1))
            same(at_tokens(logits, batch), at_tokens(full[:, length:], batch), tolerance)


@torch.no_grad()
def test_logits_are_read_only_where_asked(case, lengths):
    model, tolerance = case
    batch = random_batch(model, *lengths)
    resid = Execution(model, batch).forward()
    full = full_logits(model, batch)
    for columns in ([-1], [-1, -3], [-2]):
        same(read_logits(model, resid[:, columns]), full[:, columns], tolerance)


@torch.no_grad()
@pytest.mark.parametrize("length", [0, 5], ids=["from the start", "behind a prefix"])
def test_rows_of_several_prompts_go_together(case, length):
    """Each row takes its own prompt's mask, angles and prefix, in any order and number."""
    model, tolerance = case
    batch = random_batch(model, 9, 6, 3)
    rows = torch.tensor([2, 0, 0, 1, 2])
    nudge = torch.randn(
        len(rows), model.d_model, generator=torch.Generator().manual_seed(1), dtype=model.dtype
    )
    run = Execution(model, batch, freeze(model, batch, length=length) if length else None)
    stream = run.forward(stop=1)[rows].clone()
    stream[:, 6 - length] += nudge
    logits = read_logits(model, run.forward(stream, start=1, rows=rows))

    picked = batch.ids[rows], batch.mask[rows]

    def push(out):
        out = out.clone()
        out[:, 6] += nudge
        return out

    with output_hook(model.blocks[0], push):
        full = full_logits(model, type(batch)(*picked))
    same(logits[:, 6 - length :], full[:, 6:], tolerance)


@torch.no_grad()
def test_one_prompt_serves_any_number_of_rows(case):
    """The masks, angles and prefix of a single prompt broadcast."""
    model, tolerance = case
    batch = random_batch(model, 8)
    scale = torch.tensor([1.0, 0.5, -1.0, 2.0], dtype=model.dtype)[:, None, None]
    with output_hook(model.blocks[1], lambda out: torch.cat([out[:, :4], out[:, 4:] * scale], 1)):
        full = full_logits(model, repeat_rows(batch, 4))
    for prefix in (None, freeze(model, batch, length=4)):
        run = Execution(model, batch, prefix)
        entering = run.forward(stop=2)
        skip = 4 - run.first
        stream = torch.cat([entering[:, :skip].expand(4, -1, -1), entering[:, skip:] * scale], 1)
        same(read_logits(model, run.forward(stream, start=2))[:, skip:], full[:, 4:], tolerance)


@torch.no_grad()
def test_one_prefix_serves_prompts_that_share_it(case):
    model, tolerance = case
    batch = random_batch(model, 8, 8, 8)
    batch.ids[:, :5] = batch.ids[0, :5]
    prefix = freeze(model, batch.rows([0]), length=5)
    tail = read_logits(model, Execution(model, batch, prefix).forward())
    same(tail, full_logits(model, batch)[:, 5:], tolerance)


def test_next_token_logits_do_not_depend_on_the_batch(case):
    """Prompts together = each alone, whatever the memory bound and the order."""
    model, tolerance = case
    batch = random_batch(model, 5, 9, 2, 7)
    with torch.no_grad():
        alone = [full_logits(model, batch.rows([row]))[0, -1] for row in range(4)]
    for memory in (1, 1 << 30):
        same(next_token_logits(model, batch, memory=memory), torch.stack(alone), tolerance)


# --- the same gradients -------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(9, 6, 7), (8, 8)], ids=["padded", "alike"])
@pytest.mark.parametrize("layer", range(N_LAYERS))
def test_gradients_of_a_partial_run_are_those_of_the_full_run(case, lengths, layer):
    """d loss / d (what the FFN writes at one position), resumed behind a prefix."""
    model, tolerance = case
    batch = random_batch(model, *lengths)
    column, target = 4, 17

    def gradient(logits_under):
        change = torch.full((model.d_model,), 0.1, dtype=model.dtype, requires_grad=True)

        def write(out, column):
            return torch.cat([out[:, :column], out[:, [column]] + change, out[:, column + 1 :]], 1)

        logits = logits_under(write)[:, [-(batch.shape[1] - column), -1]]
        loss = -logits.log_softmax(-1)[..., target].mean()
        (found,) = torch.autograd.grad(loss, change)
        return found

    def in_full(write):
        with output_hook(model.ffn_proj(layer), lambda out: write(out, column)):
            return full_logits(model, batch)

    def in_part(write):
        run = Execution(model, batch, freeze(model, batch, length=column))
        with torch.no_grad():
            entering = run.forward(stop=layer)
        with output_hook(model.ffn_proj(layer), lambda out: write(out, 0)):
            return read_logits(model, run.forward(entering, start=layer))

    expected = gradient(in_full)
    assert expected.abs().max() > 1e-4
    same(gradient(in_part), expected, tolerance)


# --- less arithmetic ----------------------------------------------------------------------


def flops(function) -> int:
    """Multiplications and additions of all matrix products in a call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_a_partial_run_costs_its_share_of_blocks_and_positions(model):
    n_positions, length = 24, 16
    batch = random_batch(model, n_positions, n_positions)
    body = flops(lambda: model.hf.base_model(batch.ids, use_cache=False))
    prefix = freeze(model, batch, length=length)
    stream = Execution(model, batch).forward(stop=2)
    tail = stream[:, length:]
    share_behind = (n_positions - length) / n_positions
    runs = {
        "nothing left out": (lambda: Execution(model, batch).forward(), 1.0),
        "stopped": (lambda: Execution(model, batch).forward(stop=1), 1 / 3),
        "resumed": (lambda: Execution(model, batch).forward(stream, start=2), 1 / 3),
        "behind a prefix": (lambda: Execution(model, batch, prefix).forward(), share_behind),
        "resumed behind a prefix": (
            lambda: Execution(model, batch, prefix).forward(tail, start=2),
            share_behind / 3,
        ),
    }
    for name, (run, share) in runs.items():
        assert flops(run) / body == pytest.approx(share, rel=0.1), name


def test_unembedding_costs_its_share_of_positions(model):
    stream = torch.randn(2, 24, model.d_model)
    everywhere = flops(lambda: read_logits(model, stream))
    assert everywhere == 2 * 2 * 24 * model.d_model * model.d_vocab
    assert flops(lambda: read_logits(model, stream[:, -1:])) * 24 == everywhere


# --- the model stays as it was ------------------------------------------------------------


def test_an_error_inside_a_run_leaves_the_model_as_it_was(model):
    batch = random_batch(model, 6)
    before = full_logits(model, batch)

    def burst(out):
        raise KeyboardInterrupt

    for site in (model.blocks[1], model.hf.get_input_embeddings(), model.unembed):
        with pytest.raises(KeyboardInterrupt), output_hook(site, burst):
            read_logits(model, Execution(model, batch).forward())
        assert n_hooks(model) == 0
    assert torch.equal(full_logits(model, batch), before)


def test_a_prefix_of_other_prompts_is_refused(model):
    padded, alike = random_batch(model, 9, 4), random_batch(model, 9, 9)
    with pytest.raises(InputError, match="other prompts"):
        Execution(model, alike, freeze(model, padded, length=6))
    with pytest.raises(InputError, match="nothing to run"):
        Execution(model, alike, freeze(model, alike, length=9))


def test_the_memory_bound_sets_the_number_of_rows(tiny):
    model = tiny("llama")
    assert rows_within(model, 100, memory=1) == 1
    few, many = rows_within(model, 100, 10**7), rows_within(model, 100, 10**8)
    assert 1 < few < many < 20 * few
