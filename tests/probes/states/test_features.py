"""Features are the model's own states at the words that were asked for, however they are read."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from labkit.errors import EmptyPrompt, EmptySplit, InputError, OutputError
from labkit.running.execute import Execution
from probes.states.alignment import encoded
from probes.states.feature_files import new_file
from probes.states.features import extract, features_of, features_of_tasks, readable
from probes.states.selection import States, n_rows
from probes.tasks.task import Example, Task
from tests.reference import outputs_of

TEXTS = (
    "the house is in the valley.",
    "of",
    "Another  house, then: a thin one.",
    "the house is in the valley.",
)
WORDS = [(0, 4, 9), (2, 9, 14), (0, 20, 26), (1, 0, 2), (2, 22, 23), (3, 4, 9), (2, 0, 7)]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def ids_of(model, text):
    """A text's tokens, with what stands in front."""
    tokenizer = model.tokenizer
    front = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [front, *tokenizer(text, add_special_tokens=False).input_ids]


@torch.no_grad()
def by_hand(model, text):
    """Every depth of one text, run alone by the plain model: `[depth, pos, d_model]`."""
    with outputs_of(model.blocks[-1]) as last:
        out = model.hf(torch.tensor([ids_of(model, text)]), output_hidden_states=True)
    return torch.stack([*out.hidden_states[:-1], last[0]])[:, 0].numpy()


def tokens_of(model, text, start, stop):
    """Positions whose texts, put one behind the other, begin inside the characters."""
    ends = [len(model.tokenizer.decode(ids_of(model, text)[: n + 1], skip_special_tokens=True))
            for n in range(len(ids_of(model, text)))]  # fmt: skip
    begins = [0, *ends[:-1]]
    begins = [
        b + len(text[b:e]) - len(text[b:e].lstrip()) for b, e in zip(begins, ends, strict=True)
    ]
    return [
        n for n, (b, e) in enumerate(zip(begins, ends, strict=True)) if start <= b < stop and b < e
    ]


@pytest.fixture
def task():
    return Task(
        name="t", family="surface", texts=TEXTS, source="by hand",
        examples=tuple(
            Example(text=text, span=span, label="ab"[n % 2], group=f"{n}", item="x")
            for n, (text, *span) in enumerate((t, *(a, b)) for t, a, b in WORDS)
            for span in [tuple(span)]
        ),
    )  # fmt: skip


@pytest.mark.parametrize("pieces", ["first", "last", "mean"])
def test_they_are_the_hidden_states_of_hugging_face(model, pieces):
    features = extract(model, TEXTS, WORDS, States(pieces=pieces))
    assert features.values.shape == (model.n_layers + 1, len(WORDS), model.d_model)
    several = 0
    for number, (text, start, stop) in enumerate(WORDS):
        states, at = by_hand(model, TEXTS[text]), tokens_of(model, TEXTS[text], start, stop)
        several += len(at) > 1
        chosen = {"first": at[:1], "last": at[-1:], "mean": at}[pieces]
        expected = states[:, chosen].mean(axis=1)
        np.testing.assert_allclose(features.values[:, number], expected, **CLOSE)
    assert several > 2


@pytest.mark.parametrize("where", ["attn_out", "ffn_out", "ffn_key", "head_out"])
def test_other_sites_are_what_their_modules_give(model, where):
    features = extract(model, TEXTS[:1], WORDS[:1], States(where=where))
    assert features.depths == tuple(range(model.n_layers)) == tuple(range(n_rows(model, where)))
    pos = tokens_of(model, *TEXTS[:1], 4, 9)[-1]
    module, side = model.site(where, 1)
    seen = []
    if side == "output":
        handle = module.register_forward_hook(lambda _m, _a, out: seen.append(out))
    else:
        handle = module.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    try:
        model.hf(torch.tensor([ids_of(model, TEXTS[0])]))
    finally:
        handle.remove()
    out = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    np.testing.assert_allclose(features.at(1)[0], out[0, pos].detach().numpy(), **CLOSE)


def test_reversing_the_words_or_the_texts_reverses_the_rows_and_no_more(model):
    features = extract(model, TEXTS, WORDS)
    turned = extract(model, TEXTS, WORDS[::-1])
    np.testing.assert_array_equal(turned.values[:, ::-1], features.values)
    last = len(TEXTS) - 1
    other = extract(model, TEXTS[::-1], [(last - text, *span) for text, *span in WORDS])
    np.testing.assert_allclose(other.values, features.values, **CLOSE)


def test_what_stands_beside_a_text_in_its_batch_does_not_matter(model):
    together = extract(model, TEXTS, WORDS)
    for number, word in enumerate(WORDS):
        alone = extract(model, TEXTS, [word])
        np.testing.assert_allclose(alone.values[:, 0], together.values[:, number], **CLOSE)


def test_some_depths_are_rows_of_all_and_no_later_block_is_run(model, monkeypatch):
    whole = extract(model, TEXTS, WORDS)
    stops, forward = [], Execution.forward
    monkeypatch.setattr(
        Execution,
        "forward",
        lambda self, **more: stops.append(more["stop"]) or forward(self, **more),
    )
    some = extract(model, TEXTS, WORDS, States(depths=[2, 0, 2]))
    assert some.depths == (0, 2) and set(stops) == {2}
    np.testing.assert_array_equal(some.values, whole.values[[0, 2]])
    np.testing.assert_array_equal(some.at(2), whole.at(2))
    with pytest.raises(InputError, match="depth 1 was not read"):
        some.at(1)


def test_heads_are_columns_of_all_heads(model):
    whole = extract(model, TEXTS, WORDS, States(where="head_out"))
    some = extract(model, TEXTS, WORDS, States(where="head_out", heads=[3, 1]))
    by_head = whole.values.reshape(*whole.values.shape[:2], model.n_heads, model.d_head)
    expected = by_head[:, :, [3, 1]].reshape(*some.values.shape)
    np.testing.assert_array_equal(some.values, expected)


def test_a_text_is_run_once_and_only_as_far_as_it_is_read(tiny, monkeypatch):
    model, shapes, made = tiny("llama"), [], Execution.__init__

    def recorded(self, model, batch):
        shapes.append(batch.shape)
        made(self, model, batch)

    monkeypatch.setattr(Execution, "__init__", recorded)
    extract(model, TEXTS, [(0, 0, 3), (3, 4, 9)])
    assert shapes == [(1, tokens_of(model, TEXTS[0], 4, 9)[-1] + 1)]


def asked(task, *words):
    """A task about some words of the same texts."""
    examples = tuple(
        Example(text=text, span=(start, stop), label="ab"[n % 2], group=f"{n}", item="x")
        for n, (text, start, stop) in enumerate(words)
    )
    return dataclasses.replace(task, examples=examples)


def test_tasks_of_the_same_texts_are_read_in_one_pass(model, task, monkeypatch):
    tasks = [asked(task, *WORDS[:3]), asked(task, *WORDS[4:1:-1]), asked(task, *WORDS)]
    alone = [features_of(model, each, cache=False) for each in tasks]
    run = lambda: list(features_of_tasks(model, tasks, cache=False))  # noqa: E731
    pairs, forward = [], Execution.forward
    monkeypatch.setattr(
        Execution, "forward", lambda self, **k: pairs.append(self.n_prompts) or forward(self, **k)
    )
    together = run()
    n_rows_together, n_texts = sum(pairs), len({TEXTS[text] for text, *_ in WORDS})
    assert n_rows_together == n_texts
    for one, other, each in zip(alone, together, tasks, strict=True):
        assert other.task is each and len(other) == len(each)
        np.testing.assert_allclose(other.values, one.values, **CLOSE)
    with pytest.raises(InputError, match="different texts"):
        list(features_of_tasks(model, [task, dataclasses.replace(task, texts=(*TEXTS, "of"))]))


def test_texts_that_were_tokenised_are_not_tokenised_again(tiny, task, monkeypatch):
    model = tiny("llama")
    known = encoded(model, task.texts)
    before = features_of(model, task, cache=False).values
    monkeypatch.setattr("probes.states.reading.encoded", lambda *given: pytest.fail("tokenised"))
    found = features_of(model, readable(model, task, known), known=known, cache=False)
    np.testing.assert_array_equal(found.values, before)


def test_bad_requests_are_refused_before_any_work(tiny, unchecked, no_forward):
    model = tiny("gpt2")
    for error, texts, words, more in (
        (EmptySplit, TEXTS, [], {}),
        (EmptyPrompt, ["a", " "], [(1, 0, 1)], {}),
        (InputError, TEXTS, [(4, 0, 1)], {}),
        (InputError, TEXTS, [(0, 3, 3)], {}),
        (InputError, TEXTS, [(1, 0, 3)], {}),
        (InputError, TEXTS, WORDS, {"depths": [4]}),
        (InputError, TEXTS, WORDS, {"depths": []}),
        (InputError, TEXTS, WORDS, {"where": "ffn_out", "depths": [3]}),
        (InputError, TEXTS, WORDS, {"where": "logits"}),
        (InputError, TEXTS, WORDS, {"pieces": "middle"}),
        (InputError, TEXTS, WORDS, {"dtype": "int8"}),
        (InputError, TEXTS, WORDS, {"heads": [0]}),
        (InputError, TEXTS, WORDS, {"where": "head_out", "heads": [4]}),
        (InputError, ["ab " * 200], [(0, 0, 1)], {}),
    ):
        with pytest.raises(error):
            extract(model, texts, words, States(**more))


# --- files --------------------------------------------------------------------------------


def test_a_file_holds_what_memory_holds_and_safetensors_reads_it(tiny, tmp_path):
    model = tiny("llama")
    plain = extract(model, TEXTS, WORDS)
    mapped = extract(model, TEXTS, WORDS, folder=tmp_path, in_memory=0)
    assert isinstance(mapped.values, np.memmap) and not mapped.values.flags.writeable
    assert not isinstance(plain.values, np.memmap)
    np.testing.assert_array_equal(mapped.values, plain.values)
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(load_file(path)["features"], plain.values)


def test_the_cache_is_used_and_every_field_is_in_its_key(tiny, task, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    llama, gpt2 = tiny("llama"), tiny("gpt2")
    moved = dataclasses.replace(task, texts=(TEXTS[0].upper(), *TEXTS[1:]))
    fewer = dataclasses.replace(task, examples=task.examples[:-1])
    swapped = dataclasses.replace(
        task, examples=tuple(dataclasses.replace(e, span=task.examples[0].span)
                             if e.text == 3 else e for e in task.examples)[::-1]
    )  # fmt: skip
    ahead = dataclasses.replace(
        task, examples=(dataclasses.replace(task.examples[0], span=(0, 3)), *task.examples[1:])
    )
    usual = {"where": "resid", "depths": [0, 1], "pieces": "last", "dtype": "float32"}
    others = {"where": "attn_out", "depths": [0], "pieces": "first", "dtype": "float16"}
    asked = [(gpt2, task, usual)]
    asked += [(llama, data, usual) for data in (task, moved, fewer, swapped, ahead)]
    asked += [(llama, task, usual | {name: other}) for name, other in others.items()]
    asked += [(llama, task, {"where": "head_out", "heads": heads}) for heads in ([0], [1], None)]
    first = [features_of(model, data, States(**more)) for model, data, more in asked]
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == len(asked)
    monkeypatch.setattr(Execution, "__init__", None)
    for (model, data, more), before in zip(asked, first, strict=True):
        np.testing.assert_array_equal(
            features_of(model, data, States(**more)).values, before.values
        )


def test_a_damaged_file_is_read_again(tiny, task, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    model = tiny("gpt2")
    before = features_of(model, task).values
    (path,) = (tmp_path / "features").iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(features_of(model, task).values, before)
    assert "damaged" in caplog.text


def test_a_pass_that_fails_leaves_no_file(tiny, task, tmp_path):
    model = tiny("llama")
    weight = model.ffn_out(1)
    before = weight.clone()
    try:
        weight[0, 0] = torch.inf
        with pytest.raises(InputError, match="not finite"):
            extract(model, TEXTS, WORDS, folder=tmp_path)
        weight[:] = before * 1e6
        with pytest.raises(InputError, match="float16"):
            extract(model, TEXTS, WORDS, States(dtype="float16"), folder=tmp_path)
    finally:
        weight.copy_(before)
    assert not list(tmp_path.iterdir())


def test_only_the_users_cache_makes_room(tiny, tmp_path, monkeypatch):
    asked: list = []
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    noted = lambda keep: asked.append(keep.parent)  # noqa: E731
    monkeypatch.setattr("labkit.cache.forget_oldest", noted)
    extract(tiny("llama"), TEXTS, WORDS, folder=tmp_path / "own")
    assert not asked
    extract(tiny("llama"), TEXTS, WORDS, folder=tmp_path / "cache" / "features")
    assert asked == [tmp_path / "cache" / "features"]


def test_what_is_not_kept_leaves_nothing_however_large_it_is(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    small, large = (extract(tiny("llama"), TEXTS, WORDS, in_memory=n) for n in (10**9, 0))
    assert isinstance(large.values, np.memmap) and not isinstance(small.values, np.memmap)
    np.testing.assert_array_equal(large.values, small.values)
    assert not list(tmp_path.iterdir())


def test_half_precision_is_the_same_rounded(tiny):
    model = tiny("gpt2")
    whole, half = (
        extract(model, TEXTS, WORDS),
        extract(model, TEXTS, WORDS, States(dtype="float16")),
    )
    assert half.values.dtype == np.float16 and half.at(1).dtype == np.float32
    np.testing.assert_array_equal(half.values, whole.values.astype(np.float16))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot write"),
        new_file(tmp_path / "file" / "x.safetensors", (1, 2, 3), "float32"),
    ):
        pass


def test_progress_ends_at_one(tiny):
    told = []
    extract(tiny("gpt2"), TEXTS, WORDS, progress=lambda what, share: told.append(share))
    assert told == sorted(told) and told[-1] == 1
