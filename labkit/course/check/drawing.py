"""What the checks draw: prompts of a model's world, and states seen in a run."""

import torch
from torch import Tensor

from labkit.facts.fact import Fact
from labkit.facts.worlds import facts_of
from labkit.models.model import LabModel
from labkit.running.activations import capture
from labkit.running.execute import Execution


def generator(seed: int) -> torch.Generator:
    """A generator for one check."""
    return torch.Generator().manual_seed(seed)


def random_facts(model: LabModel, n: int, random: torch.Generator) -> list[Fact]:
    """Facts whose subject has at least two tokens and is followed by words."""
    found = [
        fact
        for fact in facts_of(model)
        if len(span := model.span(fact.prompt, fact.subject)) > 1
        and span.stop < len(model.ids(fact.prompt))
    ]
    chosen = torch.randperm(len(found), generator=random)[:n].tolist()
    return [found[i] for i in chosen]


@torch.no_grad()
def states(model: LabModel, prompt: str, sites: tuple[str, ...]) -> dict[tuple[str, int], Tensor]:
    """Activations of one prompt by site and layer, each `[pos, width]`."""
    run = Execution(model, model.tokens([prompt]))
    with capture(model, sites) as seen:  # type: ignore[arg-type]
        run.forward()
    return {key: value[0].clone() for key, value in seen.items()}
