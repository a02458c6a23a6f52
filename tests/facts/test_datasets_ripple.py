"""RippleEdits files: what is stated is parsed, what is unusable listed, what is broken named."""

import json

import pytest

from labkit.errors import InputError, MalformedRecord, MissingFile
from labkit.facts.fact import fill
from labkit.facts.ripple import CRITERIA, parse_statement, read_ripple_edits
from tests.reference import DATA

PROMPTS = DATA / "rippleedits_prompts"


def query(prompt, value, aliases=()):
    return {"prompt": prompt, "answers": [{"value": value, "aliases": list(aliases)}],
            "query_type": "regular"}  # fmt: skip


MOTHER = query("The name of the mother of Leonardo DiCaprio is", "Irmelin DiCaprio",
               ["Irmelin Indenbirken"])  # fmt: skip
STATED = "The name of the country of citizenship of Leonardo DiCaprio is {}."
EDIT = {
    "example_type": "popular",
    "edit": {
        "prompt": STATED.format("Syria"),
        "subject_id": "Q38111",
        "relation": "COUNTRY_OF_CITIZENSHIP",
        "target_id": "Q858",
        "original_fact": {"prompt": STATED.format("United States of America")},
    },
    **{criterion: [] for criterion in CRITERIA},
    "Relation_Specificity": [
        {"test_queries": [MOTHER], "test_condition": "OR", "condition_queries": [MOTHER]}
    ],
    "Subject_Aliasing": [
        {
            "test_queries": [query("The country of citizenship of Leo DiCaprio is", "Syria")],
            "test_condition": "AND",
            "condition_queries": [],
        }
    ],
}


@pytest.fixture
def read(tmp_path):
    def read(*records):
        path = tmp_path / "ripple.json"
        path.write_text(json.dumps(records))
        return read_ripple_edits(path)

    return read


def test_an_edit_is_recovered_from_its_sentence(read):
    (edit,) = read(EDIT)
    assert edit.rewrite.template == "The name of the country of citizenship of {} is"
    assert (edit.rewrite.subject, edit.rewrite.target_new, edit.rewrite.target_true) == (
        "Leonardo DiCaprio", "Syria", "United States of America",
    )  # fmt: skip
    (test,) = edit.tests["Relation_Specificity"]
    assert test.queries[0].answers == ("Irmelin DiCaprio", "Irmelin Indenbirken")
    assert test.conditions == test.queries and not test.every
    assert edit.tests["Subject_Aliasing"][0].every
    assert edit.tests["Forgetfulness"] == ()


def test_both_editions_of_the_files_are_read(read):
    edit = {k: v for k, v in EDIT["edit"].items() if k != "original_fact"}
    older = {**EDIT, "edit": {**edit, "previous_fact": EDIT["edit"]["original_fact"]}}
    older["Relation_Specifity"] = older.pop("Relation_Specificity")
    assert read(older).edits == read(EDIT).edits
    recent = read({**EDIT, "example_type": "recent", "edit": edit})
    assert recent[0].rewrite.target_true is None and recent[0].case_id == "recent-0"


@pytest.mark.parametrize(
    ("sentence", "template", "subject", "object_"),
    [
        ("The names of the siblings of Ann are Bob.", "The names of the siblings of {} are",
         "Ann", "Bob"),
        ("The name of the award A. Won won is B.", "The name of the award {} won is",
         "A. Won", "B"),
        ("The place of birth of Ann of Kent is Kent.", "The place of birth of {} is",
         "Ann of Kent", "Kent"),
        ("Big Mouth is followed by The End.", "{} is followed by", "Big Mouth", "The End"),
        ("The name of the country which X is associated with is Y.",
         "The name of the country which {} is associated with is", "X", "Y"),
        ("The gender of of is o.", "The gender of {} is", "of", "o"),
    ],
)  # fmt: skip
def test_statements_are_taken_apart(sentence, template, subject, object_):
    assert parse_statement(sentence) == (template, subject, object_)


def test_a_sentence_without_an_object_is_taken_for_no_other():
    with pytest.raises(InputError, match="no subject and object"):
        parse_statement("The name of the country which Minsk is the capital of is .")


def test_a_record_that_is_no_edit_is_listed(read):
    empty = {**EDIT, "edit": {"prompt": "The name of the father of Joe Biden is ."}}
    other = {**EDIT, "edit": {**EDIT["edit"], "original_fact": {"prompt": "Ann follows Bob."}}}
    found = read(EDIT, empty, other)
    assert len(found) == 1 and len(found.left_out) == 2
    assert "record 1" in found.left_out[0] and "Joe Biden" in found.left_out[0]
    assert "record 2" in found.left_out[1] and "different subjects" in found.left_out[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"edit": "Syria"}, "record 0: field 'edit' should be an object"),
        ({"edit": {}}, "record 0, edit: has no field 'prompt'"),
        ({"Forgetfulness": None}, "record 0: field 'Forgetfulness' should be a list"),
        ({"Forgetfulness": [{"test_condition": "XOR"}]}, r"Forgetfulness\[0\].*'OR' or 'AND'"),
        ({"Forgetfulness": [{"test_condition": "OR", "test_queries": [{"prompt": 1}]}]},
         r"Forgetfulness\[0\], test_queries\[0\]: field 'prompt' should be a text"),
    ],
)  # fmt: skip
def test_a_damaged_record_is_named(read, change, says):
    with pytest.raises(MalformedRecord, match=says):
        read({**EDIT, **change})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFile, match="none.json"):
        read_ripple_edits(tmp_path / "none.json")


@pytest.mark.skipif(not PROMPTS.exists(), reason="the published statements are not here")
@pytest.mark.parametrize("name", ["popular", "random"])
def test_nearly_every_published_statement_is_taken_apart(name):
    statements = json.loads((PROMPTS / f"{name}_prompts.json").read_text())
    failed = 0
    for sentence in statements:
        try:
            template, subject, object_ = parse_statement(sentence)
        except InputError:
            failed += 1
            continue
        assert f"{fill(template, subject)} {object_}." == sentence.strip()
    assert failed <= 0.002 * len(statements)
