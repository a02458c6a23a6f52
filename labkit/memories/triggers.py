"""Triggers: the prefixes of a corpus that excite an FFN neuron most (Geva et al. 2021, 3.1).

A neuron's *key* detects something in what the FFN reads; its *activation* is the entry of
the FFN's inner state that multiplies its value row (site `ffn_key`), in gated blocks the
product of gate and input. The sign of a gated activation is arbitrary: turning the signs of
a neuron's input row and of its value row leaves the model as it is. So both signs are
collected, and a neuron's triggers are those of its stronger sign, with the sign kept. In a
block without a gate this is the positive side, as in the paper.

They are looked for by `labkit.memories.find_triggers`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from labkit.errors import LayerOutOfRange, NeuronOutOfRange
from labkit.results.measured import Measured


@dataclass(frozen=True, kw_only=True, eq=False)
class Triggers(Measured):
    """The strongest triggers of every neuron of some layers, strongest first.

    Attributes:
        layers: The layers, in the order of the first axis.
        activation: The neuron's activation, with its sign; 0 where a place is empty.
        text: Row of `starts`: which text; -1 where a place is empty.
        pos: Position in the text at which the neuron fires.
        token_ids: The tokens of the texts that triggers come from, one after the other.
            Each text has the token that follows it in its document at its end, or -1.
        starts: Where each text begins in `token_ids`, and where the last one ends.
        documents: Document that each text is from.
        offsets: First token of each text, counted in its document.
        vocabulary: Ids of the tokens that occur, and what they read as.
        n_tokens: Number of tokens of the corpus that were read.
        corpus: Where the text is from.
        corpus_digest: sha256 of its documents.
        config: `k`, `window`, `min_tokens`.
    """

    layers: tuple[int, ...]
    activation: Float[np.ndarray, "layer neuron place"]
    text: Int[np.ndarray, "layer neuron place"]
    pos: Int[np.ndarray, "layer neuron place"]
    token_ids: Int[np.ndarray, " token"]
    starts: Int[np.ndarray, " text_and_end"]
    documents: Int[np.ndarray, " text"]
    offsets: Int[np.ndarray, " text"]
    vocabulary: dict[int, str]
    n_tokens: int
    corpus: str
    corpus_digest: str
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """How many neurons, on what."""
        n_layers, n_neurons, k = self.activation.shape
        return (
            f"The {k} strongest triggers of {n_layers} x {n_neurons} neurons of {self.model} "
            f"in {self.n_tokens} tokens ({self.corpus})"
        )

    @property
    def sign(self) -> Int[np.ndarray, "layer neuron"]:
        """The sign in which each neuron fires; 0 for one that never fired."""
        return np.sign(self.activation[..., 0]).astype(int)

    @property
    def last_ids(self) -> Int[np.ndarray, "layer neuron place"]:
        """The token at which each trigger fires; -1 where a place is empty."""
        return self.ids_at(0)

    @property
    def next_ids(self) -> Int[np.ndarray, "layer neuron place"]:
        """The token that follows each trigger in the corpus; -1 where there is none."""
        return self.ids_at(1)

    def ids_at(self, shift: int) -> Int[np.ndarray, "layer neuron place"]:
        """The tokens so many positions after the firing ones (before, if negative); else -1."""
        at = self.pos + shift
        found = self.token_ids[(self.starts[self.text] + at).clip(0, len(self.token_ids) - 1)]
        return np.where((self.text >= 0) & (at >= 0), found, -1)

    def row(self, layer: int) -> int:
        """The place of a layer on the first axis.

        Raises:
            LayerOutOfRange: If its triggers were not looked for.
        """
        if layer not in self.layers:
            raise LayerOutOfRange(f"layer {layer}: triggers are known of layers {self.layers}")
        return self.layers.index(layer)

    def of(self, layer: int, neuron: int, *, context: int = 24) -> pd.DataFrame:
        """One neuron's triggers: place, activation, before, token, after, document, pos.

        Args:
            layer: A layer whose triggers are known.
            neuron: The neuron.
            context: Number of tokens shown before the firing token, and half as many after.

        Raises:
            LayerOutOfRange, NeuronOutOfRange: If there is no such neuron here.
        """
        row = self.row(layer)
        if not 0 <= neuron < self.activation.shape[1]:
            raise NeuronOutOfRange(
                f"neuron {neuron}: choose one of 0..{self.activation.shape[1] - 1}"
            )
        shown = []
        for place, text in enumerate(self.text[row, neuron].tolist()):
            if text < 0:
                break
            pos = int(self.pos[row, neuron, place])
            ids = self.token_ids[self.starts[text] : self.starts[text + 1]].tolist()
            words = [self.vocabulary[token] if token >= 0 else "" for token in ids]
            shown.append(
                {
                    "place": place,
                    "activation": float(self.activation[row, neuron, place]),
                    "before": "".join(words[max(0, pos - context) : pos]),
                    "token": words[pos],
                    "after": "".join(words[pos + 1 : pos + 1 + context // 2]),
                    "document": int(self.documents[text]),
                    "pos": pos,
                }
            )
        columns = ["place", "activation", "before", "token", "after", "document", "pos"]
        return pd.DataFrame(shown, columns=columns)

    def to_frame(self) -> pd.DataFrame:
        """One row per trigger: layer, neuron, place, activation, token, next, document, pos.

        `document` counts the corpus's documents, `pos` the text's tokens. For the words
        around see `of`.
        """
        layer, neuron, place = np.nonzero(self.text >= 0)
        at = (layer, neuron, place)
        read = pd.Series(self.vocabulary)
        return pd.DataFrame(
            {
                "layer": np.array(self.layers)[layer],
                "neuron": neuron,
                "place": place,
                "activation": self.activation[at],
                "token": read.reindex(self.last_ids[at]).to_numpy(),
                "next": read.reindex(self.next_ids[at]).fillna("").to_numpy(),
                "document": self.documents[self.text[at]],
                "pos": self.pos[at],
            }
        )

    def figure(self) -> Any:
        """The strongest trigger of each layer, its firing token marked."""
        from labkit.plots import triggers_in_context

        strongest_neuron = np.abs(self.activation[..., 0]).argmax(axis=1)
        frames = [
            self.of(layer, int(neuron)).head(1).assign(label=f"L{layer}N{neuron}")
            for layer, neuron in zip(self.layers, strongest_neuron, strict=True)
        ]
        return triggers_in_context(
            pd.concat(frames, ignore_index=True), title="The strongest trigger of each layer"
        )
