"""Causal tracing as the textbook has it: one full forward of the plain model for every cell.

The clean prompt is row 0 of every batch, its noisy copies are the other rows, and a hook copies
row 0's state to them at one position of one layer (the scheme of Meng et al.'s own code). Nothing
of the lab is used but the model.
"""

import torch


@torch.no_grad()
def trace_cell(model, ids, span, noise, answer, pos, layer):
    """P(answer) of every noise draw with the hidden state after one block restored.

    Args:
        model: A Hugging Face model whose blocks are `model.model.layers`.
        ids: The prompt's token ids, a list.
        span: First and last + 1 position of the subject.
        noise: What is added to the subject's embeddings, `[draw, subject, d_model]`.
        answer: Id of the token whose probability is wanted.
        pos: Position of the cell; None restores nothing.
        layer: Block of the cell.
    """
    start, stop = span

    def corrupt(_module, _args, out):
        out[1:, start:stop] += noise
        return out

    def restore(_module, _args, out):
        hidden = out[0] if isinstance(out, tuple) else out
        hidden[1:, pos] = hidden[0, pos]
        return out

    handles = [model.get_input_embeddings().register_forward_hook(corrupt)]
    if pos is not None:
        handles.append(model.model.layers[layer].register_forward_hook(restore))
    try:
        rows = torch.tensor([ids] * (1 + len(noise)))
        logits = model(rows, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits[1:, -1].softmax(dim=-1)[:, answer]


def trace_column(model, ids, span, noise, answer, pos):
    """All layers of one position, `[draw, layer]`."""
    cells = [
        trace_cell(model, ids, span, noise, answer, pos, layer)
        for layer in range(len(model.model.layers))
    ]
    return torch.stack(cells, dim=1)
