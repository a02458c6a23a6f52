"""The lens over many facts equals the lens over each, and its summary is that of the ranks."""

import numpy as np
import pytest
import torch

from labkit import pocket as pocket_world
from labkit.errors import EmptyTarget, InputError
from labkit.facts import Fact
from labkit.locate.readable import ReadableFacts, readable
from labkit.models import load
from labkit.readout import logit_lens


@pytest.fixture(scope="module")
def pocket():
    return load("pocket")


@pytest.fixture(scope="module")
def facts():
    return [fact for fact in pocket_world.facts() if fact.relation == "landmark_city"][:12]


@pytest.fixture(scope="module")
def found(pocket, facts):
    return readable(pocket, facts)


def test_it_is_the_lens_of_each_fact(pocket, facts, found):
    for row in (0, 5):
        alone = logit_lens(pocket, facts[row].prompt, answer=facts[row].object)
        assert np.allclose(found.probability[0, row], alone.answer_probability[:, -1], atol=1e-6)
        assert np.array_equal(found.rank[0, row], alone.answer_rank[:, -1])
        settled = found.settled[row]
        assert alone.settled == (None if np.isnan(settled) else settled)


def test_the_last_layer_is_the_models_own_answer(pocket, facts, found):
    with torch.no_grad():
        logits = pocket.hf(pocket.tokens([facts[3].prompt]).ids).logits[0, -1]
    token = pocket.tokenizer.convert_tokens_to_ids(found.answers[3].strip())
    assert found.probability[0, 3, -1] == pytest.approx(float(logits.softmax(-1)[token]), abs=1e-5)


def test_controls_are_other_objects_of_the_relation(found):
    assert all(a != c for a, c in zip(found.answers, found.controls, strict=True))
    assert set(found.controls) <= set(found.answers)
    assert found.probability[0, :, -1].mean() > found.probability[1, :, -1].mean()


def test_settled_is_the_end_of_the_last_layer_where_it_was_not_on_top():
    rank = np.array([[[3, 0, 1, 0], [0, 0, 0, 0], [2, 0, 0, 1]], [[1] * 4] * 3], dtype=float)
    made = ReadableFacts(
        prompts=("a", "b", "c"),
        relations=("r", "r", "s"),
        answers=("x", "y", "z"),
        controls=("y", "x", "x"),
        probability=np.zeros_like(rank),
        rank=rank,
        model="made up",
        fingerprint="0" * 64,
    )
    assert np.array_equal(made.settled, [3, 0, np.nan], equal_nan=True)
    assert made.share_settled.mean == pytest.approx(2 / 3)
    assert made.settled_at(0.5) == 3 and made.settled_at(0.0) == 0
    table = made.relations_frame().set_index("relation")
    assert table.loc["r", "settle"] == 2 and table.loc["s", "settle"] == 0
    top = made.top_frame()
    assert list(top[top["token"] == "the answer"]["mean"]) == pytest.approx(
        [1 / 3, 1, 2 / 3, 2 / 3]
    )


def test_it_is_saved_and_drawn(found, tmp_path):
    loaded = ReadableFacts.load(found.save(tmp_path / "readable"))
    assert loaded.to_frame().equals(found.to_frame())
    lines = [trace for trace in found.figure().data if trace.name]
    assert np.allclose(lines[0].y, found.probability[0].mean(axis=0))
    top = [trace for trace in found.figure_top().data if trace.name]
    assert np.allclose(top[1].y, (found.rank[1] == 0).mean(axis=0))


def test_what_cannot_be_read_is_refused(pocket, facts):
    with pytest.raises(InputError, match="no facts"):
        readable(pocket, [])
    with pytest.raises(InputError, match="no control"):
        readable(pocket, facts[:1])
    unknown = Fact(subject=facts[0].subject, template=facts[0].template, object=None)
    with pytest.raises(EmptyTarget):
        readable(pocket, [unknown, facts[1]])
