"""A model's world goes with its weights, not with the name it was opened by."""

import shutil

import pytest
import torch

from labkit import load
from labkit import pocket as invented
from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.facts.worlds import World, chains_of, demo_case_of, facts_of, real_world, world_of
from labkit.icl import task_names
from labkit.text.corpus import corpus_of, fact_prompts, held_out
from probes.tasks.defaults import default_tasks, names_of


def test_pocket_weights_in_a_folder_behave_as_pocket_does(pocket, tmp_path):
    from editing.presets.preset_files import preset

    shutil.copytree(invented.path(), tmp_path / "mine")
    mine = load(str(tmp_path / "mine"))
    assert mine.known_as == "pocket" and world_of(mine) is world_of(pocket)
    assert corpus_of(mine) == corpus_of(pocket) and held_out(mine) == held_out(pocket)
    assert fact_prompts(mine) is None
    assert demo_case_of(mine) == demo_case_of(pocket) and facts_of(mine) == facts_of(pocket)
    assert chains_of(mine) is chains_of(pocket)
    assert task_names(mine) == task_names(pocket) and names_of(mine) == names_of(pocket)
    assert preset(mine) == preset(pocket) and preset(mine).measured


def test_a_checkpoint_remembers_what_it_came_from(pocket, tmp_path):
    from editing import ExportOptions, LowRank, WeightDelta, export_hf

    parts = torch.ones(pocket.d_model, 1), torch.ones(1, pocket.d_mlp)
    delta = WeightDelta({pocket.ffn_out_name(1): LowRank(*parts)}, pocket.fingerprint)
    out = export_hf(pocket, delta, tmp_path / "edited", ExportOptions(check=False))
    assert world_of(load(str(out))) is world_of(pocket)


def test_other_models_live_in_the_real_world(tiny):
    model = tiny("llama")
    assert model.known_as == "random-llama" and world_of(model) is real_world()
    assert len(facts_of(model)) > 6000 and demo_case_of(model).rewrite.subject == "Eiffel Tower"
    assert fact_prompts(model) is not None


def test_a_world_can_be_handed_in(tiny):
    facts = tuple(
        Fact(subject=name, template="{} lives in", object=place, relation="home")
        for name, place in (("Ann", "Rome"), ("Bob", "Oslo"))
    )
    model = load("random-llama", world=World(name="letters", facts=facts))
    assert facts_of(model) == list(facts)
    assert sorted(fact_prompts(model).documents) == ["Ann lives in", "Bob lives in"]
    assert held_out(model) == held_out(tiny("llama"))
    with pytest.raises(InputError, match="letters.*no case"):
        demo_case_of(model)
    sentences = ("Ann lives in Rome.", "Bob lives in Oslo.")
    model = load("random-llama", world=World(name="letters", facts=facts, sentences=sentences))
    assert corpus_of(model).documents == sentences and fact_prompts(model) is None


def test_tasks_of_a_world_that_is_not_english(tiny):
    facts = tuple(
        Fact(subject=name, template="{} lives in", object=place, relation="home")
        for name, place in (("Ann", "Rome"), ("Bob", "Oslo"))
    )
    world = World(name="letters", facts=facts, reads_english=False)
    model = load("random-llama", world=world)
    assert task_names(model) == ("home",)
    with pytest.raises(InputError, match="letters"):
        default_tasks(model)


def test_the_pocket_world_is_whole():
    world = invented.as_world()
    assert world.facts == tuple(invented.facts()) and world.sentences == tuple(invented.sentences())
    assert not world.reads_english and world.case == invented.demo_case()
