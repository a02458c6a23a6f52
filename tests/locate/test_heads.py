"""Blocked attention equals scores of -inf by hand; scores and readings find what was planted."""

import copy
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from labkit import pocket as world
from labkit.errors import EmptyTarget, InputError, LayerOutOfRange, SelfCheckFailed
from labkit.facts.fact import Fact
from labkit.locate.attention import head_kinds
from labkit.locate.attention.edges import Cuts, answer_when_blocked, head_mask, window_mask
from labkit.locate.attention.head_kinds import head_scores
from labkit.locate.attention.heads import HeadReport, head_report
from labkit.locate.attention.knockout import AttentionKnockout, sources
from labkit.locate.attention.knockout_of_many import average_knockouts
from labkit.locate.attention.knockout_result import (
    SOURCES,
    KnockoutAverage,
    KnockoutResult,
    costliest,
)
from labkit.locate.attention.patterns import AttentionPatterns, attention_patterns
from labkit.readout import direct_logit_attribution
from labkit.running.execute import Execution, freeze
from labkit.running.logits import read_logits
from labkit.running.prefixes import Prefix
from labkit.stats.intervals import over_units
from tests.reference import at_tokens, full_logits, random_batch, shows

FACT = Fact(subject="cat", template="the {} is in", object=" of")
N_LAYERS, N_HEADS = 3, 4


@contextmanager
def blocked_by_hand(model, edges):
    """Scores of -inf at (layer, head, key) from the last query, in full eager runs.

    Through the bridge's hook on the scores; but GPT-J's bridge does not listen to it, so
    there it is done inside transformers' own attention.
    """

    def cut(layer, scores):
        scores = scores.clone()
        for at, head, key in edges:
            if at == layer:
                scores[:, head, -1, key] = -torch.inf
        return scores

    if model.hf.config.model_type == "gptj":
        attentions = [block.attn for block in model.blocks]
        for layer, attn in enumerate(attentions):

            def narrowed(query, key, value, mask, layer=layer, own=attn._attn):
                n_heads, n_keys = query.shape[1], key.shape[-2]
                return own(query, key, value, cut(layer, mask.expand(-1, n_heads, -1, n_keys)))

            attn._attn = narrowed
        try:
            yield lambda batch: full_logits(model, batch)
        finally:
            for attn in attentions:
                del attn._attn
        return
    hooks = [
        (f"blocks.{layer}.attn.hook_attn_scores", lambda scores, hook, at=layer: cut(at, scores))
        for layer in range(model.n_layers)
    ]
    yield lambda batch: model.bridge.run_with_hooks(
        batch.ids, attention_mask=batch.mask.long(), fwd_hooks=hooks
    )


def cuts_of(edges_of_cuts, n_positions):
    """Cuts from (layer, head) pairs and positions."""
    heads = torch.zeros(len(edges_of_cuts), N_LAYERS, N_HEADS, dtype=torch.bool)
    keys = torch.zeros(len(edges_of_cuts), n_positions, dtype=torch.bool)
    for row, (pairs, positions) in enumerate(edges_of_cuts):
        for layer, head in pairs:
            heads[row, layer, head] = True
        keys[row, list(positions)] = True
    return Cuts(heads, keys)


# --- a mask in a partial run --------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(8,), (9, 6, 3)], ids=["single", "padded"])
@pytest.mark.parametrize("length", [0, 2], ids=["from the start", "behind a prefix"])
def test_a_mask_that_allows_everything_changes_nothing(model, lengths, length):
    batch = random_batch(model, *lengths)
    run = Execution(model, batch, freeze(model, batch, length=length) if length else None)
    everything = torch.ones(1, 1, 1, batch.shape[1], dtype=torch.bool)
    same, own = run.forward(attend=everything), run.forward()
    torch.testing.assert_close(at_tokens(same, batch), at_tokens(own, batch), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(8,), (9, 6, 3)], ids=["single", "padded"])
@pytest.mark.parametrize("length", [0, 1], ids=["from the start", "behind a prefix"])
def test_a_blocked_edge_is_a_score_of_minus_infinity(model, lengths, length):
    """In one head of one block, from the last query; all other queries are as they were."""
    batch = random_batch(model, *lengths)
    n = batch.shape[1]
    run = Execution(model, batch, freeze(model, batch, length=length) if length else None)
    attend = torch.ones(1, N_HEADS, n - length, n, dtype=torch.bool)
    attend[:, 2, -1, n - 2] = False
    stream = run.forward(run.forward(stop=1), start=1, stop=2, attend=attend)
    logits = read_logits(model, run.forward(stream, start=2))
    with blocked_by_hand(model, [(1, 2, n - 2)]) as full:
        expected = full(batch)[:, length:]
    clean = full_logits(model, batch)[:, length:]
    torch.testing.assert_close(
        at_tokens(logits, batch), at_tokens(expected, batch), rtol=0, atol=2e-5
    )
    change = (logits - clean).abs().amax(dim=-1)
    assert change[:, -1].max() > 1e-3
    assert change[:, :-1][batch.mask[:, length:-1]].max() < 2e-5


@torch.no_grad()
def test_what_stands_at_a_blocked_key_is_not_read(model):
    """No weight is left there: another key and value in its place make no difference."""
    batch = random_batch(model, 6)
    prefix = freeze(model, batch, length=5)

    def changed(states):
        out = states.clone()
        out[..., 3, :] = 100 * torch.randn(out[..., 3, :].shape, generator=torch.Generator())
        return out

    other = Prefix(
        tuple(map(changed, prefix.keys)), tuple(map(changed, prefix.values)), prefix.mask
    )
    runs = [Execution(model, batch, kept) for kept in (prefix, other)]
    attend = torch.ones(1, 1, 1, 6, dtype=torch.bool)
    attend[..., 3] = False
    assert torch.equal(*(run.forward(attend=attend) for run in runs))
    assert not torch.allclose(*(run.forward() for run in runs))


def test_attention_that_takes_no_mask_is_refused(tiny, monkeypatch):
    model = tiny("llama")
    run = Execution(model, model.tokens(["the cat"]))
    everything = torch.ones(1, 1, 1, model.tokens(["the cat"]).shape[1], dtype=torch.bool)
    monkeypatch.setattr(model.hf.config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(SelfCheckFailed, match="no mask"):
        run.forward(attend=everything)


# --- many cuts at once --------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 1 << 30], ids=["one by one", "together"])
def test_every_cut_is_what_blocking_by_hand_gives(model, memory):
    batch, answer = model.tokens([FACT.prompt]), 7
    last = batch.shape[1] - 1
    every = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
    planned = [
        ([(2, 1)], [1]),
        (every[:8], [1, 2, 3]),
        ([(1, 0), (2, 3)], [last]),
        (every, range(last)),
        ([], [1]),
        ([(0, 0)], []),
    ]
    found = answer_when_blocked(model, batch, answer, cuts_of(planned, last + 1), memory=memory)
    for value, (pairs, positions) in zip(found, planned, strict=True):
        edges = [(layer, head, key) for layer, head in pairs for key in positions]
        with blocked_by_hand(model, edges) as full, torch.no_grad():
            expected = full(batch)[0, -1].softmax(-1)[answer].item()
        assert value == pytest.approx(expected, abs=1e-6, rel=1e-4)


def test_cuts_that_mean_nothing_are_refused(tiny):
    model = tiny("llama")
    batch = model.tokens(["the cat"])
    with pytest.raises(InputError, match="blocks every position"):
        answer_when_blocked(
            model, batch, 7, cuts_of([([(0, 0)], range(batch.shape[1]))], batch.shape[1])
        )
    with pytest.raises(InputError, match="one prompt"):
        answer_when_blocked(model, random_batch(model, 3, 3), 7, cuts_of([([], [])], 3))
    with pytest.raises(InputError, match="no heads"):
        head_mask(model, [])
    with pytest.raises(InputError, match="head 4 of layer 0"):
        head_mask(model, [(0, 4)])
    with pytest.raises(LayerOutOfRange, match="layer 3"):
        head_mask(model, [(3, 0)])


def test_a_window_is_centred_and_cut_at_the_ends(pocket):
    layers = [window_mask(pocket, layer, 3).all(dim=1).nonzero()[:, 0] for layer in range(6)]
    assert [at.tolist() for at in layers] == [
        [0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [3, 4, 5],
        [4, 5],
    ]


# --- the knock-out of a fact --------------------------------------------------------------


def test_groups_of_tokens_are_those_of_the_prompt(tiny):
    model = tiny("llama")  # <s> the _ c a t _is _in
    batch, groups = sources(model, FACT)
    tokens = [model.tokenizer.decode([token]) for token in batch.ids[0].tolist()]
    assert "".join(tokens[pos] for pos in groups["subject"]).strip() == "cat"
    assert groups["last subject token"] == groups["subject"][-1:]
    assert groups["last token"] == (len(tokens) - 1,) and groups["first token"] == (0,)
    covered = [*groups["subject"], *groups["other tokens"], *groups["last token"]]
    assert sorted(covered) == list(range(len(tokens)))
    assert (
        sources(model, Fact(subject="cat", template="{} is in", object=None))[1]["subject"][0] > 0
    )


def test_every_cell_of_a_knock_out_is_its_cut(tiny):
    model = tiny("qwen2")
    result = AttentionKnockout(window=2, draws=3)(model, FACT)
    batch, groups = sources(model, FACT)
    answer = model.tokenizer(" of", add_special_tokens=False).input_ids[0]

    def by_hand(pairs, positions):
        edges = [(layer, head, key) for layer, head in pairs for key in positions]
        with blocked_by_hand(model, edges) as full, torch.no_grad():
            return full(batch)[0, -1].softmax(-1)[answer].item()

    assert result.clean == pytest.approx(by_hand([], []), rel=1e-4)
    for row, name in enumerate(SOURCES):
        for layer in range(N_LAYERS):
            window = [(at, head) for at in (layer - 1, layer) for head in range(N_HEADS)]
            expected = by_hand(window, groups[name])
            assert result.by_layer[row, layer] == pytest.approx(expected, rel=1e-4)
    assert result.by_head[2, 1] == pytest.approx(by_hand([(2, 1)], groups["subject"]), rel=1e-4)
    assert result.control.shape == (3, N_LAYERS)
    assert result.n_control == 2  # the subject has three tokens, but no more are left
    frame = result.to_frame().set_index(["source", "layer"])
    change = (result.by_layer[0, 1] - result.clean) / result.clean
    assert frame.loc[("subject", 1), "mean"] == pytest.approx(change)
    assert frame.loc[("subject", 1), ["low", "high"]].isna().all()  # one fact: no interval
    assert frame.loc[("random other tokens", 1), "n"] == 3


def test_the_control_blocks_other_tokens_and_depends_on_the_seed_alone(tiny):
    model, knockout = tiny("llama"), AttentionKnockout(draws=20)
    fact = Fact(subject="cat", template="is the {} of the thing in", object=None)
    _, groups = sources(model, fact)
    drawn = knockout._random_positions(model, fact, groups)
    assert all(len(set(positions)) == len(groups["subject"]) for positions in drawn)
    assert all(set(positions) <= set(groups["other tokens"]) - {0} for positions in drawn)
    assert len(set(drawn)) > 1
    assert drawn == knockout._random_positions(model, fact, groups)


def test_without_other_tokens_the_control_is_not_a_number(tiny):
    fact = Fact(subject="cat", template="{} is", object=" of")
    result = AttentionKnockout(draws=2)(tiny("gpt2"), fact)
    assert result.n_control == 0
    assert np.isnan(result.control).all() and np.isnan(result.by_head_control).all()
    assert np.isnan(result.by_layer[SOURCES.index("first token")]).all()
    assert np.isfinite(result.by_layer[0]).all() and np.isfinite(result.by_head).all()
    assert shows(result.figure(), result.change(result.by_layer)[0])
    assert shows(result.figure_heads(), result.change(result.by_head)[0].ravel())


def test_random_heads_sit_in_the_layers_of_the_chosen(tiny, monkeypatch):
    from labkit.locate.attention import knockout

    seen = []

    def keep(model, batch, answer, cuts, **_):
        seen.append(cuts)
        return np.zeros(len(cuts), dtype=np.float32)

    monkeypatch.setattr(knockout, "answer_when_blocked", keep)
    chosen = [(0, 1), (2, 0), (2, 3)]
    AttentionKnockout(draws=5).together(tiny("llama"), FACT, chosen)
    heads = seen[0].heads
    assert heads[0].nonzero().tolist() == [list(pair) for pair in chosen]
    assert (heads.sum(dim=2) == torch.tensor([1, 0, 2])).all()
    assert not (heads[1:] & heads[0]).any()
    assert len({tuple(one.flatten().tolist()) for one in heads[1:]}) > 1  # they are drawn


# --- the average over facts ---------------------------------------------------------------


def test_intervals_over_facts_leave_out_what_is_missing():
    draw = np.random.default_rng(0)
    values = draw.normal(0.3, 1.0, (200, 3))
    values[50:, 1] = np.nan
    values[1:, 2] = np.nan
    mean, low, high, n = over_units(values)
    assert n.tolist() == [200, 50, 1]
    assert mean[:2] == pytest.approx([values[:, 0].mean(), values[:50, 1].mean()])
    half = 1.96 * values[:, 0].std() / 200**0.5
    assert (mean[0] - low[0], high[0] - mean[0]) == pytest.approx((half, half), rel=0.1)
    assert high[1] - low[1] > 1.5 * (high[0] - low[0])
    assert mean[2] == values[0, 2] and np.isnan([low[2], high[2]]).all()
    assert all(np.isnan(x[0]) for x in over_units(np.full((4, 1), np.nan))[:3])


def test_the_costliest_heads_are_the_most_negative():
    by_head = np.array([[[0.0, -0.5], [-0.2, 0.9]], [[0.0, -0.1], [-0.8, 0.9]]])
    assert costliest(by_head, 3) == [(1, 0), (0, 1), (0, 0)]


@dataclass(frozen=True, kw_only=True)
class Spy(AttentionKnockout):
    """A knock-out that remembers which heads it was asked to block together."""

    asked: list = field(default_factory=list)

    def together(self, model, fact, heads):
        self.asked.append(list(heads))
        return super().together(model, fact, heads)


def test_the_heads_blocked_together_are_chosen_on_the_other_facts(tiny):
    model = tiny("llama")
    facts = [Fact(subject=s, template="the {} is in", object=" of") for s in ("cat", "dog", "ox")]
    spy = Spy(draws=2)
    average = average_knockouts(model, facts, method=spy, n_together=2)
    for index, asked in enumerate(spy.asked):
        others = np.delete(average.by_head, index, axis=0).mean(axis=0).ravel()
        assert asked == [divmod(int(cell), N_HEADS) for cell in others.argsort()[:2]]
    alone = AttentionKnockout(draws=2)(model, facts[1])
    np.testing.assert_allclose(average.by_layer[1], alone.change(alone.by_layer), atol=1e-6)
    assert average.to_frame().query("source == 'subject'")["n"].tolist() == [3] * N_LAYERS
    assert average.effect_together[0].n == 3
    with pytest.raises(InputError, match="two facts"):
        average_knockouts(model, facts[:1])
    with pytest.raises(InputError, match="not 13"):
        average_knockouts(model, facts, n_together=13)


def test_in_the_pocket_model_late_attention_to_the_subject_carries_the_fact(pocket):
    facts = [fact for fact in world.facts() if not fact.template.endswith("{}")][::25]
    average = average_knockouts(pocket, facts[:15])
    curves = average.to_frame().set_index(["source", "layer"])
    assert curves.loc[("subject", 4), "high"] < -0.8  # it is gone
    assert curves.loc[("subject", 1), "low"] > -0.05  # the first layers do not carry it
    assert curves.loc[("random other tokens", 4), "low"] > -0.2
    together, control = average.effect_together
    assert together.high < control.low


# --- refusals -----------------------------------------------------------------------------


def test_what_has_no_edge_to_block_is_refused(tiny, unchecked):
    model, knockout = tiny("gpt2"), AttentionKnockout()
    with pytest.raises(InputError, match="ends with its subject"):
        knockout(model, Fact(subject="the cat", template="{}", object=" of"))
    with pytest.raises(InputError, match="ends with its subject"):
        average_knockouts(model, [FACT, Fact.from_prompt("in the cat", "cat", " of")])
    with pytest.raises(InputError, match="one token"):
        knockout(model, Fact(subject="a", template="{}", object=" of"))
    with pytest.raises(EmptyTarget):
        knockout(model, Fact(subject="cat", template="the {} is in", object=" "))
    for wrong in ({"window": 0}, {"draws": 0}):
        with pytest.raises(InputError):
            AttentionKnockout(**wrong)


# --- previous-token, duplicate-token and induction heads ----------------------------------


def planted(monkeypatch, of_ids):
    """Every head of every layer gets the pattern that `of_ids` makes of a sequence."""

    def run(model, batch):
        patterns = torch.stack([of_ids(ids.tolist()) for ids in batch.ids])
        patterns = patterns[:, None].expand(-1, N_HEADS, -1, -1)
        return None, {f"blocks.{i}.attn.hook_pattern": patterns for i in range(N_LAYERS)}

    monkeypatch.setattr(head_kinds, "run_with_cache", run)


def nine_back(ids):
    """The token nine places before, or the first."""
    pattern = torch.zeros(len(ids), len(ids))
    for query in range(len(ids)):
        pattern[query, max(0, query - 9)] = 1
    return pattern


def looking_behind_the_copy(ids):
    """A hand-built induction head: behind the earlier copy, or at the first token."""
    pattern = torch.zeros(len(ids), len(ids))
    for query, token in enumerate(ids):
        copies = [key for key in range(query) if ids[key] == token]
        pattern[query, copies[-1] + 1 if copies else 0] = 1
    return pattern


def test_a_hand_built_induction_head_is_found(tiny, monkeypatch):
    planted(monkeypatch, looking_behind_the_copy)
    found = head_scores(tiny("llama"), length=10, n_sequences=3)
    by_kind = dict(zip(found.kinds, found.scores.mean(axis=(1, 2, 3)), strict=True))
    assert by_kind["induction"] == pytest.approx(1)
    assert by_kind["duplicate token"] == pytest.approx(0) and by_kind["previous token"] < 0.1
    assert found.control[found.kinds.index("induction")].max() == 0


def test_a_head_that_looks_a_fixed_way_back_scores_in_the_control_as_well(tiny, monkeypatch):
    planted(monkeypatch, nine_back)
    found = head_scores(tiny("gpt2"), length=10, n_sequences=2)
    at = found.kinds.index("induction")
    assert found.scores[at].min() == found.control[at].min() == pytest.approx(1)


def test_a_head_that_looks_at_everything_alike_scores_chance(tiny, monkeypatch):
    planted(monkeypatch, lambda ids: (t := torch.ones(len(ids), len(ids)).tril()) / t.sum(1, True))
    found = head_scores(tiny("llama"), length=7, n_sequences=2)
    for row, chance in enumerate(found.chance):
        assert found.scores[row] == pytest.approx(chance)
        assert found.control[row] == pytest.approx(chance)
    queries = range(8, 15)  # the second half, behind a BOS
    duplicate = found.chance[found.kinds.index("duplicate token")]
    assert duplicate == pytest.approx(np.mean([1 / (query + 1) for query in queries]))


def test_scores_are_those_of_the_model_and_of_the_seed(model):
    one, again = (head_scores(model, length=6, n_sequences=2) for _ in range(2))
    assert np.array_equal(one.scores, again.scores)
    assert not np.array_equal(
        one.scores, head_scores(model, length=6, seed=1, n_sequences=2).scores
    )
    assert (one.scores > 0).all() and (one.scores < 1).all()
    frame = one.to_frame().set_index(["kind", "layer", "head"])
    expected = one.scores[one.kinds.index("induction"), :, 2, 1].mean()
    assert frame.loc[("induction", 2, 1), "mean"] == pytest.approx(expected)
    assert one.top("induction", 1)[0] == frame.loc["induction"]["mean"].idxmax()
    assert len(one.figure().data) == 3


def test_sequences_that_do_not_fit_are_refused(tiny):
    model = tiny("llama")
    for wrong in ({"length": 1}, {"length": 128}, {"n_sequences": 0}):
        with pytest.raises(InputError, match="2..127"):
            head_scores(model, **wrong)
    with pytest.raises(InputError, match="no kind"):
        head_scores(model, length=5, n_sequences=1).top("copying")


@pytest.mark.slow
def test_smollm2_has_induction_heads(smollm2):
    found = head_scores(smollm2, n_sequences=2)
    ((layer, head),) = found.top("induction", 1)
    at = found.kinds.index("induction")
    assert found.scores[at, :, layer, head].min() > 0.8
    assert found.control[at, :, layer, head].max() < 0.05


# --- patterns and the report --------------------------------------------------------------


def test_patterns_are_transformers_own(model):
    found = attention_patterns(model, FACT.prompt, layers=[2, 0])
    eager = copy.deepcopy(model.hf)
    eager.set_attn_implementation("eager")
    own = eager(model.tokens([FACT.prompt]).ids, output_attentions=True).attentions
    for row, layer in enumerate((2, 0)):
        np.testing.assert_allclose(found.patterns[row], own[layer][0].detach(), atol=1e-5)
    frame = found.to_frame()
    cell = frame.query("layer == 0 and head == 3 and query == 4 and key == 2")
    assert cell["weight"].item() == found.patterns[1, 3, 4, 2]
    weights = frame.groupby(["layer", "head", "query"])["weight"].sum()
    assert len(weights) == 2 * N_HEADS * len(found.tokens)
    np.testing.assert_allclose(weights, 1, atol=1e-5)


def test_patterns_that_nobody_could_look_at_are_refused(tiny, monkeypatch):
    model = tiny("gpt2")
    with pytest.raises(InputError, match="one token"):
        attention_patterns(model, "a")
    with pytest.raises(LayerOutOfRange):
        attention_patterns(model, "the cat", layers=[3])
    with pytest.raises(InputError, match="no layers"):
        attention_patterns(model, "the cat", layers=[])
    monkeypatch.setattr("labkit.plots.locate.attention.MAX_CELLS", 12 * 25)
    with pytest.raises(InputError, match="shorten the prompt to 5 tokens"):
        attention_patterns(model, "the cat is in the cat")


def test_the_report_holds_three_readings_of_every_head(model):
    facts = [FACT, Fact(subject="dog", template="the {} is in", object=" the")]
    report = head_report(model, facts, method=AttentionKnockout(draws=1))
    direct = direct_logit_attribution(model, FACT.prompt, " of", unit="head").set_index("component")
    for layer, head in ((0, 0), (2, 3)):
        expected = direct.loc[f"L{layer}H{head}", "logit"]
        assert report.direct[0, layer, head] == pytest.approx(expected, abs=1e-5)
    subject = list(sources(model, facts[1])[1]["subject"])
    weights = attention_patterns(model, facts[1].prompt).patterns[:, :, -1]
    np.testing.assert_allclose(report.attention[1], weights[:, :, subject].sum(-1))
    frame = report.to_frame()
    assert len(frame) == N_LAYERS * N_HEADS and frame["blocked"].is_monotonic_increasing
    first = frame.iloc[0]
    layer, head = int(first["layer"]), int(first["head"])
    assert first["blocked"] == pytest.approx(report.blocked[:, layer, head].mean(), abs=1e-6)
    assert first["direct"] == pytest.approx(report.direct[:, layer, head].mean(), abs=1e-6)
    agreement = report.agreement()
    assert len(agreement) == 3 and agreement["mean"].between(-1, 1).all()
    assert len(report.figure().data) == 3


def test_readings_that_rank_heads_alike_agree():
    values = np.arange(24.0).reshape(2, 3, 4)
    report = HeadReport(
        prompts=("a", "b"),
        answers=("x", "y"),
        direct=values**3,
        attention=values,
        blocked=values,  # high is unimportant here
        control=values * np.nan,
        model="by hand",
        fingerprint="0",
    )
    assert report.agreement()["mean"].tolist() == pytest.approx([1, -1, -1])


def test_a_report_without_facts_is_refused(tiny):
    with pytest.raises(InputError, match="no facts"):
        head_report(tiny("llama"), [])


def test_results_come_back_as_they_were_saved(tiny, tmp_path):
    model = tiny("gpt-neox")
    facts = [FACT, Fact(subject="dog", template="the {} is in", object=" the")]
    results = {
        KnockoutResult: AttentionKnockout(draws=1)(model, FACT),
        KnockoutAverage: average_knockouts(model, facts, method=AttentionKnockout(draws=1)),
        HeadReport: head_report(model, FACT),
        AttentionPatterns: attention_patterns(model, FACT.prompt),
        head_kinds.HeadScores: head_scores(model, length=5, n_sequences=2),
    }
    for kind, result in results.items():
        again = kind.load(result.save(tmp_path / kind.__name__))
        assert again.title == result.title
        assert again.to_frame().equals(result.to_frame())
        assert "text/html" in again._repr_mimebundle_()
