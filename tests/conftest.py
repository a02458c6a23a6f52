"""Checked annotations, tiny models of every family, and a cache that is not the user's.

Shapes and types that the library's signatures promise are checked while the suite runs:
the import hook below has to be in place before anything of the library is imported.
"""

import os

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: a thread each, kernels too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# ruff: noqa: E402
from tests.checked_annotations import check

check()

import sys
import zlib
from functools import cache
from pathlib import Path

import jaxtyping
import pytest

# The library is imported where it is used: a process that only hands tests to others needs none.


@pytest.fixture(scope="session", autouse=True)
def _threads():
    import torch

    beside_others = "PYTEST_XDIST_WORKER" in os.environ
    torch.set_num_threads(1 if beside_others else min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def tiny():
    """`tiny(family, dtype)`: one model of random weights for the whole session."""
    from labkit.models.loading import load

    return cache(lambda family, dtype="float32": load(f"random-{family}", dtype=dtype))


EVERY_FAMILY = (
    "laws/", "models/", "running/", "editing/export/", "tokens/", "text/test_moments.py",
    "locate/test_tracing.py", "locate/test_heads.py",
)  # fmt: skip
"""Where architecture matters, a law is held to all six families."""

TWO_FAMILIES = ("llama", "gpt2")
"""Elsewhere to two that differ most: Linear with a BOS in front, Conv1D without."""


def pytest_generate_tests(metafunc):
    """Families for the tests that ask for one; with editors beside them, a Latin square.

    Each editor of a test then runs on one family, another in the next test, so that over a file
    every editor meets every family.
    """
    from editing import METHODS
    from labkit.models.random_models import FAMILIES

    given = {
        argument.strip()
        for mark in metafunc.definition.iter_markers("parametrize")
        for argument in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])
    }
    asked = {"family", "name"} & set(metafunc.fixturenames) - given
    path = metafunc.definition.path.relative_to(Path(__file__).parent).as_posix()
    editors = [name for name in METHODS if name != "in_context"]
    if asked == {"family", "name"} and path.startswith("editing/"):
        first = zlib.crc32(metafunc.function.__name__.encode())
        pairs = [(name, FAMILIES[(first + i) % len(FAMILIES)]) for i, name in enumerate(editors)]
        metafunc.parametrize(("name", "family"), pairs, indirect=True)
    elif "family" in asked:
        families = FAMILIES if path.startswith(EVERY_FAMILY) else TWO_FAMILIES
        metafunc.parametrize("family", families, indirect=True)
    elif "name" in asked and path.startswith("editing/"):
        metafunc.parametrize("name", editors, indirect=True)


@pytest.fixture
def family(request):
    """A model family; see `pytest_generate_tests`."""
    return request.param


@pytest.fixture
def model(tiny, family):
    """A tiny model of each family; whatever a test does, it must be as before afterwards."""
    from labkit.models.in_effect import fingerprint
    from tests.reference import n_hooks

    model = tiny(family)
    yield model
    assert fingerprint(model.hf, model.tokenizer) == model.fingerprint, "the weights were changed"
    assert n_hooks(model) == 0, "hooks were left behind"


@pytest.fixture
def exact(tiny, family, monkeypatch):
    """The same in float64, throughout: GPT-J computes its attention in float32 otherwise."""
    if family == "gptj":
        import torch
        from transformers.models.gptj import modeling_gptj

        class Float64Torch:
            """The torch module, which takes float32 for float64."""

            float32 = torch.float64

            def __getattr__(self, name):
                return getattr(torch, name)

        monkeypatch.setattr(modeling_gptj, "torch", Float64Torch())
    return tiny(family, "float64")


@pytest.fixture
def no_forward(tiny):
    """From here on no module of any model may run: what is refused is refused before."""
    import torch

    for family in TWO_FAMILIES:  # opening a model runs the self-check
        tiny(family)

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
    from labkit.models.loading import load

    return load("pocket")


@pytest.fixture(scope="session")
def smollm2():
    """The default model, where it has been fetched. For tests marked `slow`."""
    from labkit.models import registry
    from labkit.models.loading import load

    if not registry.ENTRIES["smollm2-135m"].cached:
        pytest.skip("smollm2-135m is not in the cache: labkit fetch smollm2-135m")
    return load("smollm2-135m")


@pytest.fixture(scope="session")
def _cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(_cache_folder, monkeypatch):
    """A cache folder of the session's own, in place of the user's."""
    monkeypatch.setenv("LABKIT_CACHE", str(_cache_folder))
    return _cache_folder


@pytest.fixture
def labkit(monkeypatch, capsys):
    """Run a command line; returns exit status, standard output and standard error."""
    from labkit import cli

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
    from labkit.text.corpus import Corpus

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
