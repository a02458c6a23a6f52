"""A rewrite that fits the tiny models, and editors set to work fast."""

from typing import Any

import pytest
import torch

from editing import METHODS
from editing.edits.delta import LowRank, WeightDelta
from editing.methods.closed_form.value_search import ValueSearch
from editing.methods.tuning.training import Training
from labkit.facts.fact import Case, Neighbour, Rewrite
from labkit.locate import KnowledgeNeurons

_BRIEF: dict[str, Any] = {"n_contexts": 3, "search": ValueSearch(steps=4)}

FAST = {
    "rome": _BRIEF | {"layer": 1},
    "emmet": _BRIEF | {"layer": 1},
    "memit": _BRIEF | {"layers": (0, 1)},
    "blue": _BRIEF | {"layers": (0, 1)},
    "pmet": _BRIEF | {"layers": (0, 1)},
    "alphaedit": _BRIEF | {"layers": (0, 1), "threshold": 0.3},
    "kn": {"n_contexts": 3, "n_neurons": 20, "locator": KnowledgeNeurons(steps=2)},
    "ft": {"layer": 1, "training": Training(steps=4, lr=0.02)},
    "ft_constrained": {"layer": 1, "training": Training(steps=4, lr=0.02)},
    "lora": {"layers": (1,), "training": Training(steps=4, lr=0.02)},
    "in_context": {},
}
"""By method, the fields that make it quick on a model of three layers. A method is a row."""


@pytest.fixture(autouse=True)
def _cache(own_cache):
    """Second moments are measured once per session, away from the user's cache."""


@pytest.fixture
def rewrite():
    return Rewrite(
        subject="cat", template="the {} is in", target_new="Rome", target_true="the house"
    )


@pytest.fixture
def rewrites(rewrite):
    """Three subjects, one of them asked about twice."""
    return [
        rewrite,
        Rewrite(subject="old ship", template="Now the {} is at", target_new="sea"),
        Rewrite(subject="cat", template="One feeds the {} with", target_new="fish"),
        Rewrite(subject="king", template="Of the {} one says that he is", target_new="a fool"),
    ]


@pytest.fixture
def case(rewrite):
    return Case(
        case_id="cat",
        rewrite=rewrite,
        paraphrases=("Where is the cat? It is in", "One finds the cat in"),
        neighbours=(
            Neighbour(prompt="the dog is in", object="the house"),
            Neighbour(prompt="the hen is on", object="a roof"),
            Neighbour(prompt="the ship is in", object="the sea"),
            Neighbour(prompt="the king is in", object="a war"),
        ),
        generation=("the cat",),
    )


@pytest.fixture
def name(request):
    """Each of the editors that change weights; in-context editing has laws of its own.

    Which of them, beside which family: see `pytest_generate_tests`.
    """
    return request.param


@pytest.fixture
def method(name):
    """The editor of that name, set to work fast."""
    return METHODS[name](**FAST[name])


@pytest.fixture
def edit(method, corpus):
    """`edit(model, rewrite)`: the change that a method makes."""

    def edit(model, rewrite, method=method, **more):
        return method(model, [rewrite], prepared=method.prepare(model, corpus=corpus), **more)

    return edit


@pytest.fixture
def random_delta():
    """`random_delta(model, layer, scale)`: a rank-two change that no method made."""

    def make(model, layer=1, scale=0.1, seed=0):
        draw = torch.Generator().manual_seed(seed)
        rows, columns = model.ffn_proj(layer).weight.shape
        left = scale * torch.randn(rows, 2, generator=draw)
        right = torch.randn(2, columns, generator=draw)
        return WeightDelta({model.ffn_out_name(layer): LowRank(left, right)}, model.fingerprint)

    return make


@pytest.fixture
def weights():
    """`weights(model)`: a copy of every parameter, by name."""
    return lambda model: {n: p.detach().clone() for n, p in model.hf.named_parameters()}


@pytest.fixture
def changed(weights):
    """`changed(model, before)`: the names of the parameters that are not bit for bit the same."""

    def names(model, before):
        now = weights(model)
        return {name for name in before if not torch.equal(now[name], before[name])}

    return names
