"""Published editing collections, in the shape of a record each, become the same cases."""

import json

import pytest

from editing.edits.requests import check, grouped
from labkit.errors import AlreadyTrue, InputError
from labkit.facts.fact import Neighbour, Rewrite
from labkit.facts.records import read_cases, read_rewrites

PROMPT, NEW, OLD = "The capital of Norway is", "Rome", "Oslo"
FLAT = {"subject": "Norway", "prompt": PROMPT, "target_new": NEW, "ground_truth": OLD}
REQUESTED = {
    "prompt": "The capital of {} is", "subject": "Norway", "relation_id": "P36",
    "target_new": {"str": NEW, "id": "Q1"}, "target_true": {"str": OLD, "id": "Q2"},
    "question": "What is the capital of Norway?",
}  # fmt: skip
NEAR = Neighbour(prompt="The capital of Peru is", object="Lima")
NESTED = {"prompt": NEAR.prompt, "ground_truth": NEAR.object}
RECORDS = {
    "CounterFact": {"case_id": 1, "requested_rewrite": REQUESTED},
    "CounterFact, flat": FLAT,
    "zsRE": {
        "subject": "Norway", "src": PROMPT, "alt": NEW, "answers": [OLD], "rephrase": "Norway, of",
        "loc": "nq question: The capital of Peru is", "loc_ans": "Lima", "cond": "x >> y || z",
    },
    "EasyEdit": FLAT | {"rephrase_prompt": "Norway, of", "locality": {"neighborhood": NESTED}},
    "EasyEdit, lists": FLAT | {
        "locality": {"neighborhood": {"prompt": [NEAR.prompt], "ground_truth": [NEAR.object]}}
    },
    "KnowEdit": {
        "subject": "Norway", "prompt": PROMPT, "target_new": NEW, "ground_truth": [OLD],
        "portability": {"Reasoning": [{"prompt": "a", "ground_truth": [["b"]]}]},
        "locality": {"Relation_Specificity": [
            {"prompt": NEAR.prompt, "ground_truth": [[NEAR.object, "Lima city"]]},
            {"prompt": "nothing is known of", "ground_truth": [[]]},
        ]},
    },
    "MQuAKE": {"case_id": 1, "requested_rewrite": [REQUESTED], "questions": ["?"]},
}  # fmt: skip


@pytest.mark.parametrize("collection", RECORDS)
@pytest.mark.parametrize("indent", [None, 2], ids=["line", "pretty"])
def test_every_collection_gives_the_same_rewrite(tmp_path, collection, indent):
    path = tmp_path / "records.json"
    path.write_text(json.dumps(RECORDS[collection], indent=indent))
    (case,), (rewrite,) = read_cases(path), read_rewrites(path)
    assert case.rewrite == rewrite
    assert (rewrite.prompt, rewrite.target_new, rewrite.target_true) == (PROMPT, NEW, OLD)
    near = [NEAR] if any(name in collection for name in ("zsRE", "Easy", "Know")) else []
    assert list(case.neighbours) == near


def test_rewrites_of_one_record_are_cases_of_their_own(tmp_path):
    other = REQUESTED | {"subject": "Peru"}
    path = tmp_path / "mquake.json"
    path.write_text(json.dumps([{"requested_rewrite": [REQUESTED, other]}] * 2))
    assert [case.case_id for case in read_cases(path)] == ["0.0", "0.1", "1.0", "1.1"]
    assert [rewrite.subject for rewrite in read_rewrites(path)] == ["Norway", "Peru"]


def test_several_objects_over_several_lines_are_several_records(tmp_path):
    path = tmp_path / "pretty.json"
    path.write_text("\n".join(json.dumps(FLAT | {"case_id": i}, indent=1) for i in range(3)))
    assert len(read_cases(path)) == 3


@pytest.mark.parametrize(
    "other", [{"target_true": "Bergen"}, {"relation": "P36"}, {"target_new": " Rome"}]
)
def test_the_same_rewrite_twice_is_a_duplicate_and_no_contradiction(other):
    one = {"subject": "Norway", "template": "The capital of {} is", "target_new": NEW}
    with pytest.raises(InputError, match="twice"):
        grouped([Rewrite(**one), Rewrite(**(one | other))])


def test_a_rewrite_that_changes_nothing_is_refused(tiny):
    same = Rewrite(subject="mill", template="the {} is", target_new=" old", target_true="old")
    with pytest.raises(AlreadyTrue, match="nothing to edit"):
        check(tiny("llama"), [same])
