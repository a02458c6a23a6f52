"""Heads with constant outputs, and the loss of every token: the parts of a head ablation."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from labkit.errors import ContextTooShort
from labkit.locate.attention.edges import head_mask
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.running.activations import capture
from labkit.running.execute import Execution
from labkit.running.logits import MEMORY, rows_within
from labkit.running.scoring import READ_AT_ONCE, logits_of
from labkit.stats import numpy_generator
from labkit.text.corpus import Corpus
from labkit.tokens import TokenBatch


def switched_off(
    model: LabModel, heads: Sequence[tuple[int, int]], outputs: Float[Tensor, "layer head d_head"]
) -> dict[tuple[Site, int], Callable[[Tensor], Tensor]]:
    """Changes for `patched`: constant outputs in place of some heads'.

    Args:
        model: The model.
        heads: The heads, as (layer, head).
        outputs: What replaces each head's output, before the output projection.

    Raises:
        InputError, LayerOutOfRange: If there is no head, or no such head.
    """
    mask = head_mask(model, heads)

    def change(layer: int) -> Callable[[Tensor], Tensor]:
        def constant(own: Float[Tensor, "row pos width"]) -> Float[Tensor, "row pos width"]:
            by_head = rearrange(own, "row pos (head d) -> row pos head d", head=model.n_heads)
            off = mask[layer, :, None].to(own.device)
            mixed = torch.where(off, outputs[layer].to(own), by_head)
            return rearrange(mixed, "row pos head d -> row pos (head d)")

        return constant

    layers = mask.any(dim=1).nonzero()[:, 0].tolist()
    return {("head_out", layer): change(layer) for layer in layers}


@torch.no_grad()
def mean_outputs(
    model: LabModel, ids: Int[Tensor, "text pos"], *, memory: int = MEMORY
) -> Float[Tensor, "layer head d_head"]:
    """Mean output of every head over the positions of some texts, but for the first of each."""
    total: list[Tensor] = []
    for rows in ids.split(rows_within(model, ids.shape[1], memory)):
        with capture(model, ["head_out"]) as seen:
            Execution(model, _unpadded(rows)).forward()
        outputs = [seen["head_out", layer] for layer in range(model.n_layers)]
        sums = [own[:, 1:].double().sum(dim=(0, 1)) for own in outputs]
        total = [a + b for a, b in zip(total, sums, strict=True)] if total else sums
    mean = torch.stack([own.cpu() for own in total]) / (ids.shape[0] * (ids.shape[1] - 1))
    return rearrange(mean, "layer (head d) -> layer head d", head=model.n_heads).to(
        device=model.device, dtype=model.dtype
    )


@torch.no_grad()
def token_losses(
    model: LabModel, ids: Int[Tensor, "text pos"], *, memory: int = MEMORY
) -> Float[np.ndarray, "text pos_1"]:
    """-log p of every token but the first given those before it, in nats."""
    found = []
    for rows in ids.split(rows_within(model, ids.shape[1], memory)):
        resid = Execution(model, _unpadded(rows)).forward()[:, :-1]
        states = rearrange(resid, "text pos d -> (text pos) d").split(READ_AT_ONCE)
        nexts = rearrange(rows[:, 1:], "text pos -> (text pos)").split(READ_AT_ONCE)
        for some, token in zip(states, nexts, strict=True):
            logits = logits_of(model, some)
            found.append(torch.nn.functional.cross_entropy(logits, token, reduction="none"))
    losses = torch.cat(found).double().cpu().numpy()
    return rearrange(losses, "(text pos) -> text pos", text=ids.shape[0])


def repeated_tokens(
    model: LabModel, length: int, n_sequences: int, *, seed: int
) -> Int[Tensor, "text pos"]:
    """Random tokens, all different, given twice; others than those that found the heads."""
    special = set(model.tokenizer.all_special_ids)
    n_tokens = min(len(model.tokenizer), model.d_vocab)
    vocabulary = np.array([token for token in range(n_tokens) if token not in special])
    front = [model.tokenizer.bos_token_id] if model.prepend_bos else []
    rows = []
    for number in range(n_sequences):
        draw = numpy_generator(seed, "icl repeated tokens", length, number)
        once = draw.permutation(vocabulary)[:length].tolist()
        rows.append([*front, *once, *once])
    return torch.tensor(rows, device=model.device)


def windows(
    model: LabModel, corpus: Corpus, width: int, n: int, *, seed: int
) -> Int[Tensor, "text pos"]:
    """Texts of `width` tokens, the BOS counted in: beginnings of documents, in a drawn order.

    Where too few documents are that long, all are joined in that order and cut.

    Raises:
        ContextTooShort: If there is not that much text.
    """
    order = numpy_generator(seed, "icl texts").permutation(len(corpus.documents)).tolist()
    front = [model.tokenizer.bos_token_id] if model.prepend_bos else []
    own = width - len(front)
    documents = model.tokenizer(list(corpus.documents), add_special_tokens=False).input_ids
    rows = [documents[number][:own] for number in order if len(documents[number]) >= own]
    if len(rows) < n:
        joined = " ".join(corpus.documents[number] for number in order)
        ids = model.tokenizer(joined, add_special_tokens=False).input_ids
        rows = [ids[start : start + own] for start in range(0, len(ids) - own + 1, own)]
    if len(rows) < n:
        raise ContextTooShort(
            f"{n} texts of {width} tokens: {corpus.source} has {len(rows)}; ask for fewer, or "
            "for shorter ones"
        )
    return torch.tensor([[*front, *row] for row in rows[:n]], device=model.device)


def _unpadded(ids: Int[Tensor, "text pos"]) -> TokenBatch:
    """Rows of one length as a batch."""
    return TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))
