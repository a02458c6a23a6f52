"""Every token belongs to one word at most, and a word without a token is refused by name."""

import pytest

from labkit.errors import NotAligned
from probes.states.alignment import encoded
from probes.states.features import extract, features_of, readable
from probes.tasks.task import Example, Task


def test_every_token_begins_in_one_word_at_most_whatever_its_bytes(model):
    text = " the  thé 東京 of🙂is "
    words = [
        (start, stop) for start in range(len(text)) for stop in (start + 1,) if text[start].strip()
    ]
    (known,) = encoded(model, [text])
    found = []
    for start, stop in words:
        try:
            found += known.positions(start, stop)
        except NotAligned:
            continue
    spaces = [place for place, at in enumerate(known.begins) if at < 0]
    assert sorted(found + spaces) == list(range(len(known.ids)))


def test_a_word_joined_to_the_one_before_it_is_refused_by_name(tiny):
    model = tiny("gpt2")
    assert extract(model, ["the"], [(0, 0, 1)]).values.shape[1] == 1
    with pytest.raises(NotAligned, match=r"'the' begins in 'e'"):
        extract(model, ["the"], [(0, 0, 1), (0, 2, 3)])
    with pytest.raises(NotAligned):
        extract(model, ["a  b"], [(0, 1, 3)])


def test_readable_leaves_out_just_those_words(tiny):
    model, text = tiny("gpt2"), "the ab cde"  # tokens: the, space, a, b, space, c, d, e
    spans = [(0, 1), (2, 3), (4, 5), (5, 6), (7, 8), (1, 3), (8, 10)]
    task = Task(
        name="t", family="surface", source="by hand", texts=(text,), held_out=(5, 6),
        examples=tuple(
            Example(text=0, span=span, label="ababbab"[n], group="ab"[n > 4], item="x")
            for n, span in enumerate(spans)
        ),
    )  # fmt: skip
    kept = readable(model, task)
    assert [example.span for example in kept.examples] == [spans[n] for n in (0, 2, 3, 4, 6)]
    assert kept.held_out == (4,) and "2 words without a token" in kept.source
    assert readable(model, kept) is kept
    assert features_of(model, kept, cache=False).values.shape[1] == 5
