"""Minimal pairs as a question to a model, and as a task for a probe.

`preference` asks the model: does it find the good sentence of a pair likelier? `grammaticality`
asks a probe: can it be read off the state at a sentence's last token whether it is the good one?
`better_of_pair` asks it of the difference between the states of both sentences, where all that
they share has been taken off. Own pairs come from `labkit.text.acceptability`, BLiMP's from
`labkit.text.acceptability.read_blimp`.

The two sentences of a pair stay on one side of a split. They differ in a word or two, each of
which is right in one pair and wrong in another, for most phenomena; where one word is always the
wrong one ("there is every", a bare "himself"), a bag of tokens finds it. It is the baseline.

References:
    Warstadt et al. (2020), BLiMP: The Benchmark of Linguistic Minimal Pairs for English.
"""

from collections.abc import Sequence

from labkit.models.model import LabModel
from labkit.stats import Estimate, numpy_generator, proportion
from labkit.text.acceptability import MinimalPair, minimal_pairs, prefers_good
from probes.tasks.task import Example, Task


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


OWN = "labkit's own minimal pairs"


def grammaticality(
    pairs: Sequence[MinimalPair] | None = None,
    *,
    name: str = "grammaticality",
    source: str = OWN,
) -> Task:
    """Whether a sentence is the good one of its pair, read at its last character.

    Args:
        pairs: The pairs; by default 50 of each of the lab's phenomena.
        name: Name of the task.
        source: Where they come from, in words.
    """
    sentences = [
        (pair, text, label)
        for pair in _different(pairs)
        for text, label in ((pair.good, "good"), (pair.bad, "bad"))
    ]
    return Task(
        name=name,
        family="syntactic",
        texts=tuple(text for _, text, _ in sentences),
        examples=tuple(
            Example(
                text=number,
                span=_end(text),
                label=label,
                group=f"{pair.good} / {pair.bad}",
                item=pair.paradigm or pair.phenomenon,
            )
            for number, (pair, text, label) in enumerate(sentences)
        ),
        source=source,
    )


def better_of_pair(
    pairs: Sequence[MinimalPair] | None = None,
    *,
    name: str = "better_of_pair",
    source: str = OWN,
    seed: int = 0,
) -> Task:
    """Which sentence of a pair is the good one, read off the difference of their last states.

    The state at the end of the second sentence is taken off that of the first; which comes
    first is drawn, half of the pairs of each kind either way.

    Args:
        pairs: The pairs; by default 50 of each of the lab's phenomena.
        name: Name of the task.
        source: Where they come from, in words.
        seed: Seed of the draw.
    """
    pairs = _different(pairs)
    by_kind: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        by_kind.setdefault(pair.paradigm or pair.phenomenon, []).append(number)
    first = set()
    for kind, numbers in by_kind.items():
        order = numpy_generator(seed, "first of a pair", kind).permutation(numbers)
        first |= set(order[: len(order) // 2].tolist())
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    examples = []
    for number, pair in enumerate(pairs):
        good, bad = 2 * number, 2 * number + 1
        one, other = (good, bad) if number in first else (bad, good)
        examples.append(
            Example(
                text=one,
                span=_end(texts[one]),
                less=(other, _end(texts[other])),
                label="first" if number in first else "second",
                group=f"{pair.good} / {pair.bad}",
                item=pair.paradigm or pair.phenomenon,
            )
        )
    return Task(
        name=name, family="syntactic", texts=tuple(texts), examples=tuple(examples), source=source
    )


def _different(pairs: Sequence[MinimalPair] | None) -> list[MinimalPair]:
    """The pairs, our own by default, without those of the same sentence twice."""
    pairs = minimal_pairs(50) if pairs is None else pairs
    return [pair for pair in pairs if pair.good != pair.bad]


def _end(text: str) -> tuple[int, int]:
    """The last character of a text."""
    return len(text) - 1, len(text)
