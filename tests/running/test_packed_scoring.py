"""What is shared changes nothing, and nothing that could be shared at a gain is run twice."""

from itertools import combinations

import numpy as np
import pytest
import torch

from labkit.errors import EmptyPrompt, InputError
from labkit.running.beginnings import RUN, hosts_of, n_shared
from labkit.running.logits import rows_within
from labkit.running.packing import ALIKE, FEW, TOKENS, filled, packed, packs
from labkit.running.scoring import read_next, score_ids


def n_run(rows, hosts):
    """Tokens that are run where some beginnings are run for themselves."""
    frozen = [max([0, *(n_shared(row, host) for host in hosts)]) for row in rows]
    own = sum(len(row) - n for row, n in zip(rows, frozen, strict=True))
    return own + sum(len(host) + RUN for host in hosts)


@pytest.mark.parametrize("seed", range(20))
def test_no_choice_of_beginnings_runs_fewer_tokens(seed):
    draw = np.random.default_rng(seed)
    stems = [tuple(draw.integers(2, size=40).tolist()) for _ in range(2)]
    rows = []
    for _ in range(7):
        stem = stems[int(draw.integers(2))][: int(draw.integers(41))]
        rows.append((*stem, *draw.integers(2, 9, size=int(draw.integers(1, 6))).tolist()))
    found = hosts_of(rows)
    assert sorted(n for served in found.values() for n, _ in served) == list(range(len(rows)))
    for host, served in found.items():
        assert all(rows[number][:length] == host[:length] for number, length in served)
    ours = sum(len(rows[n]) - length for served in found.values() for n, length in served)
    ours += sum(len(host) + RUN for host in found if host)
    beginnings = {a[: n_shared(a, b)] for a, b in combinations(rows, 2)} - {()}
    least = min(
        n_run(rows, chosen) for n in range(4) for chosen in combinations(sorted(beginnings), n)
    )
    assert ours == least


def tokens(draw, n):
    return tuple(int(token) for token in draw.integers(2, 250, size=n))


@pytest.fixture(scope="module")
def rows():
    """Beginnings that many rows share, that few share, that are parts of others; and none."""
    draw = np.random.default_rng(0)
    long, other, few = tokens(draw, 60), tokens(draw, 45), tokens(draw, 70)
    fronts = (
        [long] * 6 + [long[:40]] * 5 + [other] * 5 + [few] * 2 + [(*few[:50], 7)] * 2 + [()] * 3
    )
    return [(*front, *tokens(draw, 1 + n % 4)) for n, front in enumerate(fronts)]


@torch.no_grad()
@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_logits_are_those_of_each_row_by_itself(exact, rows, memory):
    positions = [sorted({max(0, len(row) - 3), len(row) - 1}) for row in rows]
    seen = {}
    for read, logits in read_next(exact, rows, positions, memory=memory):
        seen |= dict(zip(read, logits, strict=True))
    assert sorted(seen) == [(row, pos) for row, own in enumerate(positions) for pos in own]
    for row, ids in enumerate(rows):
        logits = exact.hf(torch.tensor([ids]), use_cache=False).logits[0]
        for position in positions[row]:
            torch.testing.assert_close(seen[row, position], logits[position], rtol=0, atol=1e-8)


@torch.no_grad()
def test_continuations_are_scored_as_hugging_face_would(exact, rows):
    answers = [(5,), (5, 6), (5, 7, 8), (9, 6)]
    prompts = [*rows[:8], rows[-1]]
    found = score_ids(exact, prompts, [answers] * len(prompts))
    for prompt, scores in zip(prompts, found, strict=True):
        for answer, value, top in zip(answers, scores.log_prob, scores.argmax, strict=True):
            logits = exact.hf(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
            own = logits[len(prompt) - 1 : -1]
            each = own.log_softmax(-1)[range(len(answer)), list(answer)]
            assert value.item() == pytest.approx(each.sum().item(), abs=1e-8)
            assert top.item() == (own.argmax(-1).tolist() == list(answer))


def test_the_most_probable_token_must_be_one(tiny, rows, monkeypatch):
    """A model that finds two tokens likeliest, or gives no numbers, says neither."""
    model = tiny("gpt2")
    for best, wanted in (([5], True), ([5, 6], False), ([], False)):

        def logits(model, resid, best=best):
            out = torch.zeros(*resid.shape[:2], model.d_vocab)
            out[..., best] = 3.0
            return out if best else out * torch.nan

        monkeypatch.setattr("labkit.running.scoring.read_logits", logits)
        (scores,) = score_ids(model, rows[:1], [[(5,), (8,)]])
        assert scores.argmax.tolist() == [wanted, False]


def test_filling_up_does_not_reach_beyond_the_context(tiny):
    """A row behind a long beginning beside one behind a short: positions stay its own."""
    model, draw = tiny("gpt2"), np.random.default_rng(0)
    long, short = tokens(draw, 230), tokens(draw, 120)
    rows = [
        (*front, *tokens(draw, n)) for front, n in ((long, 3), (long, 2), (short, 55), (short, 56))
    ]
    seen = {read[0]: logits for read, own in read_next(model, rows, [[len(r) - 1] for r in rows])
            for read, logits in zip(read, own, strict=True)}  # fmt: skip
    for number, row in enumerate(rows):
        alone = model.hf(torch.tensor([row])).logits[0, -1]
        torch.testing.assert_close(seen[number], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", [1, 4 * 10**5, 1 << 30])
def test_packs_hold_every_row_once_within_their_bounds(tiny, memory):
    model = tiny("llama")
    lengths = np.random.default_rng(0).integers(1, 200, size=300).tolist()
    found = list(packs(lengths, model, memory))
    assert sorted(number for some in found for number in some) == list(range(300))
    for some in found:
        longest, shortest = (f(lengths[n] for n in some) for f in (max, min))
        assert len(some) == 1 or len(some) * longest <= TOKENS
        assert len(some) <= rows_within(model, longest, memory)
        if (len(some) - 1) * longest > FEW:
            assert shortest + 1 >= ALIKE * longest


def test_what_cannot_be_run_is_refused_before_anything_is(tiny):
    model = tiny("gpt2")
    with pytest.raises(EmptyPrompt):
        next(packed(model, [(1, 2), ()]))
    with pytest.raises(InputError, match="256"):
        next(packed(model, [(1, 2), (3,) * 257]))
    assert list(packed(model, [])) == []
    batch = filled(model, [(5, 6), (7,)])
    assert batch.mask.tolist() == [[True, True], [True, False]]
