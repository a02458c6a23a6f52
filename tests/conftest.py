"""Checked annotations, tiny models of every family, and a cache that is not the user's.

Shapes and types that the library's signatures promise are checked while the suite runs:
the import hook below has to be in place before anything of the library is imported.
"""

import os

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# ruff: noqa: E402
import jaxtyping

jaxtyping.install_import_hook(
    ["labkit", "probes", "editing"],
    # An expression: an int is taken where a float is asked for, as people write `noise=3`.
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

import sys
from functools import cache

import pytest
import torch

from labkit import cli
from labkit.models import registry
from labkit.models.fingerprints import fingerprint
from labkit.models.loading import load
from labkit.models.random_models import FAMILIES
from labkit.text.corpus import Corpus
from tests.reference import n_hooks

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def tiny():
    """`tiny(family, dtype)`: one model of random weights for the whole session."""
    return cache(lambda family, dtype="float32": load(f"random-{family}", dtype=dtype))


@pytest.fixture(params=FAMILIES)
def family(request):
    """Each of the families that every law must hold for."""
    return request.param


@pytest.fixture
def model(tiny, family):
    """A tiny model of each family; whatever a test does, it must be as before afterwards."""
    model = tiny(family)
    yield model
    assert fingerprint(model.hf, model.tokenizer) == model.fingerprint, "the weights were changed"
    assert n_hooks(model) == 0, "hooks were left behind"


@pytest.fixture
def exact(tiny, family, monkeypatch):
    """The same in float64, throughout: GPT-J computes its attention in float32 otherwise."""
    if family == "gptj":
        from transformers.models.gptj import modeling_gptj

        monkeypatch.setattr(modeling_gptj, "torch", _Float64Torch())
    return tiny(family, "float64")


class _Float64Torch:
    """The torch module, which takes float32 for float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def no_forward():
    """From here on no module of any model may run: what is refused is refused before."""

    def refuse(module, _args):
        raise AssertionError(f"{type(module).__name__} ran")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    yield
    handle.remove()


@pytest.fixture
def unchecked():
    """Annotations unchecked, as users run: for arguments that no type checker would let pass."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def pocket():
    """The small model that knows its world."""
    return load("pocket")


@pytest.fixture(scope="session")
def smollm2():
    """The default model, where it has been fetched. For tests marked `slow`."""
    if not registry.ENTRIES["smollm2-135m"].cached:
        pytest.skip("smollm2-135m is not in the cache: labkit fetch smollm2-135m")
    return load("smollm2-135m")


@pytest.fixture(scope="session")
def _cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(_cache_folder, monkeypatch):
    """A cache folder of the session's own, in the place of the user's."""
    monkeypatch.setenv("LABKIT_CACHE", str(_cache_folder))
    return _cache_folder


@pytest.fixture
def labkit(monkeypatch, capsys):
    """Run a command line; returns exit status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def corpus():
    """Plain sentences, enough for contexts and for a second moment of full rank."""
    subjects = "baker farmer sailor teacher painter singer doctor judge".split()
    verbs = "sees likes helps meets follows paints".split()
    places = "mill harbour school garden tower".split()
    sentences = [
        f"The {a} {v} the {b} in the {p}."
        for a in subjects
        for v in verbs
        for b, p in zip(subjects, places, strict=False)
        if a != b
    ]
    documents = tuple(" ".join(sentences[i::16]) for i in range(16))
    return Corpus(documents=documents, source="sentences of the test suite")
