"""Composition: what every neuron and head adds to the logit of an answer.

The residual stream at the last position is a sum of what the embedding, the heads and the
FFN neurons wrote there. With the final norm's scale held at its actual value (and that of
norms after FFN or attention, where a family has them) the unembedding reads that sum
linearly, so every summand has its exact share of the logit, its *direct effect*:

    logit = sum over neurons of k_i (v_i . u) + heads + embedding + biases

with k_i the neuron's activation, v_i its value row, and u the answer's row of the
unembedding pulled back through the norms. Where a family
caps its logits after the unembedding (Gemma 2), the logit before the cap is shared out.

References:
    Geva et al. 2022, Transformer Feed-Forward Layers Build Predictions by Promoting
    Concepts in the Vocabulary Space, section 3. Elhage et al. 2021, A Mathematical
    Framework for Transformer Circuits.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError, NotDecomposable, NotOneToken
from labkit.facts.answers import follow, shown
from labkit.memories.reading import Reading, read_last
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import read_logits
from labkit.tokens import target_ids

TOLERANCE = 1e-3
"""Largest gap between the sum and the logit, as a share of the largest of them."""

Neuron = tuple[int, int]
"""A layer and the number of a neuron in it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contributions(Measured):
    """Contributions to one logit, in logits: exact for this prompt, so without an interval.

    Attributes:
        prompt: The prompt.
        answer: The token whose logit is shared out, and its id.
        answer_id: Its id.
        neurons: Share of each FFN neuron.
        activations: Activation of each neuron at the last position.
        ffn_bias: Share of each FFN's biases.
        heads: Share of each attention head.
        attn_bias: Share of each attention's output biases.
        embedding: Share of what enters block 0: token and position embeddings.
        bias: What final norm and unembedding add regardless of their input.
        logit: The logit itself, before any cap.
        model_logit: The model's own logit; differs from `logit` by a cap only.
    """

    prompt: str
    answer: str
    answer_id: int
    neurons: Float[np.ndarray, "layer neuron"]
    activations: Float[np.ndarray, "layer neuron"]
    ffn_bias: Float[np.ndarray, " layer"]
    heads: Float[np.ndarray, "layer head"]
    attn_bias: Float[np.ndarray, " layer"]
    embedding: float
    bias: float
    logit: float
    model_logit: float

    @property
    def title(self) -> str:
        """The sum over neurons, and how few give half of it."""
        asked, net = f"{self.prompt} … {self.answer.strip()!r}", float(self.neurons.sum())
        both = f"{self.positive:+.1f} and {net - self.positive:+.1f}"
        if net <= 0:
            return f"{asked}: the neurons together take {-net:.1f} from its logit ({both})"
        return (
            f"{asked}: {len(self.covering())} of {self.neurons.size} neurons give half of the "
            f"{net:.1f} logits that all together add ({both})"
        )

    @property
    def positive(self) -> float:
        """The sum of the positive neuron shares, in logits; the negative ones set against it."""
        return float(self.neurons.clip(min=0).sum())

    @property
    def ffn(self) -> Float[np.ndarray, " layer"]:
        """Share of each layer's FFN."""
        return self.neurons.sum(axis=1) + self.ffn_bias

    @property
    def attn(self) -> Float[np.ndarray, " layer"]:
        """Share of each layer's attention."""
        return self.heads.sum(axis=1) + self.attn_bias

    @property
    def total(self) -> float:
        """The sum of all shares: `logit`, up to rounding."""
        return float(self.ffn.sum() + self.attn.sum()) + self.embedding + self.bias

    def covering(
        self, share: float = 0.5, *, of: Literal["net", "positive"] = "net"
    ) -> tuple[Neuron, ...]:
        """The fewest neurons that give a share of what neurons add to the logit.

        Largest first. With neurons on both sides the two sums can be far apart: after one
        prompt of SmolLM2, +135 and -127.5 logits make 7.5, of which the three largest give half,
        while half of the 135 takes 944.

        Args:
            share: Above 0, at most 1.
            of: "net": of the sum of all neuron shares, negative ones included; no neuron
                covers a sum that is not positive. "positive": of the sum of the positive ones.

        Raises:
            InputError: If `share` or `of` is something else.
        """
        if not 0 < share <= 1 or of not in ("net", "positive"):
            raise InputError(
                f"a share of {share} of {of!r}: choose one above 0, at most 1, of net or positive"
            )
        whole = self.positive if of == "positive" else float(self.neurons.sum())
        if whole <= 0:
            return ()
        order = np.argsort(-self.neurons, axis=None, kind="stable")
        running = np.cumsum(self.neurons.ravel()[order].clip(min=0))
        # Rounding must not ask for neurons that give nothing.
        n = int(np.searchsorted(running, share * whole * (1 - 1e-12))) + 1
        layers, numbers = np.unravel_index(order[:n], self.neurons.shape)
        return tuple(zip(layers.tolist(), numbers.tolist(), strict=True))

    def to_frame(self) -> pd.DataFrame:
        """One row per component: component, layer (-1 for none), logit. Sums to the logit."""
        rows = [("embedding", -1, self.embedding)]
        for layer, (attn, ffn) in enumerate(zip(self.attn, self.ffn, strict=True)):
            rows += [("attention", layer, float(attn)), ("FFN", layer, float(ffn))]
        rows.append(("bias", -1, self.bias))
        return pd.DataFrame(rows, columns=["component", "layer", "logit"])

    def neurons_frame(self, k: int = 20) -> pd.DataFrame:
        """The k neurons that add most: layer, neuron, activation, logit, share.

        `share` is of the sum of the positive neuron shares, `positive`.
        """
        order = np.argsort(-self.neurons, axis=None, kind="stable")[:k]
        layers, numbers = np.unravel_index(order, self.neurons.shape)
        logit = self.neurons[layers, numbers]
        return pd.DataFrame(
            {
                "layer": layers,
                "neuron": numbers,
                "activation": self.activations[layers, numbers],
                "logit": logit,
                "share": logit / max(self.positive, 1e-300),
            }
        )

    def heads_frame(self) -> pd.DataFrame:
        """One row per head: layer, head, logit."""
        layers, heads = np.indices(self.heads.shape)
        columns = {"layer": layers.ravel(), "head": heads.ravel(), "logit": self.heads.ravel()}
        return pd.DataFrame(columns)

    def figure(self) -> Any:
        """FFN and attention, layer by layer."""
        from labkit.plots import contribution_bars

        return contribution_bars(self.to_frame(), answer=self.answer, title=self.title)


@checked
@torch.no_grad()
def contributions(model: LabModel, prompt: str, answer: str | None = None) -> Contributions:
    """What each neuron, head and layer adds to the logit of an answer at the last position.

        contributions(model, "The Eiffel Tower is located in the city of").figure()

    Args:
        model: The model.
        prompt: The prompt; one token is enough.
        answer: The continuation, one token; by default the model's own.

    Raises:
        EmptyPrompt, EmptyTarget: If prompt or answer is empty.
        NotOneToken: If the answer is several tokens: it then has no one logit.
        NotDecomposable: If the shares do not sum to the logit within 1e-3 of the largest.

    Shows:
        The exact share of every neuron and head in the logit of an answer, for one prompt.

    Does not show:
        What a summand does through the parts after it that read it: that is no part of its direct
        effect (`labkit.memories.switched`).
    """
    token = None
    if answer is not None:
        prompt, answer = follow(model.tokenizer, prompt, answer)
        token = _only_token(model, prompt, answer)
    reading = read_last(model, model.tokens([prompt]))
    said = read_logits(model, reading.resid[None, None])[0, 0]
    token = int(said.argmax()) if token is None else token
    plain = model.unembed(model.final_norm(reading.resid[None, None]))[0, 0, token]

    toward = model.unembed.weight[token].double().cpu()
    pulled = reading.final.transposed(toward)
    bias = float(reading.final.bias @ toward)
    if isinstance(model.unembed.bias, Tensor):
        bias += float(model.unembed.bias[token])
    ffn = [_ffn(model, layer, reading, pulled) for layer in range(model.n_layers)]
    attn = [_attn(model, layer, reading, pulled) for layer in range(model.n_layers)]
    found = Contributions(
        prompt=prompt,
        answer=model.tokenizer.decode([token]),
        answer_id=token,
        neurons=np.stack([shares for shares, _ in ffn]),
        activations=np.stack([key.double().cpu().numpy() for key in reading.keys]),
        ffn_bias=np.array([rest for _, rest in ffn]),
        heads=np.stack([shares for shares, _ in attn]),
        attn_bias=np.array([rest for _, rest in attn]),
        embedding=float(reading.embed.double().cpu() @ pulled),
        bias=bias,
        logit=float(plain),
        model_logit=float(said[token]),
        **measured_on(model),
    )
    largest = max(abs(found.logit), float(found.to_frame()["logit"].abs().max()))
    if not abs(found.total - found.logit) <= TOLERANCE * largest:
        raise NotDecomposable(
            f"{model.name}: the shares sum to {found.total:.4f}, the logit of {found.answer!r} is "
            f"{found.logit:.4f}: load the model in float32, or it writes to its residual stream "
            "by other parts than heads, neurons and biases"
        )
    return found


def _only_token(model: LabModel, prompt: str, answer: str) -> int:
    """The one token of an answer after a prompt."""
    token, *more = target_ids(model.tokenizer, prompt, answer)
    if more:
        raise NotOneToken(
            f"the answer {answer!r} is {1 + len(more)} tokens to {model.name}, so it has no "
            f"single logit: name its first token, {shown(model.tokenizer, prompt, token)!r}, or "
            "another"
        )
    return token


def _ffn(
    model: LabModel, layer: int, reading: Reading, pulled: Tensor
) -> tuple[Float[np.ndarray, " neuron"], float]:
    """Shares of a layer's neurons, and the constant part of its FFN's output."""
    post, bias = reading.ffn_post[layer], model.ffn_bias(layer)
    rest = 0.0 if post is None else float(post.bias @ pulled)
    direction = pulled if post is None else post.transposed(pulled)
    if bias is not None:
        rest += float(bias.double().cpu() @ direction)
    shares = reading.keys[layer].double().cpu() * (model.ffn_out(layer).double().cpu() @ direction)
    return shares.numpy(), rest


def _attn(
    model: LabModel, layer: int, reading: Reading, pulled: Tensor
) -> tuple[Float[np.ndarray, " head"], float]:
    """Shares of a layer's heads, and the constant part of its attention's output."""
    post, read = reading.attn_post[layer], reading.head_out[layer]
    proj = model.site("head_out", layer)[0]
    if len(read) % model.n_heads:
        raise NotDecomposable(f"{model.name}: {model.n_heads} heads do not share {len(read)} wide")
    alone = torch.block_diag(*rearrange(read, "(head d_head) -> head d_head", head=model.n_heads))
    nothing = proj(torch.zeros_like(read))
    written = (proj(alone) - nothing).double().cpu()
    rest = 0.0 if post is None else float(post.bias @ pulled)
    direction = pulled if post is None else post.transposed(pulled)
    rest += float(nothing.double().cpu() @ direction)
    shares = einsum(written, direction, "head d_model, d_model -> head")
    return shares.numpy(), rest
