"""Attention knock-out of several facts; the heads that cost most, tested on the others."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.locate.attention.knockout import AttentionKnockout, sources
from labkit.locate.attention.knockout_result import KnockoutAverage, costliest
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import measured_on


@checked
def average_knockouts(
    model: LabModel,
    facts: Sequence[Fact],
    *,
    method: AttentionKnockout | None = None,
    n_together: int | None = None,
    progress: Progress | None = None,
) -> KnockoutAverage:
    """Knock attention out of several facts; the unit of every interval is the fact.

    The grid of single heads names the heads that cost most. Whether they carry the fact is
    then tested on facts that had no say in the choice: for each fact, the `n_together` heads
    that cost most on all *others* are blocked at once, beside as many random heads of the
    same layers.

    Args:
        model: The model.
        facts: Two facts or more; every one must fit, none is left out.
        method: The knock-out; by default `AttentionKnockout()`.
        n_together: Number of heads blocked at once; by default one in 25, at least 2.
        progress: Called with what is being done and the share that is done.

    Raises:
        InputError: If there are fewer than two facts, there are not that many heads, or a
            fact does not fit; see `AttentionKnockout`.
    """
    method = AttentionKnockout() if method is None else method
    n_heads = model.n_layers * model.n_heads
    n_together = max(2, n_heads // 25) if n_together is None else n_together
    if len(facts) < 2 or not 1 <= n_together <= n_heads:
        raise InputError(
            f"an average needs two facts or more, not {len(facts)}, and 1..{n_heads} heads to "
            f"block at once, not {n_together}"
        )
    for fact in facts:  # all of them, before any work
        sources(model, fact)
    results = []
    for index, fact in enumerate(facts):
        listener(progress)(
            f"blocking attention, fact {index + 1} of {len(facts)}", index / len(facts)
        )
        results.append(method(model, fact))
    by_head = np.stack([result.change(result.by_head) for result in results])
    at_once, random = [], []
    for index, (fact, result) in enumerate(zip(facts, results, strict=True)):
        chosen = costliest(np.delete(by_head, index, axis=0), n_together)
        blocked, control = method.together(model, fact, chosen)
        at_once.append((blocked - result.clean) / result.clean)
        random.append(result.change(control).mean())
    return KnockoutAverage(
        prompts=tuple(result.prompt for result in results),
        answers=tuple(result.answer for result in results),
        window=results[0].window,
        clean=np.array([result.clean for result in results]),
        by_layer=np.stack([result.change(result.by_layer) for result in results]),
        control=np.stack([result.change(result.control).mean(axis=0) for result in results]),
        by_head=by_head,
        by_head_control=np.stack([result.change(result.by_head_control) for result in results]),
        n_together=n_together,
        together=np.array(at_once),
        together_control=np.array(random),
        **measured_on(model),
        config=asdict(method),
    )
