"""Cloze probing is the lens of each fact, its controls are other facts' answers and states."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit import pocket as world
from labkit.errors import EmptyTarget, FingerprintMismatch, InputError
from labkit.facts.datasets import OpenQuestion, read_questions
from labkit.facts.fact import Fact
from labkit.facts.known import known_facts
from labkit.readout import logit_lens
from labkit.results.result import RunDirectory
from probes.cloze.cloze_result import READINGS, ClozeResult
from probes.cloze.objects import Cloze, question_facts
from probes.cloze.translator_fit import TranslatorFit
from tests.reference import DATA, full_logits

POPQA = DATA / "popqa_1000" / "popqa.json"


@pytest.fixture(scope="module")
def facts():
    some = [fact for fact in world.facts() if fact.relation in ("landmark_city", "person_company")]
    return some[:12] + some[-12:]


@pytest.fixture(scope="module")
def found(pocket, facts):
    return Cloze()(pocket, facts)


def test_the_answers_ranks_are_the_lens_of_each_fact(pocket, facts, found):
    for row in (0, 7, 20):
        alone = logit_lens(pocket, facts[row].prompt, answer=facts[row].object)
        assert np.array_equal(found.rank[0, row, 1:], alone.answer_rank[:, -1])
        on_top = found.rank[0, row, 1:] == 0
        settled = next(layer for layer in range(len(on_top)) if on_top[layer:].all())
        assert found.depth_within(1)[row] == settled + 1


@torch.no_grad()
def test_every_family_is_read_as_hugging_face_would(model):
    facts = [
        Fact(subject=word, template="the thing in {} is of", object=answer, relation="r")
        for word, answer in (("the", "the"), ("one house", "is"), ("of", "a man"))
    ]
    found = Cloze(memory=1)(model, facts)  # row by row
    for row, fact in enumerate(facts):
        logits = full_logits(model, model.tokens([fact.prompt]))[0, -1]
        token = model.ids(fact.prompt + " " + fact.object)[len(model.ids(fact.prompt))]
        assert found.rank[0, row, -1] == int((logits > logits[token]).sum())
    assert np.array_equal(found.rank, Cloze()(model, facts).rank, equal_nan=True)


def test_controls_read_another_answer_here_and_this_answer_elsewhere(pocket, facts, found):
    objects = {fact.object: fact for fact in facts}
    for row in (15,):
        fact, curves = facts[row], found.rank[:, row]
        same = [o for o in objects.values() if o.relation == fact.relation]
        elsewhere = [o for o in objects.values() if o.relation != fact.relation]
        others = [
            logit_lens(pocket, fact.prompt, answer=o.object).answer_rank[:, -1]
            for o in same
            if o.object != fact.object
        ]
        assert any(np.array_equal(curves[1, 1:], ranks) for ranks in others)
        for place, states in (
            (2, [f for f in facts if f.relation == fact.relation]),
            (3, [f for f in facts if f.relation != fact.relation]),
        ):
            read = [
                logit_lens(pocket, o.prompt, answer=fact.object).answer_rank[:, -1]
                for o in states
                if o.object != fact.object
            ]
            assert any(np.array_equal(curves[place, 1:], ranks) for ranks in read)
        assert elsewhere


def test_no_control_shares_the_answer(facts, found):
    """The model knows all of these facts: what is first in a control would be their own answer."""
    assert len({fact.object for fact in facts}) < len(facts)
    assert (found.rank[0, :, -1] == 0).all()
    assert not (found.rank[1:, :, -1] == 0).any()


def test_on_pocket_the_answer_leaves_its_controls_and_the_last_depth_is_what_it_knows(
    pocket, facts, found
):
    assert found.precision(1)[-1].mean == known_facts(pocket, facts).share.mean == 1.0
    for reading in READINGS[1:]:
        assert found.advantage(reading)[-1].low > 0.5
        assert found.precision(1, reading)[-1].high < 0.2
    gap, p = found.readable_before_said(10)
    assert gap.low > 0 and p < 0.01


def test_the_translated_lens_uses_the_translators_it_is_given(pocket, facts, corpus):
    fit = TranslatorFit(tokens=400, held_out=20)
    own = fit(pocket, corpus, cache=False)
    read = Cloze(lens="translated")(pocket, facts[:6], translators=own)
    plain = Cloze()(pocket, facts[:6])
    assert np.array_equal(read.rank[..., -1], plain.rank[..., -1], equal_nan=True)
    assert not np.array_equal(read.rank, plain.rank, equal_nan=True)
    with pytest.raises(FingerprintMismatch):
        Cloze(lens="translated")(pocket, facts, translators=replace(own, fingerprint="0" * 64))


def made(rank, **changed):
    """A result from a table of ranks `[fact, depth]` and no controls."""
    rank = np.asarray(rank, dtype=float)
    table = np.full((4, *rank.shape), np.nan)
    table[0] = rank
    n = len(rank)
    values = dict(
        prompts=tuple(f"prompt {i}" for i in range(n)),
        relations=tuple("rs"[i % 2] for i in range(n)),
        subjects=("s",) * n,
        answers=("a",) * n,
        lens="logit",
        ks=(1, 10),
        rank=table,
        popularity=np.full(n, np.nan),
        model="made up",
        fingerprint="0" * 64,
        seed=0,
    )
    return ClozeResult(**values | changed)


def test_depths_are_where_ranks_stay_and_means_are_over_those_who_get_there():
    result = made([[50, 5, 0, 3, 0], [9, 9, 9, 9, 9], [0, 0, 0, 0, 0], [20, 0, 0, 0, 30]])
    assert np.array_equal(result.depth_within(1), [4, np.nan, 0, np.nan], equal_nan=True)
    assert np.array_equal(result.depth_within(10), [1, 0, 0, np.nan], equal_nan=True)
    assert [share.mean for share in result.precision(1)] == [0.25, 0.5, 0.75, 0.5, 0.5]
    table = result.depths_frame().set_index(["relation", "k"])
    assert table.loc[("all", 1), ["facts", "reach", "mean"]].tolist() == [4, 2, 2.0]
    assert table.loc[("r", 10), "mean"] == 0.5 and table.loc[("s", 1), "reach"] == 0
    gap, _ = result.readable_before_said(10)
    assert gap.mean == 1.5 and gap.n == 2
    with pytest.raises(InputError, match="no fact has the control"):
        result.advantage()
    assert set(result.to_frame()["reading"]) == {"the answer"}


def test_popularity_is_binned_by_its_logarithm_with_equally_many_facts():
    rank = np.where(np.arange(20)[:, None] < 10, 40, 0) * np.ones((1, 3))
    result = made(rank, popularity=np.geomspace(1, 1e6, 20))
    table = result.popularity_frame(bins=2).set_index(["bin", "k"])
    assert table["n"].tolist() == [10] * 4
    assert table.loc[(0, 1), "mean"] == 0 and table.loc[(1, 1), "mean"] == 1
    assert table.loc[(0, 1), "popularity"] < 1e3 < table.loc[(1, 1), "popularity"]
    level = made(rank, popularity=np.full(20, 7.0)).popularity_frame()
    assert level["n"].tolist() == [20, 20] and level["popularity"].tolist() == pytest.approx([7, 7])
    with pytest.raises(InputError, match="not known"):
        made(rank).popularity_frame()


def test_a_killed_run_goes_on_where_it_was(pocket, facts, found, tmp_path):
    run = RunDirectory.create(tmp_path / "run", {"command": "cloze"}, pocket)
    seen = []

    def stop(what, share):
        seen.append(share)
        if share > 0.3:
            raise KeyboardInterrupt

    few = Cloze(memory=1)  # fact by fact
    with pytest.raises(KeyboardInterrupt):
        few(pocket, facts, run=run, progress=stop)
    n_done = len(run.finished_cases())
    assert 0 < n_done < len(facts)
    read = []
    result = few(pocket, facts, run=run, progress=lambda what, share: read.append(share))
    assert read[0] > n_done / len(facts)
    assert np.array_equal(result.rank, found.rank, equal_nan=True)


def test_it_is_saved(found, tmp_path):
    loaded = ClozeResult.load(found.save(tmp_path / "cloze"))
    assert loaded.to_frame().equals(found.to_frame()) and loaded.title == found.title


def test_questions_become_facts_with_their_subject_or_the_whole_question_in_its_place():
    asked = [
        OpenQuestion(question="Who wrote It?", answers=("A", "B"), subject_views=9, object_views=1,
                     subject="It", relation="author"),
        OpenQuestion(question="Who {is} it?", answers=("C",), subject_views=0, object_views=1),
    ]  # fmt: skip
    facts, views = question_facts(asked)
    assert [fact.prompt for fact in facts] == ["Q: Who wrote It?\nA:", "Q: Who {is} it?\nA:"]
    assert facts[0].subject == "It" and facts[0].answers == ("A", "B") and views == [9, 1]
    with pytest.raises(InputError, match="exactly one"):
        question_facts(asked, template="Q")


@pytest.mark.skipif(not POPQA.exists(), reason="PopQA is not here")
def test_popqa_is_read_with_its_popularity(tiny):
    facts, views = question_facts(read_questions(POPQA)[:30])
    result = Cloze()(tiny("qwen2"), facts, popularity=views)
    assert result.popularity_frame(bins=3)["n"].sum() == 30 * 3
    assert sum(fact.subject in fact.prompt and "?" not in fact.subject for fact in facts) > 20


def test_what_cannot_be_read_is_refused_before_any_work(pocket, facts):
    with pytest.raises(InputError, match="no facts"):
        Cloze()(pocket, [])
    with pytest.raises(EmptyTarget, match="no object"):
        Cloze()(pocket, [replace(facts[0], object=None)])
    with pytest.raises(InputError, match="popularity"):
        Cloze()(pocket, facts, popularity=[1.0])
    for wrong in ({"ks": ()}, {"ks": (10, 1)}, {"ks": (0,)}):
        with pytest.raises(InputError, match="ks"):
            Cloze(**wrong)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_lens_is_refused():
    with pytest.raises(InputError, match="logit, translated"):
        Cloze(lens="tuned")
