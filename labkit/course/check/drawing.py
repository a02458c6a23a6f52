"""What the checks draw: prompts of a model's world, and states seen in a run."""

from itertools import islice

import torch
from torch import Tensor

from labkit.facts.fact import Fact
from labkit.facts.worlds import facts_of
from labkit.models.model import LabModel
from labkit.running.activations import capture
from labkit.running.execute import Execution


def random_facts(model: LabModel, n: int, random: torch.Generator) -> list[Fact]:
    """Facts whose subject has at least two tokens and is followed by words."""
    facts = facts_of(model)
    order = torch.randperm(len(facts), generator=random).tolist()
    return list(islice((facts[i] for i in order if _is_inside(model, facts[i])), n))


def _is_inside(model: LabModel, fact: Fact) -> bool:
    """Whether the subject has several tokens, and the prompt goes on behind it."""
    span = model.span(fact.prompt, fact.subject)
    return len(span) > 1 and span.stop < len(model.ids(fact.prompt))


@torch.no_grad()
def states(model: LabModel, prompt: str, sites: tuple[str, ...]) -> dict[tuple[str, int], Tensor]:
    """Activations of one prompt by site and layer, each `[pos, width]`."""
    run = Execution(model, model.tokens([prompt]))
    with capture(model, sites) as seen:  # type: ignore[arg-type]
        run.forward()
    return {key: value[0].clone() for key, value in seen.items()}
