"""Chains of facts: walked one step and two, in words that fit, in both worlds."""

import pytest

from labkit import pocket as world
from labkit.facts.fact import fill
from labkit.facts.worlds import chains_of, real_world

CHAINS = real_world().chains


def asked(chains, *start):
    return {path.prompt: path.answer.object for path in chains.onward(*start)}


def test_the_tower_goes_on_to_a_country_and_to_its_language():
    found = asked(CHAINS, "landmark_city", "Eiffel Tower", "Rome")
    assert found["The Eiffel Tower is located in the country of"] == "Italy"
    assert found["The city where the Eiffel Tower is located is in the country of"] == "Italy"
    language = "The official language of the country where the Eiffel Tower is located is"
    assert found[language] == "Italian"


def test_every_path_is_a_chain_of_facts():
    pocket = world.as_world().chains
    for chains, facts in ((CHAINS, CHAINS.facts[::40]), (pocket, world.facts()[::10])):
        for fact in facts:
            for path in chains.onward(fact.relation, fact.subject, str(fact.object)):
                at = str(fact.object)
                for step in path.facts:
                    assert step in chains.facts
                    assert step.subject.removeprefix("the ") == at.removeprefix("the ")
                    at = str(step.object)
                assert fact.subject in path.prompt
                assert path.prompt[0].isupper() and "{" not in path.prompt


@pytest.mark.parametrize("chains", [CHAINS, world.as_world().chains], ids=["bundled", "pocket"])
def test_every_wording_belongs_to_a_relation_and_takes_one_name(chains):
    for words in chains.wordings:
        assert set(words.relations) <= set(chains.relations)
        kinds = {chains.relations[r].object_type for r in words.relations}
        assert len(kinds) == 1
        texts = [words.asked, words.phrase, words.reversed, words.negated]
        for step, short in (words.direct or {}).items():
            assert chains.wording(step).asked is not None
            texts += [short["asked"], short.get("phrase")]
        assert all(text.count("{}") == 1 for text in texts if text is not None)


def test_other_names_are_of_subjects_and_no_names_of_others():
    subjects = {fact.subject for fact in CHAINS.facts}
    for (kind, name), others in CHAINS.names.items():
        assert name in subjects
        assert kind in {relation.subject_type for relation in CHAINS.relations.values()}
        own = {f.subject for f in CHAINS.facts if CHAINS.relations[f.relation].subject_type == kind}
        assert others and own.isdisjoint(others)


def test_the_pocket_world_is_asked_in_its_own_words(pocket):
    chains = chains_of(pocket)
    unknown = pocket.tokenizer.unk_token_id
    for fact in world.facts()[::7]:
        prompts = [p.prompt for p in chains.onward(fact.relation, fact.subject, str(fact.object))]
        words = chains.wording(fact.relation)
        if words is not None and words.reversed is not None:
            prompts.append(fill(words.reversed, str(fact.object)))
        for prompt in prompts:
            assert unknown not in pocket.tokenizer(prompt).input_ids, prompt


def test_an_unknown_relation_leads_nowhere():
    assert asked(CHAINS, "P30", "Angola", "Antarctica") == asked(CHAINS, None, "x", "y") == {}
