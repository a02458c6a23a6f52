"""Minimal pairs differ as they say, are scored as a full forward scores them, and are read."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from labkit.errors import InputError, MalformedRecord, MissingFile
from labkit.stats import proportion
from labkit.text.acceptability import (
    MinimalPair,
    minimal_pairs,
    prefers_good,
    read_blimp,
    sentence_log_probs,
)
from labkit.text.grammar import PHENOMENA
from tests.reference import DATA

BLIMP = DATA / "blimp" / "BLiMP.zip"
ROW = {"sentence_good": "A cat sleeps.", "sentence_bad": "A cat sleep.",
       "linguistics_term": "agreement", "UID": "agreement_1", "pair_id": "0"}  # fmt: skip


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_pairs_differ_in_one_word_which_is_not_the_first(phenomenon):
    pairs = [pair for pair in minimal_pairs(40) if pair.phenomenon == phenomenon]
    assert len(set(pairs)) == len(pairs) == 40
    for pair in pairs:
        good, bad = pair.good.split(), pair.bad.split()
        different = [place for place, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b]
        assert len(different) == 1
        assert different[0] > 0


def test_both_directions_of_a_rule_are_asked_for():
    good = [pair.good for pair in minimal_pairs(40) if pair.phenomenon == "reflexive gender"]
    assert any("himself" in text for text in good) and any("herself" in text for text in good)


def test_the_seed_decides():
    assert minimal_pairs(5, seed=1) == minimal_pairs(5, seed=1) != minimal_pairs(5, seed=2)


def test_impossible_pairs_are_refused():
    with pytest.raises(InputError, match="at least one"):
        minimal_pairs(0)
    with pytest.raises(InputError, match="there are fewer"):
        minimal_pairs(10_000)
    with pytest.raises(InputError, match="needs two sentences"):
        MinimalPair(phenomenon="none", good="A sentence.", bad=" ")


def test_sentences_are_scored_as_a_full_forward_scores_them(exact):
    sentences = ["the cat is in the house", "a dog", "the king is in the sea of the house"]
    bos, eos = exact.tokenizer.bos_token_id, exact.tokenizer.eos_token_id
    for in_front in ("", "the ship is old."):
        front = [bos if bos is not None else eos]
        front += exact.tokenizer(in_front, add_special_tokens=False).input_ids if in_front else []
        expected = []
        for sentence in sentences:
            ids = exact.tokenizer(sentence, add_special_tokens=False).input_ids
            logits = exact.hf(input_ids=torch.tensor([front + ids])).logits[0]
            scored = logits.log_softmax(-1)[len(front) - 1 : -1]
            expected.append(scored[range(len(ids)), ids].sum())
        found = sentence_log_probs(exact, sentences, in_front=in_front)
        torch.testing.assert_close(found, torch.stack(expected).detach(), atol=1e-9, rtol=1e-9)


def test_a_pair_is_won_by_the_likelier_sentence(tiny):
    model = tiny("llama")
    pairs = minimal_pairs(3)
    turned = [MinimalPair(phenomenon=p.phenomenon, good=p.bad, bad=p.good) for p in pairs]
    assert torch.equal(prefers_good(model, pairs), ~prefers_good(model, turned))


def test_blimp_is_read(tmp_path):
    (tmp_path / "agreement_1.jsonl").write_text(json.dumps(ROW) + "\n")
    pair = MinimalPair(phenomenon="agreement", good="A cat sleeps.", bad="A cat sleep.",
                       paradigm="agreement_1")  # fmt: skip
    assert read_blimp(tmp_path) == read_blimp(tmp_path / "agreement_1.jsonl") == [pair]


def test_a_damaged_record_is_named(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "sentence_bad": 3}) + "\n")
    with pytest.raises(MalformedRecord, match="bad.jsonl, line 2: field 'sentence_bad'"):
        read_blimp(path)
    path.write_text(json.dumps({**ROW, "sentence_bad": ""}))
    with pytest.raises(MalformedRecord, match="line 1.*needs two sentences"):
        read_blimp(path)
    with pytest.raises(MissingFile):
        read_blimp(tmp_path / "none.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MalformedRecord, match="no JSONL file"):
        read_blimp(tmp_path / "empty")


@pytest.mark.skipif(not BLIMP.exists(), reason="BLiMP itself is not here")
def test_the_published_files_are_read(tmp_path):
    with zipfile.ZipFile(BLIMP) as archive:
        names = [n for n in archive.namelist() if n.endswith(".jsonl") and "MACOSX" not in n]
        for name in names:
            (tmp_path / Path(name).name).write_bytes(archive.read(name))
    pairs = read_blimp(tmp_path)
    assert (len(pairs), len({pair.paradigm for pair in pairs})) == (67_000, 67)


@pytest.mark.slow
def test_smollm2_prefers_the_grammatical_sentences(smollm2):
    good = prefers_good(smollm2, minimal_pairs(10))
    assert proportion(int(good.sum()), len(good)).low > 0.8
