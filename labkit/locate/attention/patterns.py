"""Attention patterns: the weights of every head of every layer, from every token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.running.activations import run_with_cache


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPatterns(Measured):
    """Attention weights of one prompt.

    Attributes:
        prompt: The prompt.
        tokens: Its tokens, as text.
        layers: The layers, in the order of the array.
        patterns: Weights in 0..1; a query's weights over the keys sum to 1.
    """

    prompt: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    patterns: Float[np.ndarray, "layer head query key"]

    @property
    def title(self) -> str:
        """The prompt, and how many heads there are."""
        n_layers, n_heads = self.patterns.shape[:2]
        return f"Attention of {self.model}, {n_layers} x {n_heads} heads: {self.prompt}"

    def to_frame(self) -> pd.DataFrame:
        """One row per edge: layer, head, query, key (positions), weight."""
        queries, keys = np.tril_indices(len(self.tokens))
        n_layers, n_heads = self.patterns.shape[:2]
        return pd.DataFrame(
            {
                "layer": np.repeat(self.layers, n_heads * len(queries)),
                "head": np.tile(np.repeat(np.arange(n_heads), len(queries)), n_layers),
                "query": np.tile(queries, n_layers * n_heads),
                "key": np.tile(keys, n_layers * n_heads),
                "weight": self.patterns[:, :, queries, keys].ravel(),
            }
        )

    def figure(self) -> Any:
        """The viewer: thumbnails of all heads, with a slider for the layer and for the head.

        Weights are rounded to whole percents there.
        """
        from labkit.plots import attention_viewer

        return attention_viewer(self.patterns, self.tokens, layers=self.layers, title=self.title)


@checked
@torch.no_grad()
def attention_patterns(
    model: LabModel, prompt: str, layers: Sequence[int] | None = None
) -> AttentionPatterns:
    """The attention patterns of a prompt.

        attention_patterns(model, "The Eiffel Tower is in Paris")

    Args:
        model: The model.
        prompt: The prompt, two tokens or more.
        layers: Which layers; all by default.

    Raises:
        EmptyPrompt: If the prompt is empty.
        LayerOutOfRange: If there is no such layer.
        InputError: If the prompt is one token, no layer is asked for, or the prompt is too
            long for the viewer (it says how many tokens would fit). For the bare numbers
            of longer prompts take `labkit.running.activations.run_with_cache`.

    Shows:
        Where every head looks from every token of one prompt.

    Does not show:
        What it takes from there, nor whether anything depends on it. A weight on the first token
        mostly means that the head is idle (an attention sink).
    """
    from labkit.plots.locate.attention import check_size

    chosen = [model.layer(layer) for layer in (range(model.n_layers) if layers is None else layers)]
    batch = model.tokens([prompt])
    n_tokens = batch.shape[1]
    if n_tokens < 2:
        raise InputError(f"the prompt {prompt!r} is one token, which can attend to itself only")
    if not chosen:
        raise InputError("no layers to show: choose at least one")
    check_size(len(chosen), model.n_heads, n_tokens)
    _, cache = run_with_cache(model, batch)
    weights = torch.stack([cache["pattern", layer][0].float() for layer in chosen])
    return AttentionPatterns(
        prompt=prompt,
        tokens=tuple(model.tokenizer.decode([token]) for token in batch.ids[0].tolist()),
        layers=tuple(chosen),
        patterns=weights.cpu().numpy(),
        **measured_on(model),
    )
