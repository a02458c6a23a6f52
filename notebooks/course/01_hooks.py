# ---
# jupyter:
#   course:
#     minutes: 60
#     difficulty: 2
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Hooks and the residual stream
#
# **You will be able to** capture what a model computes with hooks of your own, split a block into
# what attention and the FFN add, and go the last step from a state to logits.
#
# Every block reads the residual stream and adds to it. A torch hook is a function that a module
# calls when it has run, with its inputs and its output.

# %% tags=["student"]
STUDENT = "nobody"

# %% tags=["setup"]
import torch
from torch import Tensor

from labkit import load
from labkit.course import check, drawn  # noqa: F401

SEED = drawn(STUDENT, "01_hooks")
model = load("pocket")

# %% [markdown]
# ## 1. The stream, block by block
#
# `model.hf` is the plain model, called with `model.tokens([prompt]).ids`; `model.blocks` are its
# blocks. Capture what every block reads, and what the last one leaves. Take your hooks away.
#
# <details><summary>Hint</summary>
#
# `register_forward_pre_hook` is called before a module runs and `register_forward_hook` after it.
# Both return a handle. A block may return a tuple, whose first entry is the stream. Two neighbours
# share one stream, so fewer hooks are enough than you may think.
#
# </details>


# %% tags=["solution"] exercise="capture_stream" points=3
def capture_stream(model, prompt: str) -> Tensor:
    """The stream `[n_layers + 1, pos, d_model]` before every block, and after the last."""
    seen = []
    handles = [
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
        for block in model.blocks
    ]

    def keep_last(module, inputs, output):
        seen.append((output[0] if isinstance(output, tuple) else output)[0])

    handles.append(model.blocks[-1].register_forward_hook(keep_last))
    try:
        with torch.no_grad():
            model.hf(model.tokens([prompt]).ids)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(seen)


# %% [markdown]
# ## 2. What a block adds
#
# A block adds two things, attention's part and the FFN's. `model.site("attn_out", layer)` names the
# module, and the side of it, where attention's part leaves; `"ffn_out"` does so for the FFN.
# Together with the stream before the block they must give the stream after it.
#
# <details><summary>Hint</summary>
#
# Attention returns a tuple; its first entry is what is added. Look at the sum before you go on.
#
# </details>


# %% tags=["solution"] exercise="parts_of_block" points=3
def parts_of_block(model, prompt: str, layer: int) -> tuple[Tensor, Tensor]:
    """What attention and the FFN of a block add to the stream, each `[pos, d_model]`."""
    written = {}
    handles = []
    for site in ("attn_out", "ffn_out"):

        def keep(module, inputs, output, site=site):
            written[site] = (output[0] if isinstance(output, tuple) else output)[0]

        handles.append(model.site(site, layer)[0].register_forward_hook(keep))
    try:
        with torch.no_grad():
            model.hf(model.tokens([prompt]).ids)
    finally:
        for handle in handles:
            handle.remove()
    return written["attn_out"], written["ffn_out"]


# %% [markdown]
# ## 3. From a state to logits
#
# What the last block leaves is not yet a prediction. Find the two modules of the model that are
# still to come, and apply them.
#
# <details><summary>Hint</summary>
#
# Print `model.hf`. Which modules stand outside the blocks, and run after them?
#
# </details>


# %% tags=["solution"] exercise="logits_of" points=2
def logits_of(model, state: Tensor) -> Tensor:
    """Logits `[pos, vocab]` for a state `[pos, d_model]` that the last block leaves."""
    with torch.no_grad():
        return model.unembed(model.final_norm(state))


# %% [markdown]
# **References.** Elhage et al. 2021, *A Mathematical Framework for Transformer Circuits*.
# nostalgebraist 2020, *interpreting GPT: the logit lens*.
