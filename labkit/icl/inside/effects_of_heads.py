"""The effect of each attention head's output at the last position on an answer, one at a time.

Every head of a block, on every prompt, is a row of one token: it enters the block where the
head is, with that head's output replaced, and runs on from there. Nothing below, and no other
position, is run again.
"""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from labkit.errors import NotDecomposable
from labkit.icl.inside.vectors import READINGS, Labels, LastPositions
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import capture, patched
from labkit.running.beginnings import Ids
from labkit.running.logits import MEMORY, rows_within


def require_heads(model: LabModel) -> None:
    """Raise unless each head's output is added to the residual stream as it is.

    Raises:
        NotDecomposable: If a norm follows attention, or heads do not share its input evenly.
    """
    width = model.n_heads * model.d_head
    proj = model.hf.get_submodule(f"{model.anatomy.blocks}.0.{model.anatomy.attn_proj}")
    wide = {int(size) for size in proj.weight.shape}
    if model.anatomy.attn_post is not None or width not in wide:
        raise NotDecomposable(
            f"{model.name}: the attention output is not a sum over {model.n_heads} heads of "
            f"{model.d_head}, so heads cannot be replaced one by one"
        )


def last_heads(
    model: LabModel, prompts: list[Ids], *, memory: int = MEMORY
) -> Float[Tensor, "prompt layer head d_head"]:
    """Every head's output at the last position of each prompt, before the output projection."""
    with capture(model, ["head_out"]) as seen:
        LastPositions(model, prompts, memory=memory)
    outputs = torch.stack([seen["head_out", layer][:, -1] for layer in range(model.n_layers)])
    return rearrange(
        outputs, "layer prompt (head d_head) -> prompt layer head d_head", head=model.n_heads
    )


@torch.no_grad()
def written(
    model: LabModel, outputs: Float[Tensor, "layer head d_head"]
) -> Float[Tensor, "layer head d_model"]:
    """What heads' outputs add to the residual stream, through their part of the projection."""
    found = []
    for layer, heads in enumerate(outputs):
        proj, _ = model.site("head_out", layer)
        alone = torch.block_diag(*heads)
        found.append(proj(alone) - proj(torch.zeros_like(alone)))  # without the bias
    return torch.stack(found)


@torch.no_grad()
def head_effects(
    model: LabModel,
    asked: LastPositions,
    labels: Labels,
    outputs: Float[Tensor, "layer head d_head"],
    *,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Float[Tensor, "prompt layer head"]:
    """By how much P(right label) changes where one head's output at the last position is given.

        CIE(head, prompt) = P(label | prompt, head's output = given) - P(label | prompt)

    Args:
        model: The model.
        asked: The prompts.
        labels: The labels; one query per prompt.
        outputs: What each head's output is replaced by.
        memory: Bound on the activations held at once, in bytes.
        progress: Called with what is being done and the share that is done.
    """
    n_prompts, n_heads = asked.states.shape[1], model.n_heads
    at_once = max(1, rows_within(model, asked.run.first + 1, memory) // n_prompts)
    prompts = torch.arange(n_prompts, device=model.device)
    log_prob = list(READINGS).index("log_prob")
    before = torch.tensor(labels.read_states(model, asked.states[-1], prompts)[log_prob]).exp()
    found = torch.zeros(n_prompts, model.n_layers, n_heads, dtype=torch.float64)
    for layer in range(model.n_layers):
        listener(progress)(f"effects of heads, layer {layer}", layer / model.n_layers)
        entering = asked.states[layer - 1][:, None] if layer else asked.run.embed
        for heads in torch.arange(n_heads, device=model.device).split(at_once):
            rows = prompts.repeat(len(heads))

            def given(outs: Tensor, heads: Tensor = heads, layer: int = layer) -> Tensor:
                own = rearrange(
                    outs, "(row prompt) 1 (head d_head) -> row prompt head d_head",
                    row=len(heads), head=n_heads,
                ).clone()  # fmt: skip
                numbers = torch.arange(len(heads), device=own.device)
                own[numbers, :, heads] = repeat(
                    outputs[layer, heads], "row d_head -> row prompt d_head", prompt=n_prompts
                )
                return rearrange(own, "row prompt head d_head -> (row prompt) 1 (head d_head)")

            with patched(model, {("head_out", layer): given}):
                leaving = asked.run.forward(
                    entering.repeat(len(heads), 1, 1), start=layer, stop=layer + 1, rows=rows
                )
            last = asked.continued(layer, leaving[:, 0], rows)
            after = torch.tensor(labels.read_states(model, last, rows)[log_prob]).exp()
            change = (
                rearrange(after, "(row prompt) -> prompt row", prompt=n_prompts) - before[:, None]
            )
            found[:, layer, heads.cpu()] = change
    return found
