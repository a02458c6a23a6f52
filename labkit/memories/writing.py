"""Which neurons write a word: those whose value rows promote a token most."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import InputError, LayerOutOfRange, NotOneToken
from labkit.memories.values import directions, logit_chunks
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import MEMORY


@dataclass(frozen=True, kw_only=True, eq=False)
class Writers(Measured):
    """The neurons whose value rows promote a token most.

    Attributes:
        token: The token.
        token_id: Its id.
        neurons: layer, neuron, z (the logit in standard deviations over the vocabulary),
            logit (of the token, from the mean over the vocabulary, for a row brought to
            size 1), rank (tokens that the row promotes more; 0 is the top), length (L2 norm
            of the row), best first.
        n_neurons: Number of neurons that were looked at.
        by: What they are sorted by.
    """

    token: str
    token_id: int
    neurons: pd.DataFrame
    n_neurons: int
    by: str

    @property
    def title(self) -> str:
        """The token, and how many were looked at."""
        return f"Who writes {self.token!r}? The first {len(self.neurons)} of {self.n_neurons}"

    def to_frame(self) -> pd.DataFrame:
        """One row per neuron: layer, neuron, z, logit, rank, length."""
        return self.neurons.copy()

    def figure(self) -> Any:
        """Bars of the logit, with the rank beside them."""
        from labkit.plots import writers_bars

        return writers_bars(self.to_frame(), token=self.token, title=self.title)


@checked
@torch.no_grad()
def writers(
    model: LabModel,
    token: str | int,
    *,
    layers: Iterable[int] | None = None,
    k: int = 20,
    by: str = "z",
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Writers:
    """The neurons whose value row promotes a token most (who writes " Paris").

        writers(model, " Paris").neurons

    Args:
        model: The model.
        token: The token as text, the space that belongs to it included; or its id.
        layers: Where to look; in all layers by default.
        k: Number of neurons.
        by: "z", how far the token stands out among what the row promotes; "logit", how far
            it is promoted, which favours rows with large logits for many tokens; or "rank",
            which reads every row against the whole vocabulary and takes about as long as a
            forward pass over as many tokens as there are neurons.
        memory: Bound on the logits held at once, in bytes.
        progress: Called layer by layer.

    Raises:
        NotOneToken: If the text is not one token.
        LayerOutOfRange: For a layer that the model does not have.
        InputError: If `k` is below 1, or `by` is something else.

    Shows:
        Which neurons' value rows promote a word most.

    Does not show:
        That they fire where the word is said: only `contributions` multiplies by the activation.

    Differs from the paper: it starts from the value and asks for its words; this asks the
    other way around.
    """
    chosen = chosen_layers(model, layers)
    if k < 1 or by not in ("z", "logit", "rank"):
        raise InputError(f"k = {k}, by = {by!r}: at least 1 neuron, by z, logit or rank")
    token_id = one_token(model, token)
    unembedding = model.unembed.weight.to(torch.promote_types(model.dtype, torch.float32))
    centred = unembedding - unembedding.mean(dim=0)
    covariance = centred.T @ centred / len(centred)
    frames = []
    for done, layer in enumerate(chosen):
        read = directions(model, layer)
        logits = read @ centred[token_id]
        variance = einsum(read, covariance, read, "neuron a, a b, neuron b -> neuron")
        z = logits / variance.clamp(min=1e-30).sqrt()
        score = logits if by == "logit" else z
        # The rank of every row is asked for only where it decides.
        best = score.topk(len(score) if by == "rank" else min(k, len(score))).indices
        ranks = _ranks(model, read[best], token_id, memory)
        frames.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "neuron": best.cpu().numpy(),
                    "z": z[best].double().cpu().numpy(),
                    "logit": logits[best].double().cpu().numpy(),
                    "rank": ranks.cpu().numpy(),
                    "length": model.ffn_out(layer)[best].double().norm(dim=-1).cpu().numpy(),
                }
            )
        )
        listener(progress)("asking every neuron what it writes", (done + 1) / len(chosen))
    table = pd.concat(frames).sort_values(
        [by, "z"] if by == "rank" else [by],
        ascending=[True, False] if by == "rank" else [False],
        kind="stable",
    )
    return Writers(
        token=model.tokenizer.decode([token_id]),
        token_id=token_id,
        neurons=table.head(k).reset_index(drop=True),
        n_neurons=len(chosen) * model.d_mlp,
        by=by,
        **measured_on(model),
    )


def _ranks(
    model: LabModel, read: Float[Tensor, "neuron d_model"], token: int, memory: int
) -> Int[Tensor, " neuron"]:
    """Number of tokens that each row promotes more than this one."""
    parts = [
        (logits > logits[:, [token]]).sum(dim=-1) for _, logits in logit_chunks(model, read, memory)
    ]
    return torch.cat(parts)


def chosen_layers(model: LabModel, layers: Iterable[int] | None) -> list[int]:
    """The layers asked for, each once, in order; all by default.

    Raises:
        LayerOutOfRange: If there are none, or one is not the model's.
    """
    if layers is None:
        return list(range(model.n_layers))
    chosen = sorted({model.layer(layer) for layer in layers})
    if not chosen:
        raise LayerOutOfRange(f"no layers: choose some of 0..{model.n_layers - 1}")
    return chosen


def one_token(model: LabModel, token: str | int) -> int:
    """The id of a text that is one token.

    Raises:
        NotOneToken: If the tokenizer cuts it into several, or does not know it.
    """
    if isinstance(token, int):
        if not 0 <= token < model.d_vocab:
            raise NotOneToken(f"token id {token}: choose one of 0..{model.d_vocab - 1}")
        return token
    tokenizer = model.tokenizer
    # Some tokenizers put a space before every text by themselves.
    for text in dict.fromkeys((token, token.removeprefix(" "))):
        ids = tokenizer(text, add_special_tokens=False).input_ids if text else []
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
        if tokenizer.decode(ids) == token:
            break
    raise NotOneToken(
        f"{token!r} is {len(tokenizer(token, add_special_tokens=False).input_ids)} tokens to "
        f"{model.name}, or none that it knows: name one token, such as the word's first"
    )
