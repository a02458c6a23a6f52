"""The card of one neuron: what it detects, what it writes, and where it fires."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from labkit.arguments import checked
from labkit.errors import FingerprintMismatch
from labkit.memories.recurrence import Patterns
from labkit.memories.trigger_search import find_triggers, spaced
from labkit.memories.triggers import Triggers
from labkit.memories.values import Words, require_neuron, words_of
from labkit.models.model import LabModel
from labkit.progress import Progress
from labkit.results.measured import Measured, measured_on
from labkit.running.activations import capture
from labkit.running.execute import Execution


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronCard(Measured):
    """What one neuron detects and writes.

    Attributes:
        layer: The layer.
        neuron: The neuron.
        triggers: Its triggers, strongest first: place, activation, before, token, after,
            document, pos.
        words: What its value row promotes and suppresses, for a positive activation.
        patterns: Shares of its triggers that have a pattern in common, by measure
            (`labkit.memories.recurrence.MEASURES`); empty where they were not counted.
        fires: Its activation on a prompt: pos, token, activation; empty without a prompt.
        prompt: The prompt, if there was one.
        n_tokens: Number of tokens behind the triggers.
        corpus: Where they are from.
    """

    layer: int
    neuron: int
    triggers: pd.DataFrame
    words: Words
    patterns: dict[str, float]
    fires: pd.DataFrame
    prompt: str | None
    n_tokens: int
    corpus: str

    @property
    def sign(self) -> int:
        """The sign with which it fires: -1 swaps promoted and suppressed words."""
        return -1 if len(self.triggers) and self.triggers["activation"].iloc[0] < 0 else 1

    @property
    def title(self) -> str:
        """Where it fires most strongly, and what it then promotes."""
        words = self.words.promoted if self.sign > 0 else self.words.suppressed
        writes = ", ".join(word.strip() for word in words[:3])
        if self.triggers.empty:
            return f"L{self.layer}N{self.neuron} of {self.model} fires nowhere; promotes {writes}"
        tokens = self.triggers["token"].map(lambda t: t.strip() or t).value_counts()
        return (
            f"L{self.layer}N{self.neuron} of {self.model} fires at {tokens.index[0]!r} "
            f"({tokens.iloc[0]} of {len(self.triggers)}) and promotes {writes}"
        )

    def to_frame(self) -> pd.DataFrame:
        """Its triggers: place, activation, before, token, after, document, pos."""
        return self.triggers.copy()

    def figure(self) -> Any:
        """Triggers with the firing token marked, words as bars, the prompt in colours."""
        from labkit.plots import neuron_card as draw

        subtitle = f"{self.n_tokens} tokens, {self.corpus}"
        for measure in ("last token", "shared words"):
            if measure in self.patterns:
                subtitle += f"; {measure}: {self.patterns[measure]:.0%} of triggers"
        return draw(
            self.triggers,
            self.words.to_frame(),
            self.fires,
            title=self.title,
            subtitle=subtitle,
            sign=self.sign,
        )


@checked
@torch.no_grad()
def neuron_card(
    model: LabModel,
    layer: int,
    neuron: int,
    triggers: Triggers | None = None,
    *,
    patterns: Patterns | None = None,
    prompt: str | None = None,
    progress: Progress | None = None,
) -> NeuronCard:
    """What does this neuron detect and write?

    Args:
        model: The model.
        layer: The layer.
        neuron: The neuron.
        triggers: Triggers of this layer; by default they are looked for in the model's own
            corpus (one pass up to this layer, cached).
        patterns: Shares of patterns of this layer; by default left out.
        prompt: A text to show the neuron's activation on.
        progress: Called as the corpus is read.

    Raises:
        LayerOutOfRange, NeuronOutOfRange: If there is no such neuron.
        EmptyPrompt: If the prompt is empty.
        FingerprintMismatch: If triggers or patterns are those of another model.
    """
    require_neuron(model, model.layer(layer), neuron)
    for known in (triggers, patterns):
        if known is not None and not model.is_own(known.fingerprint):
            raise FingerprintMismatch(f"these are of {known.model}, not {model.name}")
    words = words_of(model, layer, neuron)
    fires = pd.DataFrame({"pos": [], "token": [], "activation": []})
    if prompt is not None:
        fires = activation_on(model, layer, neuron, prompt)
    if triggers is None:
        triggers = find_triggers(model, [layer], progress=progress)
    return NeuronCard(
        layer=layer,
        neuron=neuron,
        triggers=triggers.of(layer, neuron),
        words=words,
        patterns={} if patterns is None else patterns.of(layer, neuron),
        fires=fires,
        prompt=prompt,
        n_tokens=triggers.n_tokens,
        corpus=triggers.corpus,
        **measured_on(model),
    )


@checked
@torch.no_grad()
def activation_on(model: LabModel, layer: int, neuron: int, prompt: str) -> pd.DataFrame:
    """A neuron's activation at every token of a prompt: pos, token, activation.

    Raises:
        LayerOutOfRange, NeuronOutOfRange: If there is no such neuron.
        EmptyPrompt: If the prompt is empty.
    """
    require_neuron(model, model.layer(layer), neuron)
    batch = model.tokens([prompt])
    run = Execution(model, batch)
    with capture(model, ["ffn_key"], [layer]) as seen:
        run.forward(stop=layer + 1)
    ids = batch.ids[0].tolist()
    read = spaced(model, set(ids))
    return pd.DataFrame(
        {
            "pos": range(len(ids)),
            "token": [read[token] for token in ids],
            "activation": seen["ffn_key", layer][0, :, neuron].double().cpu().numpy(),
        }
    )
