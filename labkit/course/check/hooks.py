"""Checks of assignment 01: the residual stream, the parts of a block, logits."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labkit.course.check.asking import Passed, ask, close, require, require_tensor
from labkit.course.check.drawing import random_facts, states
from labkit.models.model import LabModel
from labkit.running.activations import patched
from labkit.stats import generator


def capture_stream(function: Callable[..., Any], *, model: LabModel, seed: int = 0) -> Passed:
    """Check `capture_stream(model, prompt)`, `[n_layers + 1, pos, d_model]`.

    Laws: entry `l` is what block `l` reads, the last entry what the last block leaves; no hook
    stays.

    Args:
        function: The student's function.
        model: A model with facts of its own.
        seed: Of the prompts.

    Raises:
        CheckFailed: If a law does not hold; the message says what kind of mistake it looks like.
    """
    for fact in random_facts(model, 2, generator(seed, "capture_stream")):
        seen = states(model, fact.prompt, ("resid_pre", "resid_post"))
        n = model.n_layers
        before = [seen["resid_pre", layer].double() for layer in range(n)]
        last = seen["resid_post", n - 1].double()
        answer = ask(function, model, fact.prompt)
        if isinstance(answer, Tensor) and answer.ndim and len(answer) == n:
            raise_short(answer, before, last)
        stream = require_tensor(answer, [n + 1, *last.shape], "n_layers+1 pos d_model")
        steps = [a - b for a, b in zip([*before[1:], last], before, strict=True)]
        added = all(close(stream[i + 1], step) for i, step in enumerate(steps))
        require(not added, "these are what the blocks add, not the stream that they add to")
        entering = [layer for layer in range(n) if not close(stream[layer], before[layer])]
        require(not entering, f"entry {entering[:1]} is not what that block reads")
        with torch.no_grad():
            normed = model.final_norm(last.to(model.dtype))
        require(
            not close(stream[-1], normed),
            "the last entry is taken after the final norm, not before",
        )
        require(close(stream[-1], last), "the last entry is not what the last block leaves")
    return Passed("capture_stream")


def raise_short(answer: Tensor, before: list[Tensor], last: Tensor) -> None:
    """Say which end of the stream is missing.

    Raises:
        CheckFailed: If one is.
    """
    if answer.shape[1:] != last.shape:
        return
    require(not close(answer[0], before[0]), "one entry is missing: what the last block leaves")
    require(not close(answer[-1], last), "one entry is missing: what the first block reads")


def parts_of_block(function: Callable[..., Any], *, model: LabModel, seed: int = 0) -> Passed:
    """Check `parts_of_block(model, prompt, layer)`: both parts `[pos, d_model]`.

    Laws: stream before + attention + FFN = stream after; each part is what that module writes.

    Args:
        function: The student's function.
        model: A model with facts of its own.
        seed: Of the prompts and layers.

    Raises:
        CheckFailed: If a law does not hold; the message says what kind of mistake it looks like.
    """
    random = generator(seed, "parts_of_block")
    for fact in random_facts(model, 2, random):
        layer = int(torch.randint(model.n_layers, (), generator=random))
        sites = ("resid_pre", "attn_out", "ffn_in", "ffn_out", "resid_post")
        seen = states(model, fact.prompt, sites)
        before, attn, read, ffn, after = (seen[site, layer].double() for site in sites)
        answer = ask(function, model, fact.prompt, layer)
        pair = isinstance(answer, tuple | list) and len(answer) == 2
        require(pair, "the answer is not a pair, attention's part and the FFN's")
        one, two = (require_tensor(part, before.shape, "pos d_model") for part in answer)
        require(not (close(one, ffn) and close(two, attn)), "the two parts have changed places")
        require(
            not close(one, before + attn), "attention's part still holds the stream it is added to"
        )
        require(not close(two, after), "the FFN's part still holds the stream it is added to")
        require(not close(two, read), "the FFN's part is what it reads, not what it writes")
        require(
            close(before + one + two, after), "stream + attention + FFN is not the stream after it"
        )
        require(close(one, attn) and close(two, ffn), "the sum is right, and the shares are not")
    return Passed("parts_of_block")


@torch.no_grad()
def logits_of(function: Callable[..., Any], *, model: LabModel, seed: int = 0) -> Passed:
    """Check `logits_of(model, state)`: from the stream `[pos, d_model]` to logits `[pos, vocab]`.

    Laws: they are what the model itself says where its last block leaves that state; for a model
    that scales its last state, a state twice as long gives nearly the same.

    Args:
        function: The student's function.
        model: A model with facts of its own.
        seed: Of the prompts and states.

    Raises:
        CheckFailed: If a law does not hold; the message says what kind of mistake it looks like.
    """
    random = generator(seed, "logits_of")
    for fact in random_facts(model, 2, random):
        seen = states(model, fact.prompt, ("resid_post",))["resid_post", model.n_layers - 1]
        state = seen.std() * torch.randn(*seen.shape, generator=random).to(seen)
        last = ("resid_post", model.n_layers - 1)
        with patched(model, {last: lambda resid, to=state: to[None].expand_as(resid)}):  # type: ignore[dict-item, misc]
            own = model.hf(model.tokens([fact.prompt]).ids).logits[0].double()
        answer = ask(function, model, state)
        found = require_tensor(answer, own.shape, "pos vocab")
        if close(found, own):
            continue
        require(not close(found, own.softmax(-1)), "these are probabilities, not logits")
        require(not close(found, own.log_softmax(-1)), "these are log-probabilities, not logits")
        twice = require_tensor(ask(function, model, 2 * state), own.shape, "pos vocab")
        require(
            not close(twice, 2 * found),
            "a state twice as long gives logits twice as large: what the model does to a state's "
            "length before it reads it is missing",
        )
        require(False, "not the model's own logits for that state")
    return Passed("logits_of")
