"""Minimal pairs as a question to a model, and as a task for a probe.

`preference` asks the model: does it find the good sentence of a pair likelier? `grammaticality`
asks a probe: can it be read off the state at a sentence's last token whether it is the good one?
Own pairs come from `labkit.minimal_pairs`, BLiMP's from `labkit.minimal_pairs.read_blimp`.

The two sentences of a pair stay on one side of a split. They differ in a word or two, each of
which is right in one pair and wrong in another, for most phenomena; where one word is always the
wrong one ("there is every", a bare "himself"), a bag of tokens finds it. It is the baseline.

References:
    Warstadt et al. (2020), BLiMP: The Benchmark of Linguistic Minimal Pairs for English.
"""

from collections.abc import Sequence

from labkit.minimal_pairs import MinimalPair, minimal_pairs, prefers_good
from labkit.models import LabModel
from labkit.stats import Estimate, proportion
from probes.tasks import Example, Task


def preference(model: LabModel, pairs: Sequence[MinimalPair]) -> dict[str, Estimate]:
    """Share of the pairs of each phenomenon whose good sentence a model finds likelier.

    Args:
        model: The model.
        pairs: The pairs; chance is 1/2.

    Returns:
        By phenomenon, the share of pairs with its Wilson interval.
    """
    right = prefers_good(model, pairs).tolist()
    by_phenomenon: dict[str, list[bool]] = {}
    for pair, good in zip(pairs, right, strict=True):
        by_phenomenon.setdefault(pair.phenomenon, []).append(good)
    return {name: proportion(sum(several), len(several)) for name, several in by_phenomenon.items()}


def grammaticality(
    pairs: Sequence[MinimalPair] | None = None,
    *,
    name: str = "grammaticality",
    source: str = "labkit's own minimal pairs",
) -> Task:
    """Whether a sentence is the good one of its pair, read at its last character.

    Args:
        pairs: The pairs; by default 50 of each of the lab's phenomena.
        name: Name of the task.
        source: Where they come from, in words.
    """
    pairs = minimal_pairs(50) if pairs is None else pairs
    sentences = [
        (pair, text, label)
        for pair in pairs
        for text, label in ((pair.good, "good"), (pair.bad, "bad"))
        if pair.good != pair.bad
    ]
    return Task(
        name=name,
        family="syntactic",
        texts=tuple(text for _, text, _ in sentences),
        examples=tuple(
            Example(
                text=number,
                span=(len(text) - 1, len(text)),
                label=label,
                group=f"{pair.good} / {pair.bad}",
                item=pair.paradigm or pair.phenomenon,
            )
            for number, (pair, text, label) in enumerate(sentences)
        ),
        source=source,
    )
