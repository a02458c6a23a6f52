"""Names resolve to weights, or say what is wrong; random models are seeded and non-trivial."""

import json
from pathlib import Path

import pytest
import torch

from labkit.errors import InputError, LabkitError, UnknownModel
from labkit.models import registry
from labkit.models.random_models import FAMILIES


def save_folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text("{}")
    return path


def test_a_local_folder_comes_before_a_short_name(tmp_path, monkeypatch):
    save_folder(tmp_path / "random-llama", "config.json", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert registry.resolve("random-llama").kind == "folder"
    assert registry.resolve("random-gpt2") == registry.Source(kind="random", family="gpt2")


def test_the_pocket_model_is_in_the_package():
    try:
        folder = registry.fetch("pocket")
    except InputError:
        pytest.skip("the pocket model has not been trained yet")
    assert folder.is_relative_to(Path(registry.__file__).parents[1])


def test_org_slash_name_is_a_hub_id():
    assert registry.resolve("openai-community/gpt2") == registry.Source(
        kind="hub", id="openai-community/gpt2"
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [("smolm2-135m", "smollm2-135m"), ("Pockett", "pocket"), ("random-lama", "random-llama")],
)
def test_an_unknown_name_is_answered_with_the_nearest_ones(name, near):
    with pytest.raises(UnknownModel, match=f"did you mean .*{near}.*Registered: .*pocket"):
        registry.resolve(name)


@pytest.mark.parametrize(
    "name", ["", "   ", "gpt-5", "no/such/folder", "./nothing", "../a b", "/x/y"]
)
def test_what_is_no_name_at_all_is_unknown(name):
    with pytest.raises(UnknownModel, match="Registered: "):
        registry.resolve(name)
    with pytest.raises(UnknownModel):
        registry.fetch(name)


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"without a config\.json"):
        registry.resolve(save_folder(tmp_path / "empty"))
    save_folder(tmp_path / "half", "config.json")
    with pytest.raises(InputError, match="a file"):
        registry.resolve(tmp_path / "half" / "config.json")


def test_a_random_model_lies_nowhere():
    with pytest.raises(InputError, match="nothing to fetch"):
        registry.fetch("random-llama")


def test_every_entry_says_what_it_is():
    names = [entry.name for entry in registry.entries()]
    assert names[:2] == ["pocket", "smollm2-135m"] and len(names) == 2 + len(FAMILIES)
    for entry in registry.entries():
        shown = json.loads(json.dumps(entry.to_dict()))
        assert shown["description"] and shown["license"] and shown["source"]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("GatedRepoError", "accept it"),
        ("RepositoryNotFoundError", "no such model"),
        ("ConnectError", "cannot be reached"),
        ("OfflineModeIsEnabled", "HF_HUB_OFFLINE"),
        ("LocalEntryNotFoundError", "HF_HUB_OFFLINE"),
        ("SomethingElse", "transformers' own words"),
    ],
)
def test_a_hub_failure_says_what_to_do(kind, advice):
    reason = type(kind, (OSError,), {})("reason")
    wrapper = OSError("transformers' own words")
    wrapper.__cause__ = reason
    error = registry.hub_error("org/name", wrapper)
    assert isinstance(error, LabkitError)
    assert "org/name" in str(error) and advice in str(error) and "pocket" in str(error)


# --- random models ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_model_is_seeded_and_non_trivial(family):
    state = torch.random.get_rng_state()
    model, tokenizer = registry.random_model(family, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    again, other = (registry.random_model(family, seed=seed)[0] for seed in (3, 4))
    pairs = zip(model.parameters(), again.parameters(), other.parameters(), strict=True)
    for first, same, different in pairs:
        assert torch.equal(first, same) and not torch.equal(first, different)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.std() > 0.05, name
    adds_bos = tokenizer("x").input_ids[0] == tokenizer.bos_token_id
    assert adds_bos == (family in {"llama", "gemma"})
    text = "the Eiffel Tower is in Zürich, 東京"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_an_unknown_family_is_refused():
    with pytest.raises(UnknownModel, match="gpt-neox"):
        registry.random_model("bert")
