"""Are these the neurons of this fact? Suppress and amplify exactly them, and measure.

*Suppressed* neurons have activation 0 at the read positions, *amplified* ones twice what
they would have. Three comparisons make it a test:

- the fact itself, in all its wordings: suppression should lower P(answer), amplification
  raise it;
- random neurons, as many in each layer: they should do neither;
- other facts, with the same neurons switched: their answers should stay.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.fact import Fact
from labkit.locate.neurons.key_runs import KeyRun, Positions, ask
from labkit.memories.values import require_neuron
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import MEMORY, rows_within
from labkit.stats import Estimate

FACTORS = {"suppressed": 0.0, "amplified": 2.0}
GROUPS = ("this fact", "random neurons", "other facts")
_AT_ONCE = 64  # rows of logits held together


@dataclass(frozen=True, kw_only=True)
class RandomNeurons:
    """The random neurons that some neurons are compared with: as many in each layer.

        result.test(model, others, random=RandomNeurons(draws=30))

    Attributes:
        draws: Number of sets, 1 or more; by default 10.
        seed: Seed of the sets; by default 0.
        memory: Bound on the activations held at once while sets are switched, in bytes.

    Raises:
        InputError: If there is no set.
    """

    draws: int = 10
    seed: int = 0
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse a test without its control."""
        if self.draws < 1:
            raise InputError(f"draws {self.draws}: one set of random neurons at least")


TEN_SETS = RandomNeurons()
"""Ten sets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronTest(Measured):
    """The effect of switching some neurons on the answers.

    Attributes:
        subject: Subject of the fact that the neurons were found for.
        neurons: The neurons, (layer, neuron).
        cases: One row per switched prompt: group (see `GROUPS`), draw (of random neurons, 0
            elsewhere), intervention, prompt, answer, before and after (P(answer), 0..1),
            and kept (whether the most probable next token stayed).
        seed: Seed of the random neurons and of the intervals.
    """

    subject: str
    neurons: tuple[tuple[int, int], ...]
    cases: pd.DataFrame
    seed: int

    @property
    def title(self) -> str:
        """How suppression changes P(answer), here and in the controls."""
        changes = []
        for group in self.cases["group"].unique():
            found = self.change(group, "suppressed")
            changes.append(f"{group} {found:+.1%}")
        return (
            f"{len(self.neurons)} neurons of {self.subject!r} suppressed, change of P(answer): "
            f"{', '.join(changes)}"
        )

    def change(self, group: str, intervention: str) -> Estimate:
        """Relative change of P(answer), `after / before - 1`, mean with interval.

        Units are prompts of this fact, other facts, or draws of random neurons (each the
        mean over this fact's prompts).
        """
        rows = self._rows(group, intervention)
        return stats.average(
            rows.assign(change=rows["after"] / rows["before"] - 1)
            .groupby(self._unit(group), sort=False)["change"]
            .mean()
            .to_numpy(),
            within=(-1.0, math.inf),
        )

    def kept(self, group: str, intervention: str) -> Estimate:
        """Share of the units whose most probable next token stayed, 0..1; units as above."""
        rows = self._rows(group, intervention)
        shares = rows.groupby(self._unit(group), sort=False)["kept"].mean()
        return stats.share(shares.to_numpy())

    def to_frame(self) -> pd.DataFrame:
        """One row per group and intervention: relative change and argmax kept, with intervals."""
        rows = []
        for group in self.cases["group"].unique():
            for intervention in FACTORS:
                change, kept = self.change(group, intervention), self.kept(group, intervention)
                rows.append(
                    {
                        "group": group,
                        "intervention": intervention,
                        "mean": change.mean,
                        "low": change.low,
                        "high": change.high,
                        "n": change.n,
                        "unit": self._unit(group),
                        "kept": kept.mean,
                        "kept_low": kept.low,
                        "kept_high": kept.high,
                    }
                )
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """Bars of relative change: these neurons, random ones, and other facts."""
        from labkit.plots import neuron_test_bars

        return neuron_test_bars(
            self.to_frame(), title=f"Switching the {len(self.neurons)} neurons of {self.subject}"
        )

    def _rows(self, group: str, intervention: str) -> pd.DataFrame:
        of_both = (self.cases["group"] == group) & (self.cases["intervention"] == intervention)
        if not of_both.any():
            raise InputError(f"nothing was measured on {group!r}, {intervention!r}")
        return self.cases[of_both]

    @staticmethod
    def _unit(group: str) -> str:
        return "draw" if group == "random neurons" else "prompt"


@checked
def switch(
    model: LabModel,
    neurons: Sequence[tuple[int, int]],
    fact: Fact,
    control_facts: Sequence[Fact] = (),
    *,
    answers: Sequence[int] | None = None,
    positions: Positions = "last",
    random: RandomNeurons = TEN_SETS,
) -> NeuronTest:
    """Suppress and amplify some neurons, with random neurons and other facts as controls.

    Args:
        model: The model; it is not changed.
        neurons: (layer, neuron) of those to switch.
        fact: The fact they are said to hold, asked in all its wordings.
        control_facts: Other facts, asked in their first wording.
        answers: Token to follow after each wording; by default the first of the object,
            or what the model says next.
        positions: Where neurons are switched.
        random: The random neurons to compare with.

    Raises:
        InputError: If there is no neuron or no such neuron, the fact is among its controls,
            or there are too few other neurons in a layer.

    References:
        Dai et al. 2022, Knowledge Neurons in Pretrained Transformers, section 4.3.

    Differs from the paper: the control are random neurons and other facts instead of
    neurons with large activations.
    """
    by_layer = _by_layer(model, neurons)
    if any((f.subject, f.template) == (fact.subject, fact.template) for f in control_facts):
        raise InputError(f"the fact about {fact.subject!r} is among its own controls")
    templates = list(dict.fromkeys((fact.template, *fact.paraphrases)))
    questions = ask(model, [fact] * len(templates), templates, positions)
    others = None
    if control_facts:
        others = ask(model, control_facts, [f.template for f in control_facts], positions)
    drawn = [
        _random(model, by_layer, stats.numpy_generator(random.seed, "random neurons", draw))
        for draw in range(random.draws)
    ]
    run = KeyRun(model, questions)
    followed = questions.answers if answers is None else torch.tensor(answers).to(model.device)
    followed = torch.where(followed < 0, run.clean_logits[0].argmax(), followed)
    cases = _switched(run, questions.prompts, [by_layer, *drawn], followed, random.memory)
    cases.insert(0, "group", [GROUPS[min(draw, 1)] for draw in cases["draw"]])
    if others is not None:
        run = KeyRun(model, others)
        own = torch.where(others.answers < 0, run.clean_logits.argmax(dim=-1), others.answers)
        unrelated = _switched(run, others.prompts, [by_layer], own, random.memory)
        unrelated.insert(0, "group", GROUPS[2])
        cases = pd.concat([cases, unrelated], ignore_index=True)
    return NeuronTest(
        subject=fact.subject,
        neurons=tuple((layer, neuron) for layer, neuron in neurons),
        cases=cases,
        **measured_on(model),
        seed=random.seed,
    )


def _by_layer(model: LabModel, neurons: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """The neurons of each layer, after checking that they and a control exist."""
    if not neurons:
        raise InputError("nothing to switch: no neuron passed")
    by_layer: dict[int, list[int]] = {}
    for layer, neuron in neurons:
        by_layer.setdefault(model.layer(layer), []).append(require_neuron(model, layer, neuron))
    for layer, chosen in by_layer.items():
        if 2 * len(chosen) > model.d_mlp:
            raise InputError(f"layer {layer} has no {len(chosen)} other neurons for a control")
    return by_layer


def _random(
    model: LabModel, by_layer: dict[int, list[int]], draw: np.random.Generator
) -> dict[int, list[int]]:
    """As many other neurons in each layer."""
    return {
        layer: draw.choice(
            np.setdiff1d(np.arange(model.d_mlp), chosen), size=len(chosen), replace=False
        ).tolist()
        for layer, chosen in by_layer.items()
    }


def _switched(
    run: KeyRun,
    prompts: Sequence[str],
    sets: Sequence[dict[int, list[int]]],
    answers: Tensor,
    memory: int,
) -> pd.DataFrame:
    """P(answer) of every prompt with every set switched off and up."""
    variants = [(draw, name) for draw in range(len(sets)) for name in FACTORS]
    at_once = min(_AT_ONCE, rows_within(run.model, run.n_positions, memory)) // len(prompts)
    before = run.clean_logits.float().softmax(dim=-1)
    decode, rows = run.model.tokenizer.decode, []
    for start in range(0, len(variants), max(1, at_once)):
        chunk = variants[start : start + max(1, at_once)]
        scales = {layer: torch.ones(len(chunk), run.model.d_mlp) for layer in sets[0]}
        for row, (draw, name) in enumerate(chunk):
            for layer, neurons in sets[draw].items():
                scales[layer][row, neurons] = FACTORS[name]
        after = run.intervened(scales).float().softmax(dim=-1)
        for row, (draw, name) in enumerate(chunk):
            for prompt, answer in enumerate(answers.tolist()):
                rows.append(
                    {
                        "draw": draw,
                        "intervention": name,
                        "prompt": prompts[prompt],
                        "answer": decode([answer]),
                        "before": float(before[prompt, answer]),
                        "after": float(after[row, prompt, answer]),
                        "kept": bool(after[row, prompt].argmax() == before[prompt].argmax()),
                    }
                )
    return pd.DataFrame(rows)
