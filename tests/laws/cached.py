"""What is cached, and the ways in which a model can be other than it was loaded."""

import contextlib

import numpy as np
import torch

from editing.edits.applying import applied
from editing.edits.change import LowRank
from editing.edits.delta import WeightDelta
from labkit import cache
from labkit.icl.implicit.finetuning_steps import other_weights
from labkit.memories.trigger_search import find_triggers
from labkit.running.activations import patched, patched_embedding
from labkit.text.moments import second_moments
from labkit.text.streams import ReadingOptions
from probes.cloze.translator_fit import TranslatorFit
from probes.states.features import extract

TEXTS = ("the house is in the valley.", "Another house, then: a thin one.")
WORDS = [(0, 4, 9), (1, 8, 13), (0, 20, 26)]


def moments(model, corpus):
    return second_moments(model, [0, 2], corpus, ReadingOptions(min_tokens=400))[2].matrix


def triggers(model, corpus):
    found = find_triggers(model, [0, 2], corpus, ReadingOptions(min_tokens=400, window=40), k=3)
    return torch.from_numpy(found.activation)


def translators(model, corpus):
    return TranslatorFit(tokens=400, held_out=40)(model, corpus).weight


def features(model, corpus):
    read = extract(model, TEXTS, WORDS, folder=cache.cache_dir() / "features")
    return torch.from_numpy(np.array(read.values))


def mapped_features(model, corpus):
    read = extract(model, TEXTS, WORDS, folder=cache.cache_dir() / "features", in_memory=0)
    return torch.from_numpy(np.array(read.values))


CACHED = {
    "moments": moments,
    "triggers": triggers,
    "translators": translators,
    "features": features,
    "mapped features": mapped_features,
}


def delta_of(model, layer=0, scale=3.0):
    """A rank-one change of one layer's values."""
    draw = torch.Generator().manual_seed(layer)
    shape = model.hf.get_parameter(model.ffn_out_name(layer)).shape
    left, right = (torch.randn(n, 1, generator=draw) for n in shape)
    change = LowRank(scale * left / left.norm(), right.T / right.norm())
    return WeightDelta({model.ffn_out_name(layer): change}, model.fingerprint)


@contextlib.contextmanager
def nested(model):
    with applied(model, delta_of(model)), applied(model, delta_of(model, layer=1)):
        yield


@contextlib.contextmanager
def written(model, write):
    """A write that no context of the lab knows of."""
    weight = model.hf.get_parameter(model.ffn_out_name(0))
    before = weight.detach().clone()
    try:
        write(weight)
        yield
    finally:
        weight.detach().copy_(before)


def swap(values):
    """Two neurons' values change places: the same numbers, in another order."""
    values[[0, 2]] = values[[2, 0]]


@contextlib.contextmanager
def setting(model):
    """One attention's scores are scaled by something else."""
    module = next(part for part in model.hf.modules() if hasattr(part, "scaling"))
    before = module.scaling
    module.scaling = 10 * before
    try:
        yield
    finally:
        module.scaling = before


def lent(model):
    name = model.ffn_out_name(0)
    return other_weights(model, {name: 2 * model.hf.get_parameter(name).detach()})


CHANGED_WEIGHTS = {
    "applied": lambda model: applied(model, delta_of(model)),
    "nested": nested,
    "through the view": lambda model: written(model, lambda w: model.ffn_out(0)[3].mul_(-2)),
    "through .data": lambda model: written(model, lambda w: w.data.mul_(1.5)),
    "values swapped": lambda model: written(model, lambda w: swap(model.ffn_out(0))),
    "lent": lent,
}
PATCHED = {
    "patched": lambda model: patched(model, {("resid_post", 0): lambda states: 2 * states}),
    "neurons off": lambda model: patched(model, {("ffn_key", 0): lambda keys: 0 * keys}),
    "embedding": lambda model: patched_embedding(model, lambda states: -states),
    "setting": setting,
}
CONTEXTS = CHANGED_WEIGHTS | PATCHED


def switch_to_empty_caches(tmp_path, monkeypatch):
    """A function that makes an empty folder the user's cache; called once already."""
    numbers = iter(range(100))

    def switch():
        folder = tmp_path / f"cache {next(numbers)}"
        monkeypatch.setenv("LABKIT_CACHE", str(folder))
        return folder

    switch()
    return switch


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
