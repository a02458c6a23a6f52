# ---
# jupyter:
#   course:
#     minutes: 75
#     difficulty: 3
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # ROME: write one fact into one matrix
#
# **You will be able to** read the key of a subject off an FFN, derive the change of a matrix that
# writes one new answer and disturbs the others least, and read what a model says afterwards.
#
# The output projection of an FFN is a matrix `W` of shape `[d_mlp, d_model]`. Its input is a *key*
# `k`, and it writes `k W` into the residual stream. To rewrite a fact, ROME finds the key `k*` that
# the subject has there, chooses what should be written for it, `v*`, and changes `W`.

# %% tags=["student"]
STUDENT = "nobody"

# %% tags=["setup"]
import torch
from torch import Tensor

from labkit import load
from labkit.course import check, drawn  # noqa: F401
from labkit.running import capture

SEED = drawn(STUDENT, "06_rome")
model = load("pocket")

# %% [markdown]
# ## 1. The key of a subject
#
# One subject has a slightly different key behind every beginning of a text. Average over several.
# A context is a text with `{}` where the subject stands, such as `"We know that {} plays the"`.
#
# <details><summary>Hint</summary>
#
# `model.tokens([prompt]).ids` are token ids, `model.span(prompt, subject)` says where the subject
# stands, and `capture(model, ["ffn_key"], [layer])` keeps the keys of every run in its block.
# Which of a subject's tokens has read the whole name?
#
# </details>


# %% tags=["solution"] exercise="key_star" points=3
def key_star(model, subject: str, contexts: list[str], layer: int) -> Tensor:
    """The key `[d_mlp]` of a subject in a layer's FFN, averaged over contexts."""
    found = []
    for context in contexts:
        prompt = context.format(subject)
        with torch.no_grad(), capture(model, ["ffn_key"], [layer]) as seen:
            model.hf(model.tokens([prompt]).ids)
        found.append(seen["ffn_key", layer][0, model.span(prompt, subject).last])
    return torch.stack(found).mean(0)


# %% [markdown]
# ## 2. The smallest change
#
# We want a new weight `W + D` with `k* (W + D) = v*`. Many changes `D` do that. Of all of them we
# want the one that disturbs the keys of usual text least. With `C = E[kᵀ k]` over usual keys, the
# mean squared disturbance is `tr(Dᵀ C D)`. Minimise it with Lagrange multipliers on paper first.
#
# <details><summary>Hint</summary>
#
# The derivative of the cost by `D` is `2 C D`, and that of the constraint is an outer product of
# `k*` with the multipliers. Put the form of `D` that follows into the constraint to find them.
# A linear system is solved with `torch.linalg.solve`, without forming an inverse.
#
# </details>


# %% tags=["solution"] exercise="rome_update" points=4
def rome_update(W: Tensor, k_star: Tensor, v_star: Tensor, C: Tensor) -> Tensor:
    """The new weight `[d_mlp, d_model]` that answers `k_star` with `v_star`.

    W is `[d_mlp, d_model]`, k_star `[d_mlp]`, v_star `[d_model]`, C `[d_mlp, d_mlp]`.
    """
    direction = torch.linalg.solve(C, k_star)
    missing = v_star - k_star @ W
    return W + torch.outer(direction, missing) / (direction @ k_star)


# %% [markdown]
# ## 3. Read the model again
#
# An edit counts only when the model says something else. Read the next token's log-probabilities
# while a change is in effect, and leave the model exactly as it was, even if something fails.
#
# <details><summary>Hint</summary>
#
# `model.ffn_out(layer)` is the weight itself, `[d_mlp, d_model]`: what is written into it counts at
# once. `try` and `finally` belong together.
#
# </details>


# %% tags=["solution"] exercise="after_edit" points=3
def after_edit(model, layer: int, delta: Tensor, prompt: str) -> Tensor:
    """Log-probabilities `[vocab]` of the next token with `delta` added to a layer's FFN matrix."""
    weight = model.ffn_out(layer).detach()
    before = weight.clone()
    try:
        weight += delta
        logits = model.hf(model.tokens([prompt]).ids).logits[0, -1]
    finally:
        weight.copy_(before)
    return logits.log_softmax(-1)


# %% [markdown]
# **References.** Meng et al. 2022, *Locating and Editing Factual Associations in GPT*, section 3.1.
# Gupta et al. 2024, *A Unified Framework for Model Editing*, section 4.
