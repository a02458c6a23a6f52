"""Results of `KnowledgeNeurons`: all attributions, which pass, and whether they converged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from labkit.arguments import checked
from labkit.errors import FingerprintMismatch
from labkit.facts.fact import Fact
from labkit.locate.neurons.switching import TEN_SETS, NeuronTest, RandomNeurons, switch
from labkit.models.model import LabModel
from labkit.results.measured import Measured
from labkit.stats.intervals import over_units


@dataclass(frozen=True, kw_only=True, eq=False)
class KnowledgeNeuronsResult(Measured):
    """Attributions of all FFN neurons to one fact, and those that pass.

    Attributes:
        fact: The fact.
        prompts: Its wordings, the template first.
        answers: The token whose probability is followed, after each prompt: the first of
            the object.
        answer_ids: Their ids.
        clean: P(answer) of each prompt, the model as it is.
        removed: P(answer) with all of a block's neurons off at the read positions.
        attributions: Attribution of every neuron, in units of probability.
        steps: Points of the integral, by prompt and block.
        config: The method's fields.
    """

    fact: Fact
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    answer_ids: tuple[int, ...]
    clean: Float[np.ndarray, " prompt"]
    removed: Float[np.ndarray, "prompt layer"]
    attributions: Float[np.ndarray, "prompt layer d_mlp"]
    steps: Int[np.ndarray, "prompt layer"]
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """How many neurons pass, of what, in how many wordings."""
        n_all = self.attributions.shape[1] * self.attributions.shape[2]
        return (
            f"{len(self.neurons)} of {n_all} FFN neurons carry {self.fact.subject!r} to "
            f"{self.answers[0]!r} in at least {self.config['shared']:.0%} of "
            f"{len(self.prompts)} prompts"
        )

    @property
    def kept(self) -> Bool[np.ndarray, "prompt layer d_mlp"]:
        """Which neurons reach the threshold, prompt by prompt."""
        largest = self.attributions.max(axis=(1, 2), keepdims=True)
        return (self.attributions >= self.config["threshold"] * largest) & (self.attributions > 0)

    @property
    def share(self) -> Float[np.ndarray, "layer d_mlp"]:
        """Share of the prompts in which a neuron reaches the threshold, 0..1."""
        return self.kept.mean(axis=0)

    @property
    def neurons(self) -> tuple[tuple[int, int], ...]:
        """The knowledge neurons, (layer, neuron), largest mean attribution first."""
        # A share of 7 in 10 is 0.7 whatever binary fractions say.
        found = np.argwhere(self.share >= self.config["shared"] - 1e-9)
        mean = self.attributions.mean(axis=0)
        ordered = sorted(found.tolist(), key=lambda at: -mean[at[0], at[1]])
        return tuple((layer, neuron) for layer, neuron in ordered)

    @property
    def profile(self) -> Float[np.ndarray, " layer"]:
        """Attribution of a block's neurons together, mean over prompts."""
        return self.attributions.sum(axis=-1).mean(axis=0)

    @property
    def incompleteness(self) -> Float[np.ndarray, "prompt layer"]:
        """Sum of a block's attributions less its neurons' contribution; 0 with enough steps."""
        return self.attributions.sum(axis=-1) - (self.clean[:, None] - self.removed)

    @property
    def gap(self) -> Float[np.ndarray, "prompt layer"]:
        """`incompleteness`, in units of the most that any block brings in the same prompt."""
        return np.abs(self.incompleteness) / most_of(self.clean, self.removed)

    @property
    def warning(self) -> str | None:
        """Which blocks' attributions are not to be trusted, in one line; None if all are."""
        missed = self.gap.max(axis=0)
        open_ = np.flatnonzero(~(missed <= self.config["tolerance"]))
        if not len(open_):
            return None
        return (
            f"attributions have not converged in layer {', '.join(map(str, open_))}: with "
            f"{int(self.steps[:, open_].max())} steps their sum misses what the layer brings by "
            f"{missed[open_].max():.0%} of the largest such effect. Allow more max_steps"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per neuron that reaches the threshold in some prompt, largest first.

        Columns layer, neuron, mean, low, high (attribution: 95 % over prompts),
        share (of the prompts) and knowledge (whether that share is enough).
        """
        layers, neurons = np.nonzero(self.share)
        mean, low, high, _ = over_units(self.attributions[:, layers, neurons])
        share = self.share[layers, neurons]
        frame = pd.DataFrame(
            {
                "layer": layers,
                "neuron": neurons,
                "mean": mean,
                "low": low,
                "high": high,
                "share": share,
                "knowledge": share >= self.config["shared"] - 1e-9,
            }
        )
        return frame.sort_values("mean", ascending=False, ignore_index=True)

    def figure(self) -> Any:
        """One dot per neuron by layer and attribution; knowledge neurons stand out."""
        from labkit.plots import neurons_by_layer

        return neurons_by_layer(
            self.to_frame(),
            n_layers=self.attributions.shape[1],
            n_prompts=len(self.prompts),
            title=self.title,
            subtitle=self.warning
            or f"{self.steps.min()} to {self.steps.max()} steps: sums by layer miss the layer's "
            f"effect by at most {np.abs(self.incompleteness).max():.3f}",
        )

    @checked
    def test(
        self,
        model: LabModel,
        control_facts: Sequence[Fact] = (),
        *,
        random: RandomNeurons = TEN_SETS,
    ) -> NeuronTest:
        """Suppress and amplify exactly these neurons, and measure the answers.

        Args:
            model: The model they were found in; it is not changed.
            control_facts: Other facts, whose answers should stay.
            random: The random neurons to compare with: number of sets and their seed.

        Raises:
            FingerprintMismatch: If it is another model.
            InputError: If no neuron passed, this fact is among its controls, or there are
                not enough other neurons for a control.
        """
        if not model.is_own(self.fingerprint):
            raise FingerprintMismatch(f"these neurons are of another model ({self.model})")
        return switch(
            model,
            self.neurons,
            self.fact,
            control_facts,
            answers=self.answer_ids,
            positions=self.config["positions"],
            random=random,
        )


def most_of(
    clean: Float[np.ndarray, " prompt"], removed: Float[np.ndarray, "prompt layer"]
) -> Float[np.ndarray, "prompt 1"]:
    """The largest contribution of any block's neurons in a prompt; never 0."""
    brings = np.abs(clean[:, None] - removed).max(axis=1, keepdims=True)
    return np.maximum(brings, np.finfo(np.float32).tiny)
