"""Triggers, values and cards, against brute force and against neurons that were planted."""

import dataclasses
import logging
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from labkit.errors import (
    EmptyPrompt,
    FingerprintMismatch,
    InputError,
    LayerOutOfRange,
    NeuronOutOfRange,
    NotOneToken,
    WrongArgument,
)
from labkit.memories import (
    Triggers,
    activation_on,
    agreement,
    find_triggers,
    neuron_card,
    patterns,
    streaming,
    words_of,
    writers,
)
from labkit.memories.recurrence import MEASURES, _Reader, _shared
from labkit.memories.streaming import STRETCH, Best
from labkit.memories.trigger_search import cache_files
from labkit.memories.words import content_words
from labkit.running.execute import Execution
from labkit.text.corpus import Corpus
from labkit.text.streams import ReadingOptions, batches, pieces
from tests.reference import inputs_of

K, WINDOW = 4, 23


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    return tmp_path / "triggers"


@pytest.fixture
def few(corpus):
    """Two documents that begin alike, one that is short, and one with a single token."""
    one, two = corpus.documents[0][:150], corpus.documents[1][:70]
    return Corpus(documents=(one, two, one[:40] + two, "a"), source="a few")


def found(model, corpus, layers=(0, 2), k=K, progress=None, **more):
    how = ReadingOptions(**{"window": WINDOW} | more)
    return find_triggers(model, layers, corpus, how, k=k, progress=progress)


@torch.no_grad()
def by_hand(model, layer, corpus, k=K, window=WINDOW):
    """The plain model's activations, each text run alone.

    Returns {prefix: activations of all neurons}, and by neuron the k largest activations of
    its stronger sign, one per stretch and one per prefix.
    """
    every, stretches = {}, []
    for ids in map(model.ids, corpus.documents):
        for first in range(0, len(ids), window):
            text = ids[first : first + window]
            with inputs_of(model.ffn_proj(layer)) as seen:
                model.hf(torch.tensor([text]))
            prefixes = [tuple(text[: pos + 1]) for pos in range(len(text))]
            every |= dict(zip(prefixes, seen[0][0].double().numpy(), strict=True))
            for stop in range(len(text), 1, -STRETCH):
                stretches.append(prefixes[max(1, stop - STRETCH) : stop])

    def largest(neuron, sign):
        strongest = {
            max(stretch, key=lambda prefix: sign * every[prefix][neuron]) for stretch in stretches
        }
        values = sorted((sign * every[prefix][neuron] for prefix in strongest), reverse=True)
        return [sign * value for value in values if value > 0][:k]

    sides = [[largest(neuron, sign) for sign in (1, -1)] for neuron in range(model.d_mlp)]
    return every, [max(both, key=lambda values: abs(sum(values))) for both in sides]


def prefixes_of(triggers, layer, neuron):
    """{prefix: activation} of what was found, strongest first."""
    row = triggers.row(layer)
    found = {}
    for place, text in enumerate(triggers.text[row, neuron]):
        if text >= 0:
            start = triggers.starts[text]
            ids = triggers.token_ids[start : start + triggers.pos[row, neuron, place] + 1]
            found[tuple(ids.tolist())] = triggers.activation[row, neuron, place]
    return found


# --- triggers -----------------------------------------------------------------------------


def test_one_pass_finds_what_brute_force_finds(exact, few):
    triggers = found(exact, few, memory=1)  # one text per batch: everything has to be merged
    for layer in (0, 2):
        every, best = by_hand(exact, layer, few)
        for neuron, expected in enumerate(best):
            prefixes = prefixes_of(triggers, layer, neuron)
            assert list(prefixes.values()) == pytest.approx(expected, rel=1e-5)
            for prefix, activation in prefixes.items():
                assert activation == pytest.approx(every[prefix][neuron], rel=1e-5)


def test_neither_the_batches_nor_the_order_of_documents_matter(tiny, corpus, monkeypatch):
    model = tiny("gpt2", "float64")
    corpus = dataclasses.replace(corpus, documents=corpus.documents[:5])
    first = found(model, corpus, [1])
    monkeypatch.setattr("labkit.memories.trigger_search._read", lambda files: ({}, 0))
    turned = dataclasses.replace(corpus, documents=corpus.documents[::-1])
    for again in (found(model, corpus, [1], memory=1), found(model, turned, [1])):
        for neuron in range(model.d_mlp):
            expected = prefixes_of(first, 1, neuron)
            assert prefixes_of(again, 1, neuron) == pytest.approx(expected, rel=1e-9)


def test_candidates_may_come_in_any_order_and_ties_are_settled():
    rng = np.random.default_rng(0)
    n = 400
    columns = [
        rng.integers(0, 5, n),
        rng.integers(1, 12, n).astype(float),
        rng.integers(0, 60, n).astype(np.uint64),
        np.arange(n, dtype=np.int32),
        np.zeros(n, dtype=np.int32),
    ]
    columns[1] = (columns[2] * 7 % 11 + 1).astype(float)  # a prefix has one activation

    def kept(order, size):
        best = Best(5, 6)
        for first in range(0, n, size):
            best.offer(*(column[order[first : first + size]] for column in columns))
        return best.value, best.prefix, best.piece

    expected = kept(np.arange(n), n)
    for slot in range(5):
        some = {(-v, p) for s, v, p in zip(*columns[:3], strict=True) if s == slot}
        pairs = list(zip(-expected[0][slot], expected[1][slot], strict=True))
        assert pairs == sorted(some)[:6]
    for size in (1, 37):
        for left, right in zip(kept(rng.permutation(n), size), expected, strict=True):
            np.testing.assert_array_equal(left, right)


def test_what_is_held_does_not_grow_with_the_corpus(tiny, corpus, monkeypatch):
    """Every array that the pass keeps has k places per neuron, and batches are bounded."""
    model = tiny("llama")
    held, rows = [], []
    offer, init = Best.offer, Execution.__init__
    monkeypatch.setattr(
        Best,
        "offer",
        lambda self, *columns: offer(self, *columns) or held.append(self._held),
    )
    monkeypatch.setattr(
        Execution,
        "__init__",
        lambda self, model, batch: init(self, model, batch) or rows.append(batch.shape),
    )
    many = dataclasses.replace(corpus, documents=corpus.documents * 4)
    triggers = found(model, many, [0], k=2)
    assert triggers.n_tokens > 15 * 2 * WINDOW
    assert {array.shape for arrays in held for array in arrays} == {(2 * model.d_mlp, 2)}
    assert max(row * pos for row, pos in rows) <= 32 * WINDOW
    assert len(triggers.token_ids) <= model.d_mlp * 2 * (WINDOW + 1)


def test_only_the_blocks_below_are_run_and_nothing_is_unembedded(tiny, few):
    model = tiny("gpt2")
    ran = []
    modules = {"block 2": model.ffn_proj(2), "unembedding": model.unembed}
    handles = [
        module.register_forward_hook(lambda *args, name=name: ran.append(name))
        for name, module in modules.items()
    ]
    try:
        found(model, few, [0, 1])
    finally:
        for handle in handles:
            handle.remove()
    assert ran == []


def test_an_interrupted_pass_goes_on_where_it_was(tiny, few, cache, monkeypatch):
    """The same triggers, of the batches that were left; what it wrote down is removed."""
    model = tiny("llama")
    memory = 1  # a text per batch
    whole = found(model, few, memory=memory)
    n_batches = len(list(batches(model, few, window=WINDOW, memory=memory)))
    shutil.rmtree(cache)
    monkeypatch.setattr(streaming, "KEPT_EVERY", 0.0)
    told = []

    def interrupt(what, share):
        told.append(share)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(model, few, memory=memory, progress=interrupt)
    assert len(list(cache.iterdir())) == 1
    again = []
    resumed = found(model, few, memory=memory, progress=lambda what, share: again.append(share))
    assert n_batches > 3 and len(again) == n_batches - 2  # the third was not written down
    for name in ("activation", "text", "pos", "token_ids"):
        assert np.array_equal(getattr(whole, name), getattr(resumed, name))
    assert whole.n_tokens == resumed.n_tokens
    assert len(list(cache.iterdir())) == 2  # a file per layer, and no other


def test_a_neuron_that_was_made_to_fire_on_a_token_is_triggered_by_it(tiny, corpus):
    """Its input row is what the norm says of that token's embedding, its value unembeds another."""
    model = tiny("gpt2")
    token, written, neuron = model.ids(" the")[0], model.ids("x")[0], 7
    inner = model.blocks[0].mlp.c_fc
    keep = inner.weight.clone(), inner.bias.clone(), model.ffn_out(0).clone()
    with torch.no_grad(), inputs_of(inner) as seen:
        ids = model.tokens([corpus.documents[0][:300]]).ids
        model.hf(ids)
    ids = ids[0]
    read = seen[0][0]
    contrast = read[ids == token].mean(0) - read[ids != token].mean(0)
    try:
        with torch.no_grad():
            inner.weight[:, neuron] = 5 * contrast
            inner.bias[neuron] = -5 * float(contrast @ read[ids == token].mean(0)) / 2
            unembedding = model.unembed.weight
            model.ffn_out(0)[neuron] = (unembedding[written] - unembedding.mean(0)) * 9
        changed = dataclasses.replace(model, fingerprint="planted")
        triggers = found(changed, corpus, [0], k=8, window=64)
        assert (triggers.last_ids[0, neuron] == token).mean() > 0.8
        assert triggers.sign[0, neuron] == 1
        shares = patterns(changed, triggers, corpus).of(0, neuron)
        assert shares["last token"] > 0.8 > shares["neither"]
        card = neuron_card(changed, 0, neuron, triggers, prompt="in the mill")
        assert "'the'" in card.title and card.words.promoted[0] == "x"
        assert card.fires["token"][int(card.fires["activation"].argmax())] == " the"
    finally:
        with torch.no_grad():
            inner.weight.copy_(keep[0])
            inner.bias.copy_(keep[1])
            model.ffn_out(0).copy_(keep[2])


def test_the_shown_context_is_the_text_of_the_corpus(model, corpus):
    triggers = found(model, corpus, [1], window=200)
    for row in triggers.of(1, 3, context=200).itertuples():
        shown = row.before + row.token
        assert shown.removeprefix("<s>") in corpus.documents[row.document]
    frame = triggers.to_frame()
    mine = frame[frame["neuron"] == 3].reset_index(drop=True)
    shown = triggers.of(1, 3)
    assert list(mine["token"]) == list(shown["token"]) and any(mine["next"])
    for after, following in zip(shown["after"], mine["next"], strict=True):
        assert after.startswith(following) and bool(after) == bool(following)
    assert len(frame) == (triggers.text >= 0).sum()


def test_what_was_found_is_read_again(tiny, few, cache, monkeypatch):
    model = tiny("gpt2")
    first = found(model, few, [0, 2])
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr("labkit.memories.trigger_search.strongest", None)
    again = found(model, few, [2, 0])
    assert again.to_frame().equals(first.to_frame()) and again.n_tokens == first.n_tokens
    with pytest.raises(TypeError):
        found(model, few, [1])


def test_the_name_in_the_cache_changes_with_every_field(tiny, few):
    model = tiny("gpt2")
    other = dataclasses.replace(few, documents=(*few.documents, "One more."))
    usual = (model, 1, few, K, None, WINDOW)
    changed = [
        (dataclasses.replace(model, fingerprint="0" * 64), *usual[1:]),
        (dataclasses.replace(model, prepend_bos=True), *usual[1:]),
        (model, 2, *usual[2:]),
        (model, 1, other, *usual[3:]),
        (*usual[:3], 5, None, WINDOW),
        (*usual[:4], 100, WINDOW),
        (*usual[:5], 24),
    ]
    names = {cache_files(model, [layer], *more)[layer] for model, layer, *more in [usual, *changed]}
    assert len(names) == 1 + len(changed)


def test_a_damaged_file_is_looked_for_again(tiny, few, cache, caplog):
    model = tiny("gpt2")
    first = found(model, few, [1])
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        again = found(model, few, [1])
    assert again.to_frame().equals(first.to_frame()) and "damaged" in caplog.text


# --- what triggers have in common ---------------------------------------------------------


TOPICS = [[f"{topic}{word}" for word in "abcdefg"] for topic in "kelo muri tapa sivo".split()]
TOPICS += [[f"{topic}{word}" for word in "abcdefg"] for topic in "benu dola fipe goru".split()]
TOPICS += [[f"{topic}{word}" for word in "abcdefg"] for topic in "hime jato lune wego".split()]


@pytest.fixture
def topical():
    """Texts of twelve topics, each with five of its topic's words and the same last word."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join(
            [*rng.permutation(TOPICS[i % len(TOPICS)])[:5], str(rng.choice(["is", "of"])), "in"]
        )
        for i in range(240)
    ]
    return Corpus(documents=tuple(texts), source="twelve topics")


def planted(model, corpus, chosen, config):
    """Triggers of one neuron of one layer: the ends of some documents."""
    ids = [model.ids(document) for document in corpus.documents]
    flat = [token for some in ids for token in [*some, -1]]
    return Triggers(
        layers=(0,),
        activation=np.ones((1, len(chosen), len(chosen[0]))),
        text=np.array([chosen], dtype=np.int32),
        pos=np.array([[[len(ids[text]) - 1 for text in some] for some in chosen]], dtype=np.int32),
        token_ids=np.array(flat, dtype=np.int32),
        starts=np.cumsum([0, *(len(some) + 1 for some in ids)]),
        documents=np.arange(len(ids)),
        offsets=np.zeros(len(ids), dtype=np.int64),
        vocabulary={int(t): model.tokenizer.decode([t]) for t in set(flat) if t >= 0},
        n_tokens=len(flat),
        corpus=corpus.source,
        corpus_digest=corpus.digest,
        model=model.name,
        fingerprint=model.fingerprint,
        config=config,
    )


def test_a_topic_is_told_from_the_surface_and_both_from_chance(tiny, topical):
    model = tiny("gpt2")
    rng = np.random.default_rng(1)
    by_topic = np.arange(240).reshape(-1, len(TOPICS)).T
    chosen = [rng.permutation(some)[:8].tolist() for some in by_topic for _ in range(5)]
    mixed = [rng.permutation(240)[:8].tolist() for _ in range(64)]
    config = {"k": 8, "window": 256, "min_tokens": None}
    triggers = planted(model, topical, chosen + mixed, config)
    shares = patterns(model, triggers, topical).shares[:, 0]
    meant = shares[MEASURES.index("shared words")]
    assert meant[: len(chosen)].mean() > 0.8
    assert meant[len(chosen) :].mean() < 0.15
    np.testing.assert_allclose(shares[MEASURES.index("last token")], 1.0)  # all end in "in"
    np.testing.assert_allclose(shares[3:].sum(axis=0), 1.0)


def test_a_token_is_a_pattern_if_three_triggers_share_it_and_not_all_in_one_document():
    token = np.array([[7, 7, 7, 8, 8], [7, 7, 7, 8, -1], [-1, -1, -1, 9, 9]])
    document = np.array([[0, 0, 1, 2, 3], [0, 0, 0, 1, 2], [0, 1, 2, 3, 4]])
    expected = [[True] * 3 + [False] * 2, [False] * 5, [False] * 5]
    np.testing.assert_array_equal(_shared(token, document), expected)


def test_overlap_is_the_mean_cosine_with_prefixes_of_other_documents(tiny, topical):
    model = tiny("llama")
    texts = list(pieces(model, topical))
    rng = np.random.default_rng(2)
    text = rng.integers(0, 40, (6, 5))
    text[0, 1], text[0, 2], text[1, 4] = text[0, 0], text[0, 0], -1
    pos = np.array([[len(texts[i].ids) - 1 for i in some] for some in text])
    pos -= rng.integers(0, 9, pos.shape)
    found = _Reader(model, texts, content_words(model, topical, texts)).overlap(text, pos)

    n_with = Counter(word for document in topical.documents for word in set(document.split()))
    weight = {word: np.log(240 / n) for word, n in n_with.items() if n <= 24 and len(word) > 2}

    def words(i, at):
        shown = model.tokenizer.decode(texts[i].ids[1 : at - 1])
        return {word for word in shown.split() if word in weight}

    def cosine(a, b):
        sizes = [sum(weight[word] ** 2 for word in some) for some in (a, b, a & b)]
        return sizes[2] / np.sqrt(sizes[0] * sizes[1]) if sizes[2] else 0.0

    for neuron, place in np.ndindex(6, 5):
        others = [j for j in range(5) if text[neuron, j] not in (text[neuron, place], -1)]
        own = words(text[neuron, place], pos[neuron, place])
        cosines = [cosine(own, words(text[neuron, j], pos[neuron, j])) for j in others]
        expected = np.mean(cosines) if cosines and text[neuron, place] >= 0 else 0.0
        assert found[neuron, place] == pytest.approx(expected, abs=1e-12)
    assert found.max() > 0.1


def test_random_prefixes_are_at_chance(tiny, topical):
    model = tiny("llama")
    shared = patterns(model, found(model, topical, [0, 1, 2], window=64, k=8), topical)
    control = shared.to_frame().query("source == 'control' and measure == 'shared words'")
    assert (control["mean"] < 0.12).all() and len(control) == 3


def test_value_and_key_agree_where_the_value_writes_what_comes_next(tiny, topical):
    """Half of the layer's values are set to promote the token that followed."""
    model = tiny("gpt2")
    triggers = found(model, topical, [0], window=64)
    following, sign = triggers.next_ids[0, :, 0], triggers.sign[0]
    chosen = np.flatnonzero(following >= 0)[::2]
    keep = model.ffn_out(0).clone()
    try:
        unembedding = model.unembed.weight
        gain = model.final_norm.weight
        for neuron in chosen.tolist():
            direction = unembedding[following[neuron]] - unembedding.mean(0)
            model.ffn_out(0)[neuron] = int(sign[neuron]) * direction / gain
        result = agreement(model, triggers)
    finally:
        model.ffn_out(0).copy_(keep)
    assert (result.rank[0, chosen] == 0).mean() > 0.9
    (row,) = result.to_frame().to_dict("records")
    assert row["mean"] > 0.4 > row["chance"] and row["low"] < row["mean"] < row["high"]
    n = int((following >= 0).sum())
    assert row["n"] == n


@torch.no_grad()
def test_the_chance_of_agreement_is_the_mean_over_random_pairs(tiny, topical):
    model = tiny("llama")
    triggers = found(model, topical, [1], window=64)
    result = agreement(model, triggers, top=3)
    following, sign = triggers.next_ids[0, :, 0], triggers.sign[0]
    known = np.flatnonzero(following >= 0)
    normed = model.final_norm(model.ffn_out(1)[known] * torch.tensor(sign[known])[:, None] * 1e3)
    top = model.unembed(normed).topk(3).indices.numpy()
    agree = (top[:, None, :] == following[known][None, :, None]).any(-1)
    assert result.chance[0] == pytest.approx(agree.mean(), rel=1e-6)
    np.testing.assert_array_equal(result.rank[0, known] < 3, np.diagonal(agree))


# --- values -------------------------------------------------------------------------------


@torch.no_grad()
def test_words_are_those_of_norm_and_unembedding_without_their_biases(model):
    values = model.ffn_out(1)[4] * 1e3  # so large that the norm's epsilon is nothing
    zero = model.final_norm(torch.zeros_like(values)[None])
    logits = (model.final_norm(values[None]) - zero)[0] @ model.unembed.weight.T
    found = words_of(model, 1, 4, k=5)
    decode = model.tokenizer.decode
    assert found.promoted == tuple(decode([t]) for t in logits.topk(5).indices.tolist())
    assert found.suppressed == tuple(decode([t]) for t in (-logits).topk(5).indices.tolist())
    centred = logits - logits.mean()
    assert found.promoted_logits[0] == pytest.approx(centred.max().item(), rel=1e-3)
    assert found.probability[0] == pytest.approx(logits.softmax(-1).max().item(), rel=1e-3)


def test_the_writer_that_was_planted_is_found(tiny):
    model = tiny("llama")
    token, layer, neuron = model.ids("mill")[-1], 2, 11
    keep = model.ffn_out(layer)[neuron].clone()
    try:
        row = model.unembed.weight[token] - model.unembed.weight.mean(0)
        model.ffn_out(layer)[neuron] = row / model.final_norm.weight
        for by in ("z", "logit", "rank"):
            best = writers(model, token, by=by, k=3).to_frame().iloc[0]
            assert (best["layer"], best["neuron"], best["rank"]) == (layer, neuron, 0)
        assert len(writers(model, token, layers=[0, 1], k=500).to_frame()) == 2 * model.d_mlp
    finally:
        model.ffn_out(layer)[neuron] = keep


def test_writers_agree_with_words(model):
    """A token's logit and rank among writers are those among the neuron's own words."""
    table = writers(model, 40, k=3).to_frame()
    for row in table.itertuples():
        words = words_of(model, int(row.layer), int(row.neuron), k=model.d_vocab)
        assert words.promoted[int(row.rank)] == model.tokenizer.decode([40])
        assert words.promoted_logits[int(row.rank)] == pytest.approx(row.logit, rel=1e-4)
        spread = np.std(words.promoted_logits)
        assert row.z == pytest.approx(row.logit / spread, rel=1e-3)


# --- results and bad input ----------------------------------------------------------------


def test_a_prompt_shows_where_a_neuron_fires(model):
    with torch.no_grad(), inputs_of(model.ffn_proj(2)) as seen:
        model.hf(model.tokens(["in the mill"]).ids)
    frame = activation_on(model, 2, 9, "in the mill")
    np.testing.assert_allclose(frame["activation"], seen[0][0, :, 9], rtol=1e-5, atol=1e-6)
    assert "".join(frame["token"]).removeprefix("<s>") == "in the mill"


def test_results_come_back_as_they_were(tiny, few, tmp_path):
    model = tiny("llama")
    triggers = found(model, few, k=4)
    shared = patterns(model, triggers, few)
    card = neuron_card(model, 2, 3, triggers, patterns=shared, prompt="in the mill")
    for result in (triggers, shared, card, agreement(model, triggers), writers(model, 40)):
        again = type(result).load(result.save(tmp_path / type(result).__name__))
        pd.testing.assert_frame_equal(again.to_frame(), result.to_frame())
        assert again.title == result.title
        assert result.figure().layout.title.text and result._repr_html_()


def test_bad_input_is_refused_before_any_run(tiny, few, request, unchecked):
    model = tiny("llama")
    triggers = found(model, few)
    request.getfixturevalue("no_forward")
    for wrong in ({"k": 0}, {"window": 1}, {"window": 10**4}, {"min_tokens": 0}, {"layers": []}):
        with pytest.raises(InputError):
            found(model, few, **{"layers": [0], **wrong})
    with pytest.raises(LayerOutOfRange):
        found(model, few, [3])
    with pytest.raises(EmptyPrompt):
        found(tiny("gpt2"), Corpus(documents=("a", "b"), source="two letters"))
    with pytest.raises(WrongArgument, match="neuron is a whole number, not the text '7'"):
        words_of(model, 0, "7")
    for neuron in (-1, 64):
        for job in (words_of, neuron_card):
            with pytest.raises(NeuronOutOfRange):
                job(model, 0, neuron)
    with pytest.raises(NeuronOutOfRange):
        triggers.of(0, 64)
    for job in (words_of, neuron_card):
        with pytest.raises(LayerOutOfRange):
            job(model, 3, 0)
    with pytest.raises(LayerOutOfRange):
        triggers.of(1, 0)
    for token in ("the mill", "", model.d_vocab, -1):
        with pytest.raises(NotOneToken):
            writers(model, token)
    with pytest.raises(InputError):
        writers(model, 40, k=0)
    with pytest.raises(LayerOutOfRange):
        writers(model, 40, layers=[9])
    with pytest.raises(InputError):
        agreement(model, triggers, top=0)
    other = tiny("gpt2")
    for job in (patterns, agreement):
        with pytest.raises(FingerprintMismatch):
            job(other, triggers)
    with pytest.raises(FingerprintMismatch, match="another corpus"):
        patterns(model, triggers, dataclasses.replace(few, documents=("a b c",)))
    with pytest.raises(FingerprintMismatch):
        neuron_card(other, 0, 0, triggers)
