"""An untrained twin of a model: anything a measure finds in it was not learned."""

import copy
from typing import Any

import torch

from labkit.arguments import checked
from labkit.models.loading import wrap
from labkit.models.model import LabModel
from labkit.stats import generator


@checked
def random_twin(model: LabModel, *, seed: int = 0) -> LabModel:
    """A model of the same shape and tokenizer whose weights were never trained.

    Drawn as the architecture draws them before training. Nothing is downloaded.

    Args:
        model: The model.
        seed: Seed of the weights; torch's global random state is left as it was.
    """
    config = copy.deepcopy(model.hf.config)
    draw = generator(seed, "random twin", model.fingerprint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw.initial_seed())
        hf: Any = type(model.hf)(config)
    hf = hf.to(device=model.device, dtype=model.dtype)
    return wrap(
        hf,
        model.tokenizer,
        name=f"{model.name}, random weights",
        prepend_bos=model.prepend_bos,
        check=False,
    )
