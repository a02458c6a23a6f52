"""A corpus as a stream: every token once, batches bounded, little padding."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from labkit.running.logits import rows_within
from labkit.text.streams import LOOKAHEAD, ROWS, batches, pieces

WINDOW = 23


@pytest.fixture
def many(corpus):
    """More pieces than are looked ahead at, and a document with no text."""
    return dataclasses.replace(corpus, documents=(" ", *corpus.documents * 3))


def test_pieces_put_together_are_the_documents(model, many):
    found = list(pieces(model, many, window=WINDOW))
    assert [piece.index for piece in found] == list(range(len(found)))
    for number, document in enumerate(many.documents[1:5], 1):
        own = [piece for piece in found if piece.document == number]
        assert [token for piece in own for token in piece.ids] == model.ids(document)
        for piece, behind in pairwise(own):
            assert piece.following == behind.ids[0]
            assert behind.start == piece.start + len(piece.ids)
        assert own[-1].following is None and max(len(piece.ids) for piece in own) == WINDOW


def test_batches_hold_every_piece_once_whatever_the_memory(tiny, many):
    model = tiny("llama")
    expected = {piece.index: piece.ids for piece in pieces(model, many, window=WINDOW)}
    assert len(expected) > LOOKAHEAD * ROWS
    for memory in (1 << 30, 5 * 10**5, 1):
        seen = {}
        for some, batch in batches(model, many, window=WINDOW, memory=memory):
            assert len(some) <= min(ROWS, rows_within(model, WINDOW, memory))
            for piece, ids, mask in zip(some, batch.ids, batch.mask, strict=True):
                assert piece.index not in seen
                seen[piece.index] = ids[mask].tolist()
        assert seen == expected


def test_it_stops_behind_the_document_that_brings_enough(tiny, many):
    model = tiny("gpt2")
    first = len(model.ids(many.documents[1]))
    for min_tokens, n_documents in ((1, 1), (first, 1), (first + 1, 2)):
        found = list(pieces(model, many, min_tokens=min_tokens, window=WINDOW))
        assert {piece.document for piece in found} == set(range(1, n_documents + 1))


def test_the_stream_is_not_read_ahead_of_what_is_needed(tiny, many, monkeypatch):
    model = tiny("gpt2")
    read = []
    ids = type(model).ids
    monkeypatch.setattr(type(model), "ids", lambda self, text: read.append(1) or ids(self, text))
    some, batch = next(batches(model, many, window=WINDOW))
    assert len(read) < len(many.documents) and len(some) == ROWS
    assert torch.equal(batch.lengths, torch.tensor([len(piece.ids) for piece in some]))
