"""Checks of assignment 06: the key of a subject, the rank-one write, the model after it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labkit.course.check.asking import Passed, ask, close, require, require_tensor
from labkit.course.check.drawing import random_facts, states
from labkit.models.model import LabModel
from labkit.running.scoring import next_logprobs
from labkit.stats import generator

FRONTS = ("", "We know that ", "As everyone here says, ", "It was in the news: ")


def key_star(function: Callable[..., Any], *, model: LabModel, seed: int = 0) -> Passed:
    """Check `key_star(model, subject, contexts, layer)`, a key `[d_mlp]`.

    Laws: with one context it is the FFN's key where the subject ends, the text read up to there
    ending in the subject; with several it is the mean of what each gives alone.

    Args:
        function: The student's function.
        model: A model with facts of its own.
        seed: Of the facts and the layer that are drawn.

    Raises:
        CheckFailed: If a law does not hold; the message says what kind of mistake it looks like.
    """
    random = generator(seed, "key_star")
    for fact in random_facts(model, 2, random):
        layer = int(torch.randint(model.n_layers, (), generator=random))
        after = fact.prompt.partition(fact.subject)[2]
        contexts = [front + "{}" + after for front in FRONTS]
        alone = [_alone(function, model, fact.subject, c, layer) for c in contexts]
        answer = ask(function, model, fact.subject, contexts, layer)
        together = require_tensor(answer, [model.d_mlp], "d_mlp")
        total = torch.stack(alone).sum(0)
        if close(together, total / len(alone)):
            continue  # contexts may give one key, which is its own mean and the first of them too
        require(
            not close(together, total), "several contexts: the keys are summed up, not averaged"
        )
        for which, one in (("first", alone[0]), ("last", alone[-1])):
            require(not close(together, one), f"several contexts: only the {which} one counts")
        require(False, "several contexts: not the mean of their keys")
    return Passed("key_star")


def _alone(
    function: Callable[..., Any], model: LabModel, subject: str, context: str, layer: int
) -> Tensor:
    """The key that one context gives, after the laws of one context."""
    prompt, ids = context.format(subject), model.ids(context.format(subject))
    answer = ask(function, model, subject, [context], layer)
    if isinstance(answer, Tensor) and list(answer.shape) == [model.d_model]:
        require(
            model.d_model == model.d_mlp,
            "the answer is d_model wide: that is what the FFN reads or writes. A key is what its "
            "output projection reads",
        )
    key = require_tensor(answer, [model.d_mlp], "d_mlp")
    seen = states(model, prompt, ("ffn_key",))
    here = seen["ffn_key", layer]
    matching = [pos for pos in range(len(ids)) if close(key, here[pos])]
    if not matching:
        others = [at for (_, at), keys in seen.items() if any(close(key, k) for k in keys)]
        require(
            not others, f"the key is one of layer {others[:1]}, and layer {layer} was asked for"
        )
        require(not close(key, here.mean(0)), "the key is the mean over all tokens of the prompt")
        raise_mean = [
            (i, j)
            for i in range(len(ids))
            for j in range(i + 2, len(ids) + 1)
            if close(key, here[i:j].mean(0))
        ]
        require(not raise_mean, "the key is a mean over several tokens; it belongs to one")
        require(False, "the answer is the FFN's key at no position of the prompt")
    read = [model.tokenizer.decode(ids[: pos + 1]) for pos in matching]
    if any(text.endswith(subject) for text in read):
        return key
    require(matching[0] < len(ids) - 1, "the key is that of the prompt's last token")
    begun = any(subject.startswith(text.split()[-1]) for text in read if text.split())
    require(
        not begun, "the key is that of a token where the subject has begun and is not yet complete"
    )
    require(False, "the key is that of a token outside the subject")
    return key


def rome_update(
    function: Callable[..., Any], *, model: LabModel | None = None, seed: int = 0
) -> Passed:
    """Check `rome_update(W, k_star, v_star, C)`, a new weight `[d_mlp, d_model]`.

    Laws: the new weight answers `k*` with `v*`; the change has rank one; keys that are
    C^-1-orthogonal to `k*` are answered as before. No other change of that rank costs less.

    Args:
        function: The student's function.
        model: Not needed; the matrices are random.
        seed: Of the matrices.

    Raises:
        CheckFailed: If a law does not hold; the message says what kind of mistake it looks like.
    """
    random = generator(seed, "rome_update")
    for d_mlp, d_model in ((12, 7), (9, 16)):
        W, k, v, root = (
            torch.randn(*shape, generator=random, dtype=torch.float64)
            for shape in ((d_mlp, d_model), (d_mlp,), (d_model,), (d_mlp, 3 * d_mlp))
        )
        C = root @ torch.diag(torch.linspace(0.2, 3, 3 * d_mlp).double()) @ root.T / (3 * d_mlp)
        answer = ask(function, W, k, v, C)
        new = require_tensor(answer, [d_mlp, d_model], "d_mlp d_model")
        residual, moved = v - k @ W, k @ (new - W)
        require(not close(new, W), "the weight is as it was: nothing was written")
        require(not close(k @ new, residual), "the answer is the change alone, not the new weight")
        require(
            not close(moved, v), "k* gets v* on top of what it had: what was there still counts"
        )
        require(not close(moved, -residual), "the change has the wrong sign")
        if not close(moved, residual):
            along = float(moved @ residual / (moved.norm() * residual.norm()))
            require(along < 0.999, "k* is moved the right way, by the wrong length")
            require(False, "the new weight does not answer k* with v*")
        rank = int(torch.linalg.matrix_rank(new - W, rtol=1e-6))
        require(rank == 1, f"the change has rank {rank}, and one fact needs rank 1")
        left = torch.linalg.svd(new - W).U[:, 0]
        require(not _parallel(left, k), "the change ignores C: it is as if every key were as usual")
        require(
            not _parallel(left, C @ k),
            "C is used the wrong way round: the change is largest along keys that are usual, and "
            "those are what it should spare",
        )
        # All keys that k* must not disturb, as the complement of one direction.
        towards = torch.linalg.solve(C, k)
        others = torch.linalg.svd(towards[None]).Vh[1:]
        require(
            close(others @ new, others @ W),
            "keys that share nothing with k* in the metric of C are disturbed: the change is not "
            "the smallest",
        )
    return Passed("rome_update")


def _parallel(one: Tensor, other: Tensor) -> bool:
    """Whether two vectors lie on one line."""
    return float((one @ other).abs() / (one.norm() * other.norm())) > 1 - 1e-6


@torch.no_grad()
def after_edit(function: Callable[..., Any], *, model: LabModel, seed: int = 0) -> Passed:
    """Check `after_edit(model, layer, delta, prompt)`, log-probabilities `[vocab]`.

    Laws: with a change of zero they are the model's own; with any other, those of a model whose
    weight has been changed by it; the model is afterwards as it was before.

    Args:
        function: The student's function.
        model: A model with facts of its own.
        seed: Of the prompts, layers and changes.

    Raises:
        CheckFailed: If a law does not hold; the message says what kind of mistake it looks like.
    """
    random = generator(seed, "after_edit")
    for fact in random_facts(model, 3, random):
        layer = int(torch.randint(model.n_layers - 1, (), generator=random))
        weight = model.ffn_out(layer)
        delta = torch.randn(*weight.shape, generator=random) * weight.std()
        clean, shape = _says(model, fact.prompt), [model.d_vocab]
        still = require_tensor(
            ask(function, model, layer, torch.zeros_like(delta), fact.prompt), shape, "vocab"
        )
        if not close(still, clean):
            require(not close(still, clean.exp()), "these are probabilities, not their logarithms")
            shifted = still - still.logsumexp(0)
            require(not close(shifted, clean), "these are logits: the log-softmax is missing")
            require(False, "a change of zero gives something else than what the model says")
        found = require_tensor(ask(function, model, layer, delta, fact.prompt), shape, "vocab")
        require(not close(found, clean), "the change has no effect on what is read")
        require(not close(found, _edited(model, layer, -delta, fact.prompt)), "it is subtracted")
        elsewhere = [at for at in range(model.n_layers) if at != layer]
        wrong = [at for at in elsewhere if close(found, _edited(model, at, delta, fact.prompt))]
        require(not wrong, f"the change is made in layer {wrong[:1]}, not in layer {layer}")
        require(
            close(found, _edited(model, layer, delta, fact.prompt)),
            "not what the edited model says: is the whole change in effect, at every position?",
        )
    return Passed("after_edit")


def _says(model: LabModel, prompt: str) -> Tensor:
    """Log-probabilities of the next token."""
    return next_logprobs(model, [prompt])[0].double()


@torch.no_grad()
def _edited(model: LabModel, layer: int, delta: Tensor, prompt: str) -> Tensor:
    """The same of a model whose weight is changed for the time being."""
    weight = model.ffn_out(layer)
    before = weight.clone()
    try:
        weight += delta
        return _says(model, prompt)
    finally:
        weight.copy_(before)
