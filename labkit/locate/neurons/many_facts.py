"""Knowledge neurons of many facts, each tested: results differ from fact to fact.

For every fact its neurons are found and switched off, and P(answer) is followed for the fact
itself, for other facts of the relation, and with as many random neurons off. Whether neurons are
a fact's own or its relation's differs from fact to fact; the spread is the result.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.locate.neurons.knowledge import KnowledgeNeurons
from labkit.locate.neurons.switching import RandomNeurons
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.stats import Estimate, average

GROUPS = ("this fact", "random neurons", "other facts")

FIVE_SETS = RandomNeurons(draws=5)
"""Fewer than for one fact: there are many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronTests(Measured):
    """The effect of suppressing each fact's knowledge neurons.

    Attributes:
        table: One row per fact: `subject, relation, n_neurons, n_others` (other facts of the
            relation that were asked), and by group of `GROUPS` the mean relative change of
            P(answer) with the neurons off (-1 takes all of it); NaN where no neuron passed.
        unconverged: Facts some of whose attributions had not converged.
        config: The method's fields.
        seed: Seed of random neurons and intervals.
    """

    table: pd.DataFrame
    unconverged: int
    config: dict[str, Any]
    seed: int

    @property
    def tested(self) -> pd.DataFrame:
        """The facts of which some neuron passed."""
        return self.table[self.table["n_neurons"] > 0]

    @property
    def title(self) -> str:
        """How far its own answer and others' fall, mean and range over facts."""
        said = (
            f"knowledge neurons of {len(self.tested)} of {len(self.table)} facts off, {self.model}"
        )
        changes = []
        for group in ("this fact", "other facts"):
            values = self.tested[group]
            changes.append(f"{group} {values.min():+.0%} to {values.max():+.0%}")
        return f"{said}, change of P(answer): {', '.join(changes)}"

    def change(self, group: str) -> Estimate:
        """Mean relative change of P(answer), its interval over facts.

        Raises:
            InputError: If there is no such group, or no fact has a neuron.
        """
        if group not in GROUPS:
            raise InputError(f"no group {group!r}; there are {', '.join(GROUPS)}")
        return average(self.tested[group].to_numpy(), within=(-1.0, math.inf))

    @property
    def own(self) -> Estimate:
        """How much more a fact loses than other facts of its relation, mean over facts.

        0 where the others lose as much; 1 where only it loses, and loses all.
        """
        rows = self.tested
        return average((rows["other facts"] - rows["this fact"]).to_numpy())

    def to_frame(self) -> pd.DataFrame:
        """One row per fact."""
        return self.table.copy()

    def figure(self) -> Any:
        """One point per fact: what its own answer loses, and what others of its relation lose."""
        from labkit.plots.locate.neurons import neuron_tests_scatter

        return neuron_tests_scatter(self.tested, title=self.title)


@checked
def neuron_tests(
    model: LabModel,
    facts: Sequence[Fact],
    others: Sequence[Fact],
    method: KnowledgeNeurons | None = None,
    *,
    n_others: int = 10,
    random: RandomNeurons = FIVE_SETS,
    progress: Progress | None = None,
) -> NeuronTests:
    """Find the knowledge neurons of several facts, and switch each fact's off.

    Args:
        model: The model; it is not changed.
        facts: The facts, with paraphrases.
        others: Where other facts of the same relation, with another object, are taken from.
        method: How neurons are found; by default `KnowledgeNeurons()`.
        n_others: Other facts per fact, at most.
        random: The random neurons to compare with; by default five sets.
        progress: Called fact by fact.

    Raises:
        InputError: If there is no fact, or no other fact of one's relation.
        NothingToTrace, SubjectNotFound, EmptyTarget: See `KnowledgeNeurons`.
    """
    method = KnowledgeNeurons() if method is None else method
    kin = {number: _kin(fact, others)[:n_others] for number, fact in enumerate(facts)}
    for number, fact in enumerate(facts):
        if not kin[number]:
            raise InputError(f"no other fact of {fact.relation!r} to compare {fact.subject!r} with")
    if not facts:
        raise InputError("no facts to find the neurons of")
    rows, unconverged = [], 0
    for number, fact in enumerate(facts):
        listener(progress)(f"knowledge neurons of {fact.subject}", number / len(facts))
        found = method(model, fact)
        unconverged += found.warning is not None
        row: dict[str, Any] = {
            "subject": fact.subject,
            "relation": fact.relation,
            "n_neurons": len(found.neurons),
            "n_others": len(kin[number]),
        } | dict.fromkeys(GROUPS, float("nan"))
        if found.neurons:
            test = found.test(model, kin[number], random=random)
            row |= {group: test.change(group, "suppressed").mean for group in GROUPS}
        rows.append(row)
    return NeuronTests(
        table=pd.DataFrame(rows),
        unconverged=unconverged,
        config=asdict(method),
        **measured_on(model),
        seed=random.seed,
    )


def _kin(fact: Fact, others: Sequence[Fact]) -> list[Fact]:
    """Other facts of the relation, of other subjects and with other objects."""
    return [
        other
        for other in others
        if other.relation == fact.relation
        and other.subject != fact.subject
        and other.object not in fact.answers
    ]
