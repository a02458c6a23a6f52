"""Decoding the span of a subject gives the subject, in every tokenizer and every place."""

import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from labkit import pocket as pocket_world
from labkit.errors import EmptyPrompt, EmptyTarget, SubjectNotFound
from labkit.models.random_models import random_model
from labkit.tokens import (
    adds_bos,
    find_subject,
    pad_id,
    pad_left,
    subject_span,
    target_ids,
    text_ids,
)

COMPOSED, DECOMPOSED = "Café", unicodedata.normalize("NFD", "Café")

PROMPTS = {
    "in the middle": ("The capital of France is", "France"),
    "at the start": ("France is in", "France"),
    "at the end": ("I would love to see France", "France"),
    "several words": ("The Eiffel Tower is located in the city of", "Eiffel Tower"),
    "repeated": ("France, or rather France, is", "France"),
    "repeated as a part of another word": ("Francesca likes France and", "France"),
    "split differently behind a space": ("isthe and of isthe is", "isthe"),
    "composed accent": (f"{COMPOSED} is French for", COMPOSED),
    "accent behind a space": ("the São Tomé of old", "São Tomé"),
    "decomposed accent": (f"The {DECOMPOSED} is", DECOMPOSED),
    "Chinese": ("中国的首都是北京。", "中国"),
    "Chinese in the middle": ("我想去北京看看", "北京"),
    "Chinese behind a space": ("The city 北京 is in", "北京"),
    "in quotes": ('He wrote "Dune" in', "Dune"),
    "before a genitive": ("Ann's mother is", "Ann"),
    "with an apostrophe": ("The O'Neil family of", "O'Neil"),
    "with digits": ("In 1984, the author", "1984"),
    "emoji": ("The sign 🚀 means", "🚀"),
}


def tokenizer_of(name):
    if name == "pocket":
        return AutoTokenizer.from_pretrained(pocket_world.path())
    return random_model(name)[1]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def tokenizer(request):
    """Byte-level BPE, one that adds a BOS and one that does not."""
    return tokenizer_of(request.param)


def spanned(tokenizer, prompt, subject, **more):
    """The text of the subject's tokens, among the ids that a model would be given."""
    bos = [tokenizer.bos_token_id] if more.get("prepend_bos") else []
    ids = [*bos, *tokenizer(prompt, add_special_tokens=False).input_ids]
    span = subject_span(tokenizer, prompt, subject, **{"prepend_bos": False, **more})
    return tokenizer.decode(ids[span.start : span.stop]), span


# --- the span -----------------------------------------------------------------------------


@pytest.mark.parametrize("prepend_bos", [False, True], ids=["no bos", "bos"])
@pytest.mark.parametrize("place", PROMPTS)
def test_decoding_the_span_gives_the_subject(tokenizer, place, prepend_bos):
    prompt, subject = PROMPTS[place]
    text, span = spanned(tokenizer, prompt, subject, prepend_bos=prepend_bos)
    assert text.strip() == subject
    assert span.last == span.stop - 1 and list(span) == list(range(span.start, span.stop))


@pytest.mark.slow
@pytest.mark.parametrize("prepend_bos", [False, True], ids=["no bos", "bos"])
@pytest.mark.parametrize("place", PROMPTS)
def test_decoding_the_span_gives_the_subject_in_the_default_model(smollm2, place, prepend_bos):
    prompt, subject = PROMPTS[place]
    text, _ = spanned(smollm2.tokenizer, prompt, subject, prepend_bos=prepend_bos)
    assert text.strip() == subject


def test_a_word_level_tokenizer_is_no_exception():
    tokenizer = tokenizer_of("pocket")
    for fact in pocket_world.facts()[::20]:
        text, span = spanned(tokenizer, fact.prompt, fact.subject)
        assert text == fact.subject and len(span) == len(fact.subject.split())
        again, shifted = spanned(tokenizer, fact.prompt, fact.subject, prepend_bos=True)
        assert again == text and shifted.start == span.start + 1


@pytest.mark.parametrize("written, asked", [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_accents_match_however_they_are_composed(tokenizer, written, asked):
    assert written != asked
    text, _ = spanned(tokenizer, f"The {written} of Paris is", asked)
    assert text.strip() == written


def test_the_first_whole_word_is_meant_unless_an_offset_says_otherwise(tokenizer):
    prompt = "Annabel knows Ann, and Ann knows"
    first, second = prompt.index("Ann,"), prompt.rindex("Ann")
    assert find_subject(prompt, "Ann") == (first, first + 3)
    _, by_default = spanned(tokenizer, prompt, "Ann")
    _, at_second = spanned(tokenizer, prompt, "Ann", at=second)
    assert by_default.stop < at_second.start
    assert spanned(tokenizer, prompt, "Ann", at=second)[0].strip() == "Ann"


@pytest.mark.parametrize(
    ("prompt", "subject", "at"),
    [
        ("Parisian food is", "Paris", None),
        ("The capital of France is", "Germany", None),
        ("The capital of France is", "france", None),
        ("The capital of France is", "  ", None),
        ("The capital of France is", "France", 3),
        ("The capital of France is", "France", 400),
    ],
)
def test_a_subject_that_is_not_there_is_named(tokenizer, prompt, subject, at):
    with pytest.raises(SubjectNotFound, match="subject"):
        subject_span(tokenizer, prompt, subject, prepend_bos=False, at=at)


words = st.text(st.sampled_from("abnthesiofréüß北京д"), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(before=st.lists(words, max_size=3), subject=words, after=st.lists(words, max_size=3))
def test_the_span_is_the_smallest_run_that_covers_the_subject(before, subject, after):
    tokenizer = BYTE_LEVEL
    prompt = " ".join([*before, subject, *after])
    at = sum(len(word) + 1 for word in before)
    text, span = spanned(tokenizer, prompt, subject, at=at)
    assert text.strip() == subject
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    for fewer in (ids[span.start + 1 : span.stop], ids[span.start : span.stop - 1]):
        assert tokenizer.decode(fewer).strip() != subject


BYTE_LEVEL = tokenizer_of("gpt2")


# --- targets ------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(prompt=st.lists(words, min_size=1, max_size=4).map(" ".join), target=words)
def test_prompt_and_target_together_are_the_text(prompt, target):
    """No piece of the target is lost, none is glued on: the ids are those of the whole text."""
    ids = BYTE_LEVEL(prompt, add_special_tokens=False).input_ids
    spaced = "" if target[0] in "北京" or prompt[-1] in "北京" else " "
    whole = BYTE_LEVEL(prompt + spaced + target, add_special_tokens=False).input_ids
    assert ids + target_ids(BYTE_LEVEL, prompt, target) == whole


def test_a_space_is_added_only_where_there_is_none(tokenizer):
    plain = target_ids(tokenizer, "It is", "the")
    assert tokenizer.decode(plain) == " the"
    assert target_ids(tokenizer, "It is", " the") == plain
    assert tokenizer.decode(target_ids(tokenizer, "首都是", "北京")) == "北京"


def test_targets_that_are_nothing_are_refused(tokenizer):
    for target in ("", "  "):
        with pytest.raises(EmptyTarget):
            target_ids(tokenizer, "It is", target)
    with pytest.raises(EmptyTarget, match="knows"):
        target_ids(tokenizer_of("pocket"), "the", "zyzzyva")


def test_a_target_that_would_merge_into_the_prompt_is_taken_piece_by_piece(tokenizer):
    """`It is ` + `the`: the model was given the space, and is asked what follows it."""
    ids = target_ids(tokenizer, "It is ", "the")
    assert tokenizer.decode(ids) == "the"
    assert ids == tokenizer("the", add_special_tokens=False).input_ids


def test_a_text_that_begins_with_a_bos_gets_no_second():
    tokenizer = tokenizer_of("gemma")
    bos, rendered = tokenizer.bos_token_id, f"{tokenizer.bos_token}The capital of France is"
    plain = tokenizer("The capital of France is", add_special_tokens=False).input_ids
    assert text_ids(tokenizer, rendered, prepend_bos=True) == [bos, *plain]
    assert text_ids(tokenizer, rendered, prepend_bos=False) == [bos, *plain]
    span = subject_span(tokenizer, rendered, "France", prepend_bos=True)
    assert span == subject_span(tokenizer, "The capital of France is", "France", prepend_bos=True)


@pytest.mark.parametrize(
    ("prompt", "subject", "text"),
    [
        ("대한민국은 수도가", "대한민국", "대한민국"),
        ("서울의 인구는", "서울", "서울"),
        ("Danmarks hovedstad er", "Danmark", "Danmark"),
        ("Die Hauptstadt Deutschlands ist", "Deutschland", "Deutschland"),
        ("Niger and Nigeria, Nigers neighbour", "Niger", "Niger"),
    ],
)
def test_a_subject_with_an_ending_is_found(prompt, subject, text):
    start, stop = find_subject(prompt, subject)
    assert prompt[start:stop] == text
    assert start == prompt.find(subject)


def test_a_subject_inside_a_word_is_answered_with_a_template():
    with pytest.raises(SubjectNotFound, match=r"template, '\{\}ian food is'"):
        find_subject("Parisian food is", "Paris")


# --- prompts ------------------------------------------------------------------------------


def test_bos_is_what_the_tokenizer_does():
    expected = {"llama": True, "gemma": True, "gpt2": False, "qwen2": False, "pocket": True}
    assert {name: adds_bos(tokenizer_of(name)) for name in expected} == expected


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_padding_is_on_the_left_and_nowhere_else(lengths, data):
    sequences = [list(range(10, 10 + length)) for length in lengths]
    batch = pad_left(sequences, pad_id=1)
    assert batch.shape == (len(lengths), max(lengths))
    assert batch.lengths.tolist() == lengths
    for row, sequence in enumerate(sequences):
        assert batch.ids[row][batch.mask[row]].tolist() == sequence
        assert batch.mask[row].tolist() == sorted(batch.mask[row].tolist())
        assert (batch.ids[row][~batch.mask[row]] == 1).all()
    picked = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1))
    some = batch.rows(picked)
    assert some.lengths.tolist() == [lengths[row] for row in picked]
    assert some.shape[1] == max(some.lengths.tolist())


def test_nothing_to_run_is_refused(tiny):
    model = tiny("llama")
    for prompts in ([], [""], ["fine", "  "]):
        with pytest.raises(EmptyPrompt):
            model.tokens(prompts)
    with pytest.raises(EmptyPrompt):
        pad_left([[1], []], pad_id=0)


def test_any_id_pads(tiny):
    tokenizer = tiny("llama").tokenizer
    assert pad_id(tokenizer) == tokenizer.pad_token_id
    batch = tiny("llama").tokens(["a", "the mill"])
    assert batch.mask.dtype == torch.bool and not batch.mask[0, 0]
