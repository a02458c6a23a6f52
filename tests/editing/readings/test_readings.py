"""Readings of a case are those that a computation by hand gives."""

import dataclasses
import importlib
import math

import pytest
import torch

from editing.edits.applying import applied
from editing.readings.asking import (
    METRICS,
    READINGS,
    Answer,
    Question,
    ask,
    ask_all,
    essence,
    questions,
    read,
    shares,
)
from labkit import pocket as world
from labkit.errors import EmptyPrompt, EmptyTarget
from labkit.metrics import fluency
from labkit.running.execute import freeze
from labkit.running.reading import KL_STRIDE, read_text, text_nll
from labkit.running.scoring import generate, score
from tests.reference import full_logits

PACKING = importlib.import_module("labkit.running.packing")

PAIRS = [
    ("the cat is in", "Rome"),
    ("the cat is in", "the house"),
    ("the cat is in", "the"),
    ("in", " of"),
    ("One finds the cat of the king in", "a"),
    ("the cat is in", "the"),
]


# --- scores -------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_scores_are_those_of_the_plain_model_prompt_by_prompt(model, memory):
    """Mean over the target's tokens, every target spelt out, however they share a batch."""
    nll, argmax = score(model, PAIRS, memory=memory)
    for (prompt, target), ours, top in zip(PAIRS, nll, argmax, strict=True):
        ids = model.ids(prompt)
        spoken = model.tokenizer(" " + target.strip(), add_special_tokens=False).input_ids
        logits = model.hf(torch.tensor([ids + spoken])).logits[0, len(ids) - 1 : -1]
        each = -logits.log_softmax(-1)[range(len(spoken)), spoken]
        assert ours.item() == pytest.approx(each.mean().item(), rel=1e-4)
        assert top.item() == (logits.argmax(-1).tolist() == spoken)


@torch.no_grad()
def test_prompts_that_begin_alike_are_scored_as_if_they_stood_alone(model, monkeypatch):
    """The beginning is run once, for all of them; the scores are those of each by itself."""
    front = "One finds the cat of the king in the house. "
    pairs = [(front + prompt, target) for prompt, target in PAIRS] + PAIRS
    alone = [score(model, [pair]) for pair in pairs]
    ran = []
    monkeypatch.setattr(PACKING, "freeze", lambda *a, **m: ran.append(m) or freeze(*a, **m))
    nll, argmax = score(model, pairs)
    assert len(ran) == 1 and ran[0]["length"] >= 8
    torch.testing.assert_close(nll, torch.cat([one for one, _ in alone]), rtol=1e-4, atol=1e-5)
    assert argmax.tolist() == [bool(top) for _, top in alone]


def test_a_model_that_knows_its_facts_has_them_as_argmax(pocket):
    facts = world.facts()[::40]
    asked = [(fact.prompt, answer) for fact in facts for answer in (fact.object, "the")]
    argmax = score(pocket, asked)[1]
    assert argmax[0::2].float().mean() > 0.9
    assert not argmax[1::2].any()


def test_what_cannot_be_scored_is_named(tiny):
    with pytest.raises(EmptyTarget):
        score(tiny("llama"), [("the cat is in", " ")])
    with pytest.raises(EmptyPrompt):
        score(tiny("llama"), [("", "Rome")])


# --- continuations and running text -------------------------------------------------------


@torch.no_grad()
def test_continuations_are_greedy_whatever_stands_beside_them(model):
    prompts = ["the cat is in", "in", "One finds the cat in"]
    together = generate(model, prompts, 5)
    for prompt, text in zip(prompts, together, strict=True):
        ids = model.ids(prompt)
        start = len(ids)
        while len(ids) < start + 5:
            ids.append(int(model.hf(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == model.tokenizer.eos_token_id:
                break
        assert text == model.tokenizer.decode(ids[start:], skip_special_tokens=True)


@torch.no_grad()
def test_running_text_is_scored_piece_by_piece(model):
    texts = ["the cat is in the house of the king", "", "in the sea", "a"]
    found = text_nll(model, texts, window=8)
    expected = []
    for text in texts:
        ids = model.ids(text) if text else []
        for first in range(0, len(ids), 8):
            piece = torch.tensor([ids[first : first + 8]])
            if piece.shape[1] > 1:
                logits = model.hf(piece).logits[0, :-1].log_softmax(-1)
                each = logits[range(piece.shape[1] - 1), piece[0, 1:]]
                expected.append(-each.mean())
    assert len(expected) >= 4
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(text_nll(model, texts, window=8, memory=1), found)


@torch.no_grad()
def test_text_behind_a_statement_scores_the_same_tokens(model):
    """As the plain model does with the statement in front; without one, nothing changes."""
    texts = ["the cat is in the house of the king", "in the sea"]
    front = "the hen is on a roof."
    found = read_text(model, texts, wording=lambda prompt: f"{front} {prompt}", window=8)
    expected = []
    for text in texts:
        ids = model.ids(text)
        for first in range(0, len(ids), 8):
            piece = ids[first : first + 8]
            if len(piece) > 1:
                logits = model.hf(torch.tensor([model.ids(front) + piece])).logits[0]
                each = logits[-len(piece) : -1].log_softmax(-1)[range(len(piece) - 1), piece[1:]]
                expected.append(-each.mean())
    torch.testing.assert_close(found.nll, torch.stack(expected), rtol=1e-4, atol=1e-5)
    plain = read_text(model, texts, window=8)
    assert not torch.allclose(found.nll, plain.nll, rtol=1e-3)
    assert torch.equal(plain.kl_to(plain), torch.zeros(len(plain.nll)).double())
    assert (plain.kl_to(found) > 0).all()


def test_the_divergence_on_text_is_that_of_whole_distributions(model, random_delta):
    texts, kept = ["the cat is in the house of the king"], []
    before = read_text(model, texts)
    with applied(model, random_delta(model)):
        after = read_text(model, texts)
        kept.append(full_logits(model, model.tokens(texts)))
    kept.append(full_logits(model, model.tokens(texts)))
    q, p = (logits[0, :-1].log_softmax(-1) for logits in kept)
    each = (p.exp() * (p - q)).sum(-1)[KL_STRIDE // 2 :: KL_STRIDE]
    assert before.kl_to(after).item() == pytest.approx(each.mean().item(), rel=1e-3)


def test_essence_is_what_follows_the_subject(model, case):
    twin = dataclasses.replace(case, case_id="twin")
    found = essence(model, [case, twin], wording=lambda prompt: f"One finds {prompt}")
    expected = full_logits(model, model.tokens(["One finds cat is a"]))[0, -1].log_softmax(-1)
    torch.testing.assert_close(found, expected.expand(2, -1), rtol=1e-3, atol=1e-4)


def test_fluency_is_that_of_the_openings_each_once(tiny, case):
    model = tiny("llama")
    (text,) = generate(model, case.generation, 6)
    (reading,) = read(model, [case], n_tokens=6)
    assert reading["generation"]["fluency"] == pytest.approx(fluency(text.split()))
    assert "generation" not in read(model, [case], n_tokens=0)[0]


# --- a case -------------------------------------------------------------------------------


def test_the_questions_of_a_case(case):
    asked = [(q.metric, q.wanted, q.rival) for q in questions(case)]
    assert asked[0] == ("efficacy", "Rome", "the house")
    assert asked[1:3] == [("paraphrase", "Rome", "the house")] * 2
    assert asked[3] == ("neighbourhood", "the house", "Rome")
    plain = 1 + len(case.paraphrases) + len(case.neighbours)
    assert len(asked) == plain + len(case.neighbours)
    (truly,) = [q for q in questions(case) if q.metric == "attribute"] or [None]
    assert truly is None, "this case names no subject that has the new object"
    more = dataclasses.replace(case, attributes=("the Pope is in",))
    assert answered_as(questions(more), "attribute") == [("the Pope is in", "Rome", "the house")]
    beside = answered_as(questions(case), "distractor")
    assert beside[0] == ("the cat is in Rome. the dog is in", "the house", "Rome")


def answered_as(asked, metric):
    """Prompt, wanted and rival of the questions of a metric."""
    return [(q.prompt, q.wanted, q.rival) for q in asked if q.metric == metric]


def test_cases_asked_together_answer_as_alone(model, case):
    other = dataclasses.replace(case, case_id="other", paraphrases=("the king is in",))
    together = ask_all(model, [case, other], n_tokens=2)
    for ours, alone in zip(together, (case, other), strict=True):
        for one, two in zip(ours, ask(model, alone, n_tokens=2), strict=True):
            assert one.wanted_nll == pytest.approx(two.wanted_nll, rel=1e-4)
            assert (one.question, one.argmax, one.text) == (two.question, two.argmax, two.text)


def test_every_prompt_is_put_as_the_wording_says(tiny, case):
    model = tiny("llama")
    front = dataclasses.replace(
        case,
        paraphrases=(f"One finds {case.rewrite.prompt}",),
        neighbours=(),
    )
    said = ask(model, front, n_tokens=2, wording=lambda prompt: f"One finds {prompt}")
    plain = ask(model, front, n_tokens=2)
    assert said[0].wanted_nll == pytest.approx(plain[1].wanted_nll, rel=1e-5)
    assert said[0].text == plain[1].text and said[0].question == plain[0].question


def test_answers_pair_each_wanted_object_with_its_rival(model, case):
    for answer in ask(model, case, n_tokens=3):
        question = answer.question
        pairs = [(question.prompt, question.wanted), (question.prompt, question.rival)]
        nll, argmax = score(model, pairs)
        assert answer.wanted_nll == pytest.approx(nll[0].item(), rel=1e-4)
        assert answer.rival_nll == pytest.approx(nll[1].item(), rel=1e-4)
        assert answer.argmax == argmax[0].item()
        if question.metric in METRICS:
            assert answer.text == generate(model, [question.prompt], 3)[0]
        else:
            assert answer.text is None


def answered(metric, *, wanted=1.0, rival=2.0, argmax=True, text="in Rome, they say"):
    question = Question(metric=metric, prompt="the cat is in", wanted=" rome", rival="Paris")
    return Answer(question=question, wanted_nll=wanted, rival_nll=rival, argmax=argmax, text=text)


def test_the_three_readings_are_three_questions():
    passes = {reading: answered("efficacy").passes(reading) for reading in READINGS}
    assert passes == {"success": True, "accuracy": True, "generation": True}
    assert not answered("efficacy", wanted=2.0).passes("success"), "a tie is no success"
    assert not answered("efficacy", wanted=math.nan).passes("success")
    assert not answered("efficacy", argmax=False).passes("accuracy")
    assert not answered("efficacy", text="in Paris").passes("generation")
    assert answered("efficacy", rival=None).passes("success") is None
    assert answered("efficacy", text=None).passes("generation") is None


def test_shares_are_means_over_the_prompts_of_a_metric():
    found = shares(
        [
            answered("efficacy", text=None),
            answered("paraphrase", argmax=False, text=None),
            answered("paraphrase", rival=None, text=None),
            answered("neighbourhood", rival=0.5, text=None),
            answered("neighbourhood", text=None),
            answered("neighbourhood", text=None),
            answered("neighbourhood", text=None),
        ]
    )
    assert found == {
        "success": {"efficacy": 1.0, "paraphrase": 1.0, "neighbourhood": 0.75},
        "accuracy": {"efficacy": 1.0, "paraphrase": 0.5, "neighbourhood": 1.0},
    }
