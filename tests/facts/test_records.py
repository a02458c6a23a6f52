"""Readers of facts, rewrites and cases: what fits is read whole, what does not is named."""

import json

import pytest

from labkit.errors import MalformedRecord, MissingFile, OutputError
from labkit.facts.bundled import bundled_facts
from labkit.facts.cases import demo_case, make_case
from labkit.facts.datasets import read_known, read_multihop, read_questions, read_relations
from labkit.facts.fact import Deletion, Rewrite
from labkit.facts.records import read_cases, read_facts, read_rewrites, write_jsonl
from tests.reference import DATA

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no data at {DATA}: set LABKIT_DATA to the folder that holds it"
)

REWRITE = {
    "subject": "Brass Owl",
    "prompt": "The {} was carved in",
    "relation_id": "P1",
    "target_new": {"str": "Malta", "id": "Q1"},
    "target_true": {"str": "Wales", "id": "Q2"},
}
COUNTERFACT = {
    "case_id": 7,
    "requested_rewrite": REWRITE,
    "paraphrase_prompts": ["Sculptors made the Brass Owl in"],
    "neighborhood_prompts": ["The Tin Heron was carved in", "The Lead Wren was carved in"],
    "attribute_prompts": ["The Clay Gull was carved in"],
    "generation_prompts": ["Beside the Brass Owl"],
}
FLAT = {
    "case_id": 8,
    "subject": "Brass Owl",
    "prompt": "The Brass Owl was carved in",
    "target_new": "Malta",
    "ground_truth": "Wales",
    "rephrase_prompt": "Sculptors made the Brass Owl in",
    "locality_prompt": "The Tin Heron was carved in",
    "locality_ground_truth": "Wales",
}
OWN = {"subject": "Brass Owl", "template": "The {} was carved in", "target_new": "Malta"}
KNOWN = {"subject": "Brass Owl", "prompt": "The Brass Owl was carved in", "attribute": "Wales"}
LRE = {
    "name": "carved in",
    "prompt_templates": ["The {} was carved in"],
    "prompt_templates_zs": ["The {} was carved in", "Where was the {} carved? In"],
    "properties": {"relation_type": "factual", "domain_name": "statue", "range_name": "country"},
    "samples": [{"subject": "Brass Owl ", "object": "Wales"}] * 2,
}
POPQA = {"input": "Where is the Brass Owl?", "output": '["Wales", "Cymru"]', "s_pop": 5, "o_pop": 9}
HOP = {"question": "Where?", "cloze": "It is in", "answer": "Wales", "answer_alias": ["Cymru"]}
MQUAKE = {
    "case_id": 9,
    "requested_rewrite": [REWRITE],
    "questions": ["Who rules where the Brass Owl was carved?"],
    "answer": "a prince",
    "answer_alias": [],
    "new_answer": "a president",
    "new_answer_alias": ["the president"],
    "single_hops": [HOP, HOP],
    "new_single_hops": [HOP],
}


@pytest.fixture
def write(tmp_path):
    def write(content, name="data.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_rewrite_to_nothing_is_a_deletion_and_no_case(tmp_path):
    path = tmp_path / "asked.jsonl"
    fields = {"subject": "Paris", "template": "{} is in", "target_new": None}
    path.write_text(json.dumps({**fields, "target_true": "France"}), encoding="utf-8")
    deletion = Deletion(subject="Paris", template="{} is in", target_true="France")
    assert read_rewrites(path) == [deletion]
    with pytest.raises(MalformedRecord, match="target_new"):
        read_cases(path)
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(MalformedRecord, match="target_true"):
        read_rewrites(path)


def test_what_is_written_is_read_back(tmp_path):
    facts = bundled_facts()[::50]
    cases = [make_case(fact, bundled_facts(), "Zork", seed=0) for fact in facts[:5]] + [demo_case()]
    write_jsonl(tmp_path / "facts.jsonl", facts)
    write_jsonl(tmp_path / "cases.jsonl", cases)
    write_jsonl(tmp_path / "rewrites.jsonl", [case.rewrite for case in cases])
    assert read_facts(tmp_path / "facts.jsonl") == facts
    assert read_cases(tmp_path / "cases.jsonl") == cases
    assert read_rewrites(tmp_path / "cases.jsonl") == [case.rewrite for case in cases]
    assert read_rewrites(tmp_path / "rewrites.jsonl") == [case.rewrite for case in cases]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError):
        write_jsonl(tmp_path / "nowhere" / "facts.jsonl", bundled_facts()[:1])
    assert list(tmp_path.iterdir()) == []


def test_the_three_formats_of_a_case_say_the_same(write):
    own = {
        "case_id": "8",
        "subject": "Brass Owl",
        "prompt": "The Brass Owl was carved in",
        "target_new": "Malta",
        "target_true": "Wales",
        "paraphrases": ["Sculptors made the Brass Owl in"],
        "neighbours": [{"prompt": "The Tin Heron was carved in", "object": "Wales"}],
    }
    [flat] = read_cases(write([FLAT]))
    assert read_cases(write(lines(own))) == [flat]
    assert read_cases(write(lines(FLAT))) == [flat]
    [full] = read_cases(write([COUNTERFACT]))
    assert full.rewrite == Rewrite(
        subject="Brass Owl",
        template="The {} was carved in",
        target_new="Malta",
        target_true="Wales",
        relation="P1",
    )
    assert (full.case_id, full.paraphrases) == ("7", flat.paraphrases)
    assert (full.neighbours[0], len(full.neighbours)) == (flat.neighbours[0], 2)
    assert full.attributes == ("The Clay Gull was carved in",)
    assert full.generation == ("Beside the Brass Owl",)


def test_records_without_an_id_are_numbered(write):
    cases = read_cases(write(lines(OWN, {**OWN, "subject": "Tin Heron"})))
    assert [case.case_id for case in cases] == ["0", "1"]


def without(record, field):
    return {name: value for name, value in record.items() if name != field}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no record"),
        ("[]", "no record"),
        ("\n{not json}\n", "line 2: not JSON"),
        ('[{"a": 1}, ', r"not JSON.*line 1"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "record 0: should be a JSON object"),
        (lines(OWN, without(OWN, "target_new")), "line 2: has no field 'target_new'"),
        (lines({**OWN, "target_new": ""}), "line 1: a target .* is empty"),
        (lines({**OWN, "target_new": 3}), "'target_new' should be a text, not 3"),
        (lines({**OWN, "template": "It was carved in"}), "line 1: .*exactly one"),
        (lines({**OWN, "prompt": "The Brass Owl was"}), "either the field 'template'"),
        (lines(without(OWN, "template")), "either the field 'template'"),
        (lines({**without(OWN, "template"), "prompt": "It was"}), "line 1: .*'Brass Owl'"),
        (lines({**OWN, "target_knew": "Malta"}), "'target_knew'; did you mean 'target_new'"),
        (lines({**OWN, "paraphrases": "The Brass Owl"}), "'paraphrases' should be a list"),
        (lines({**OWN, "paraphrases": [4]}), r"'paraphrases'\[0\] should be a text"),
        (lines({**OWN, "paraphrases": [""]}), "line 1: a prompt .* is empty"),
        (lines({**OWN, "neighbours": ["x"]}), "'neighbours' should hold objects"),
        (
            lines({**OWN, "neighbours": [{"prompt": "x"}]}),
            r"neighbours\[0\]: has no field 'object'",
        ),
        (lines({**OWN, "case_id": "a"}, {**OWN, "case_id": "a"}), "line 2: field 'case_id'"),
        ([{**COUNTERFACT, "neighborhood_prompts": {}}], "record 0: .*'neighborhood_prompts'"),
        ([{**COUNTERFACT, "requested_rewrite": []}], "'requested_rewrite' holds no rewrite"),
        ([{**COUNTERFACT, "requested_rewrite": [3]}], "'requested_rewrite' should hold objects"),
        (
            [{**COUNTERFACT, "requested_rewrite": without(REWRITE, "target_new")}],
            "record 0, requested_rewrite: has no field 'target_new'",
        ),
        (
            [{**COUNTERFACT, "requested_rewrite": {**REWRITE, "target_new": {"id": "Q1"}}}],
            "requested_rewrite, target_new: has no field 'str'",
        ),
        ([{**FLAT, "subject": "Clay Gull"}], "record 0: the subject 'Clay Gull' is not"),
        ([{**FLAT, "rephrase_prompt": 3}], "record 0: field 'rephrase_prompt' should be a text"),
        ([{**FLAT, "locality_ground_truth": " "}], "record 0: a target .* is empty"),
    ],
)
def test_a_malformed_case_is_named_with_file_record_and_field(write, content, says):
    path = write(content)
    for read in (read_cases, read_rewrites):
        with pytest.raises(MalformedRecord, match=says) as error:
            read(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            lines({"subject": "a", "template": "{} is"}, {"template": "{} is"}),
            "line 2: .*'subject'",
        ),
        (lines({"subject": "a", "template": "{} is", "obejct": "b"}), "did you mean 'object'"),
    ],
)
def test_a_malformed_fact_is_named(write, content, says):
    with pytest.raises(MalformedRecord, match=says):
        read_facts(write(content))


READERS = (read_cases, read_rewrites, read_facts, read_known, read_relations, read_questions)


@pytest.mark.parametrize("read", [*READERS, read_multihop])
def test_what_cannot_be_opened_is_missing(tmp_path, read):
    with pytest.raises(MissingFile, match=r"gone\.json"):
        read(tmp_path / "gone.json")
    (tmp_path / "latin.json").write_bytes("[{'é'}]".encode("latin-1"))
    with pytest.raises(MalformedRecord, match="not UTF-8"):
        read(tmp_path / "latin.json")


def test_tiny_records_of_the_published_formats(write, tmp_path):
    [fact] = read_known(write([KNOWN]))
    assert (fact.template, fact.object) == ("The {} was carved in", "Wales")

    (tmp_path / "lre").mkdir()
    write(LRE, "lre/one.json")
    [(relation, facts)] = read_relations(tmp_path / "lre")
    assert relation.templates == ("The {} was carved in", "Where was the {} carved? In")
    assert [(fact.subject, fact.object) for fact in facts] == [("Brass Owl", "Wales")]
    assert facts[0].paraphrases == relation.templates[1:]

    [question] = read_questions(write({"dev": [], "test": [POPQA]}))
    assert (question.answers, question.subject_views) == (("Wales", "Cymru"), 5)

    [chain] = read_multihop(write([MQUAKE]))
    assert (len(chain.hops), len(chain.new_hops), chain.hops[0].aliases) == (2, 1, ("Cymru",))
    assert chain.rewrites[0].target_true == "Wales"


@pytest.mark.parametrize(
    ("read", "content", "says"),
    [
        (read_known, [KNOWN, without(KNOWN, "attribute")], "record 1: has no field 'attribute'"),
        (read_known, [{**KNOWN, "subject": "Gull"}], "record 0: the subject 'Gull'"),
        (read_relations, [LRE], "should be a JSON object"),
        (read_relations, without(LRE, "samples"), "has no field 'samples'"),
        (read_relations, {**LRE, "samples": [{"subject": "a"}]}, r"samples\[0\]: .*'object'"),
        (read_relations, {**LRE, "prompt_templates": ["It was"]}, "exactly one"),
        (read_questions, {"dev": [POPQA]}, "has no field 'test'"),
        (read_questions, {"dev": [{**POPQA, "output": "[]"}], "test": []}, "holds no answer"),
        (read_questions, {"dev": [{**POPQA, "output": "Wales"}], "test": []}, "'output': not JSON"),
        (read_questions, {"dev": [{**POPQA, "s_pop": "5"}], "test": []}, "'s_pop' should be a"),
        (read_multihop, [{**MQUAKE, "single_hops": [{}]}], r"single_hops\[0\]: .*'question'"),
        (read_multihop, [MQUAKE, without(MQUAKE, "new_answer")], "record 1: .*'new_answer'"),
    ],
)
def test_a_malformed_published_record_is_named(write, read, content, says):
    with pytest.raises(MalformedRecord, match=says) as error:
        read(write(content))
    assert "data.json" in str(error.value)


def test_a_folder_without_relations_is_refused(tmp_path):
    with pytest.raises(MalformedRecord, match="no JSON file"):
        read_relations(tmp_path)


@needs_data
def test_counterfact_is_read_whole():
    cases = read_cases(DATA / "counterfact" / "counterfact_250.json")
    assert len(cases) == 250
    assert {len(case.neighbours) for case in cases} == {10}
    flat = read_cases(DATA / "counterfact" / "counterfact-train.json")
    assert len(flat) == 10_000
    assert all(case.rewrite.target_true for case in (*cases, *flat))
    raw = json.loads((DATA / "counterfact" / "counterfact-train.json").read_text())
    assert [case.rewrite.prompt for case in flat] == [record["prompt"] for record in raw]


@needs_data
def test_the_other_collections_are_read_whole():
    assert len(read_known(DATA / "known_1000" / "known_1000.json")) == 1209
    relations = read_relations(DATA / "lre_relations")
    assert len(relations) == 47
    assert sum(len(facts) for _, facts in relations) == 11_049  # 40 samples are there twice
    assert len(read_questions(DATA / "popqa_1000" / "popqa_sample_2000.json")) == 2000
    assert len(read_questions(DATA / "popqa_1000" / "popqa.json")) == 1000
    chains = read_multihop(DATA / "mquake_hard" / "MQuAKE-hard.json")
    assert len(chains) == 429
    assert {len(chain.hops) for chain in chains} == {4}
