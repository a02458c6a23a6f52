"""Second moments: one pass equals a computation by hand; the cache forgets nothing."""

import dataclasses
import logging

import pytest
import torch

from labkit.errors import (
    EmptyPrompt,
    InputError,
    LayerOutOfRange,
    MissingFile,
    SingularSystem,
)
from labkit.facts.bundled import bundled_facts
from labkit.facts.fact import fill
from labkit.running.execute import Execution
from labkit.text.corpus import Corpus, fact_prompts, sample
from labkit.text.moments import RIDGE, SecondMoment, cache_files, second_moments
from labkit.text.streams import ReadingOptions, packed
from tests.reference import inputs_of

ALL = 10**9
WINDOW = 23


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    return tmp_path / "moments"


@pytest.fixture
def few(corpus):
    """Two documents, one of them shorter than a window."""
    return Corpus(documents=(corpus.documents[0], corpus.documents[1][:20]), source="two documents")


@torch.no_grad()
def keys_by_hand(model, layer, corpus, window=WINDOW):
    """The key of every token, each piece of text run alone by the plain model."""
    keys = []
    for document in corpus.documents:
        ids = model.ids(document)
        for first in range(0, len(ids), window):
            with inputs_of(model.ffn_proj(layer)) as seen:
                model.hf(torch.tensor([ids[first : first + window]]))
            keys.append(seen[0][0].double())
    return torch.cat(keys)


def by_hand(model, layer, corpus, window=WINDOW):
    """E[k k^T] over every token."""
    keys = keys_by_hand(model, layer, corpus, window)
    return keys.T @ keys / len(keys), len(keys)


def measured(model, layers, corpus, *, equal_length=False, progress=None, **more):
    how = ReadingOptions(**{"min_tokens": ALL, "window": WINDOW} | more)
    return second_moments(model, layers, corpus, how, equal_length=equal_length, progress=progress)


def close(left, right):
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5 * right.abs().max().item())


# --- the numbers --------------------------------------------------------------------------


def test_streaming_gives_what_one_shot_by_hand_gives(model, few):
    found = measured(model, [1], few)[1]
    expected, n_keys = by_hand(model, 1, few)
    close(found.matrix, expected)
    assert (found.n_keys, found.layer, found.fingerprint) == (n_keys, 1, model.fingerprint)
    assert found.matrix.dtype == torch.float64 and found.source == "two documents"


def test_keys_of_equal_length_count_alike(tiny, few):
    """`C` of keys by hand, each of the median length; and the cache tells the two apart."""
    model = tiny("gpt2")
    plain = measured(model, [1], few)[1]
    found = measured(model, [1], few, equal_length=True)[1]
    keys = keys_by_hand(model, 1, few)
    lengths = keys.norm(dim=1, keepdim=True)
    expected = keys / lengths * lengths.square().median().sqrt()
    close(found.matrix, expected.T @ expected / len(keys))
    assert found.equal_length and not plain.equal_length and found.n_keys == plain.n_keys
    again = measured(model, [1], few, equal_length=True)[1]
    assert again.equal_length and torch.equal(again.matrix, found.matrix)
    with pytest.raises(InputError, match="equal length"):
        found.blended(plain, 0.5)


def test_what_fills_a_batch_up_is_not_counted(model, corpus):
    texts = tuple(" ".join(corpus.documents[0].split()[:n]) for n in (30, 31, 32))
    uneven = Corpus(documents=texts, source="three lengths")
    (batch,) = packed(model, uneven)
    assert not batch.mask.all()
    expected, n_keys = by_hand(model, 1, uneven, window=256)
    found = measured(model, [1], uneven, window=256)[1]
    close(found.matrix, expected)
    assert found.n_keys == n_keys == batch.mask.sum()


def test_several_layers_in_one_pass_are_those_of_one_at_a_time(model, few, monkeypatch):
    together = measured(model, [2, 0, 0], few)
    assert sorted(together) == [0, 2]
    monkeypatch.setattr("labkit.cache.read", lambda place: None)
    for layer in (0, 2):
        close(measured(model, [layer], few)[layer].matrix, together[layer].matrix)


def test_the_order_of_documents_does_not_matter(tiny, few):
    model = tiny("gpt2")
    turned = dataclasses.replace(few, documents=few.documents[::-1])
    close(measured(model, [1], turned)[1].matrix, measured(model, [1], few)[1].matrix)


def test_the_memory_bound_does_not_matter(tiny, few, monkeypatch):
    model = tiny("llama")
    loose = measured(model, [1], few)[1].matrix
    monkeypatch.setattr("labkit.cache.read", lambda place: None)
    close(measured(model, [1], few, memory=1)[1].matrix, loose)


def test_it_stops_reading_when_there_are_enough_keys(tiny, corpus):
    model = tiny("gpt2")
    by_default = second_moments(model, [0], corpus)[0].n_keys
    longest = max(len(model.ids(document)) for document in corpus.documents)
    assert 10 * model.d_mlp <= by_default < 10 * model.d_mlp + longest
    assert measured(model, [0], corpus, min_tokens=1)[0].n_keys == len(
        model.ids(corpus.documents[0])
    )


def test_only_the_blocks_below_are_run(tiny, few, monkeypatch):
    stops = []
    forward = Execution.forward
    monkeypatch.setattr(
        Execution,
        "forward",
        lambda self, **more: stops.append(more["stop"]) or forward(self, **more),
    )
    measured(tiny("gpt2"), [0, 1], few)
    assert set(stops) == {2}


def test_nothing_behind_the_key_is_run(tiny, few):
    model = tiny("llama")
    calls = []
    handle = model.ffn_proj(1).register_forward_hook(lambda *args: calls.append(args))
    try:
        measured(model, [0, 1], few)
    finally:
        handle.remove()
    assert not calls


def test_a_model_that_overflows_is_refused_and_nothing_cached(tiny, few, cache):
    model = tiny("llama")
    weight = model.ffn_out(0)
    before = weight.clone()
    try:
        weight[0, 0] = torch.inf
        with pytest.raises(SingularSystem, match="not finite"):
            measured(model, [1], few)
    finally:
        weight.copy_(before)
    assert not cache.exists() or not list(cache.iterdir())


# --- blending -----------------------------------------------------------------------------


def test_a_blend_of_two_corpora_is_the_second_moment_of_their_mixture(tiny, few):
    model = tiny("llama")
    first, second = (dataclasses.replace(few, documents=(text,)) for text in few.documents)
    one, other = (measured(model, [1], corpus)[1] for corpus in (first, second))
    both = measured(model, [1], few)[1]
    blend = one.blended(other, other.n_keys / both.n_keys)
    close(blend.matrix, both.matrix)
    assert blend.n_keys == both.n_keys


def test_only_moments_that_belong_together_are_blended(tiny, few):
    lower, upper = measured(tiny("llama"), [0, 1], few).values()
    for other, share in ((upper, 0.5), (lower, 1.5)):
        with pytest.raises(InputError):
            lower.blended(other, share)


def test_fact_prompts_ask_for_every_bundled_fact_once_in_varying_words(tiny):
    prompts = fact_prompts(tiny("llama")).documents
    facts = bundled_facts()
    assert len(prompts) == len(facts)
    canonical = {fact.prompt for fact in facts}
    assert 0.1 < len(canonical & set(prompts)) / len(canonical) < 0.9
    allowed = {fill(t, fact.subject) for fact in facts for t in (fact.template, *fact.paraphrases)}
    assert set(prompts) <= allowed


# --- solving ------------------------------------------------------------------------------


def test_solving_divides_by_the_matrix_with_its_ridge(tiny, corpus):
    moment = measured(tiny("llama"), [1], corpus)[1]
    keys = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    ridge = RIDGE * moment.matrix.diagonal().mean() * torch.eye(64)
    expected = torch.linalg.solve(moment.matrix + ridge, keys.double().T).T
    torch.testing.assert_close(moment.solve(keys), expected, rtol=1e-8, atol=1e-8)


def test_fewer_keys_than_neurons_can_still_be_solved():
    keys = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).double()
    moment = SecondMoment(keys.T @ keys / 8, 0, 8, "eight keys", "0" * 64)
    solved = moment.solve(keys)
    assert torch.isfinite(solved).all()
    assert ((solved * keys).sum(-1) > 0).all()


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf, -1.0])
def test_what_is_no_second_moment_is_refused(value):
    moment = SecondMoment(value * torch.eye(8).double(), 2, 8, "eight keys", "0" * 64)
    with pytest.raises(SingularSystem, match="layer 2"):
        moment.solve(torch.ones(1, 8))


def test_a_second_moment_is_factorised_once(monkeypatch):
    moment = SecondMoment(2 * torch.eye(8).double(), 0, 8, "eight keys", "0" * 64)
    moment.solve(torch.ones(1, 8))
    monkeypatch.setattr(torch.linalg, "cholesky_ex", forbid)
    moment.solve(torch.ones(3, 8))


# --- the cache ----------------------------------------------------------------------------


def cache_file(model, layer, corpus, min_keys, window):
    return cache_files(model, [layer], corpus, min_keys, window)[layer]


def forbid(*args, **kwargs):
    raise AssertionError("measured again")


def test_what_was_measured_is_read_again(tiny, few, cache, monkeypatch):
    first = measured(tiny("gpt2"), [0, 1], few)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr("labkit.text.moments._compute", forbid)
    again = measured(tiny("gpt2"), [1, 0], few)
    for layer in (0, 1):
        assert torch.equal(again[layer].matrix, first[layer].matrix)
        assert (again[layer].n_keys, again[layer].source) == (first[layer].n_keys, few.source)
    with pytest.raises(AssertionError, match="measured again"):
        measured(tiny("gpt2"), [2], few)


def test_the_name_in_the_cache_changes_with_every_field(tiny, few):
    model = tiny("gpt2")
    other_text = dataclasses.replace(few, documents=(*few.documents, "One more."))
    names = {
        "as it was": cache_file(model, 1, few, 100, 50),
        "weights": cache_file(dataclasses.replace(model, fingerprint="0" * 64), 1, few, 100, 50),
        "bos": cache_file(dataclasses.replace(model, prepend_bos=True), 1, few, 100, 50),
        "dtype": cache_file(
            dataclasses.replace(tiny("gpt2", "float64"), fingerprint=model.fingerprint),
            1,
            few,
            100,
            50,
        ),
        "layer": cache_file(model, 2, few, 100, 50),
        "corpus": cache_file(model, 1, other_text, 100, 50),
        "keys": cache_file(model, 1, few, 101, 50),
        "window": cache_file(model, 1, few, 100, 51),
    }
    assert len(set(names.values())) == len(names)
    renamed = dataclasses.replace(few, source="the same under another name")
    assert cache_file(model, 1, renamed, 100, 50) == names["as it was"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"no safetensors file at all",
        lambda data: data.replace(b"n_keys", b"m_keys"),
        lambda data: data.replace(b"second_moment", b"secund_moment"),
    ],
    ids=["cut", "empty", "foreign", "no number of keys", "no matrix"],
)
def test_a_damaged_file_is_measured_again(tiny, few, cache, caplog, damage):
    first = measured(tiny("gpt2"), [1], few)[1]
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING):
        again = measured(tiny("gpt2"), [1], few)[1]
    assert torch.equal(again.matrix, first.matrix)
    assert path.read_bytes() == whole
    assert "damaged" in caplog.text


def test_an_interrupted_pass_leaves_nothing_in_the_cache(tiny, few, cache):
    def stop(stage, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(tiny("gpt2"), [1], few, progress=stop)
    assert not cache.exists() or not list(cache.iterdir())


# --- corpora ------------------------------------------------------------------------------


def test_nothing_to_measure_is_refused(tiny, few):
    model = tiny("gpt2")
    with pytest.raises(LayerOutOfRange):
        measured(model, [0, 3], few)
    for wrong in ({"min_tokens": 0}, {"window": 0}):
        with pytest.raises(InputError):
            measured(model, [0], few, **wrong)
    with pytest.raises(EmptyPrompt):
        Corpus(documents=(" ", ""), source="nothing")
    with pytest.raises(MissingFile):
        Corpus.from_file("no/such/file.txt")


def test_a_sampled_document_does_not_depend_on_its_batch(tiny):
    model = tiny("llama")
    together = sample(model, 3, n_tokens=12, seed=4)
    assert sample(model, 3, n_tokens=12, seed=4, batch=1).documents == together.documents
    assert sample(model, 3, n_tokens=12, seed=5).documents != together.documents
    assert len(set(together.documents)) == 3


def test_a_corpus_file_is_read_back(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("One document.\nTwo lines.\n\x1e\nAnother one.\n", encoding="utf-8")
    assert Corpus.from_file(path).documents == ("One document.\nTwo lines.", "Another one.")
