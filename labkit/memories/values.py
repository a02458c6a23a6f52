"""Values: what an FFN neuron writes, read as words (Geva et al. 2022, section 3).

A value row is turned into logits by the linear part of what stands between it and the
vocabulary: the norm after the FFN where a family has one, the final norm, the unembedding.
A norm is taken at the scale that it would have for the row alone. Biases of norm and
unembedding are left out: they promote the same words whatever the neuron. For RMS norms
(Llama, Qwen) this is the model's own final norm and unembedding; the papers leave the norm
out altogether, which loses its weight. Logits are given from their mean over the vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError, NeuronOutOfRange
from labkit.memories.norms import linear_part
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import MEMORY


@dataclass(frozen=True, kw_only=True)
class Words(Measured):
    """The words that one value row promotes and suppresses.

    Attributes:
        layer: The layer.
        neuron: The neuron.
        promoted: Tokens with the largest logits, largest first.
        promoted_logits: Their logits, from the mean over the vocabulary.
        suppressed: Tokens with the smallest logits, smallest first.
        suppressed_logits: Their logits.
        probability: Probability of the promoted tokens, softmax over these logits.
        length: L2 norm of the row: how much a unit of activation writes.
    """

    layer: int
    neuron: int
    promoted: tuple[str, ...]
    promoted_logits: tuple[float, ...]
    suppressed: tuple[str, ...]
    suppressed_logits: tuple[float, ...]
    probability: tuple[float, ...]
    length: float

    @property
    def title(self) -> str:
        """The neuron and its first words."""
        words = ", ".join(word.strip() for word in self.promoted[:3])
        return f"L{self.layer}N{self.neuron} of {self.model} promotes {words}"

    def to_frame(self) -> pd.DataFrame:
        """One row per word: direction ("promoted", "suppressed"), token, logit."""
        promoted = pd.DataFrame({"token": self.promoted, "logit": self.promoted_logits})
        suppressed = pd.DataFrame({"token": self.suppressed, "logit": self.suppressed_logits})
        both = {"promoted": promoted, "suppressed": suppressed}
        frame = pd.concat(both, names=["direction"]).reset_index("direction")
        return frame.reset_index(drop=True)

    def figure(self) -> Any:
        """Promoted and suppressed words as bars."""
        from labkit.plots import words_bars

        return words_bars(self.to_frame(), title=self.title)


@checked
@torch.no_grad()
def words_of(model: LabModel, layer: int, neuron: int, *, k: int = 10) -> Words:
    """The words that a neuron's value row promotes and suppresses.

        words_of(model, 25, 1120)

    A positive activation promotes them; a negative one turns the two around.

    Raises:
        LayerOutOfRange, NeuronOutOfRange: If there is no such neuron.
        InputError: If `k` is not in `1..d_vocab`.

    Shows:
        Which words a neuron's value row promotes and suppresses if it reaches the unembedding
        directly.

    Does not show:
        What a value does through the blocks that follow, and how much of it (the row's own
        length, and the activation) reaches the stream.
    """
    require_neuron(model, model.layer(layer), neuron)
    if not 1 <= k <= model.d_vocab:
        raise InputError(f"k = {k}: choose 1..{model.d_vocab} words")
    logits = value_logits(model, directions(model, layer)[neuron][None])[0]
    top, bottom = logits.topk(k), logits.topk(k, largest=False)
    read = [model.tokenizer.decode([token]) for token in torch.cat([top[1], bottom[1]]).tolist()]
    return Words(
        layer=layer,
        neuron=neuron,
        promoted=tuple(read[:k]),
        promoted_logits=tuple(top.values.tolist()),
        suppressed=tuple(read[k:]),
        suppressed_logits=tuple(bottom.values.tolist()),
        probability=tuple(logits.softmax(dim=-1)[top.indices].tolist()),
        length=float(model.ffn_out(layer)[neuron].float().norm()),
        **measured_on(model),
    )


@torch.no_grad()
def directions(model: LabModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """What the unembedding reads of every value row of a layer; see the module's docstring.

    float32 at least, on the unembedding's device.
    """
    values = model.ffn_out(layer).double().cpu()
    norms = [linear_part(model.final_norm, model.d_model, model.ffn_out(layer))]
    if model.anatomy.ffn_post is not None:
        post = model.site("ffn_out", layer)[0]
        norms.insert(0, linear_part(post, model.d_model, model.ffn_out(layer)))
    for norm in norms:
        values = norm.centre(values)
        size = values.square().mean(dim=-1, keepdim=True).sqrt()
        values = norm.linear(values / size.clamp(min=1e-300))
    precise = torch.promote_types(model.dtype, torch.float32)
    return values.to(model.unembed.weight.device, precise)


def value_logits(
    model: LabModel, read: Float[Tensor, "neuron d_model"]
) -> Float[Tensor, "neuron vocab"]:
    """Logits of what the unembedding reads, from their mean over the vocabulary."""
    unembedding = model.unembed.weight.to(read)
    logits = einsum(read, unembedding, "neuron d_model, vocab d_model -> neuron vocab")
    return logits - logits.mean(dim=-1, keepdim=True)


def logit_chunks(
    model: LabModel, read: Float[Tensor, "neuron d_model"], memory: int = MEMORY
) -> Iterator[tuple[slice, Float[Tensor, "some vocab"]]]:
    """The same in chunks that fit into a bound on memory, each with the neurons it is of."""
    at_once = max(1, memory // (4 * model.d_vocab * read.element_size()))
    for first in range(0, len(read), at_once):
        some = slice(first, min(first + at_once, len(read)))
        yield some, value_logits(model, read[some])


def require_neuron(model: LabModel, layer: int, neuron: int) -> int:
    """The neuron itself, after checking that the layer has it.

    Raises:
        LayerOutOfRange: If there is no such layer.
        NeuronOutOfRange: If the number is negative or too large, or no integer.
    """
    width = model.ffn_out(layer).shape[0]
    if not isinstance(neuron, int) or not 0 <= neuron < width:
        raise NeuronOutOfRange(
            f"neuron {neuron} of layer {layer} of {model.name}: choose one of 0..{width - 1}"
        )
    return neuron
