"""ROME, MEMIT and their covariance as the papers have them: the reference to beat.

Every forward is the plain Hugging Face model's, whole: all positions, all blocks, all logits.
One rewrite at a time, a fixed number of steps, 21 templates. Nothing is slow on purpose:
weights ask for no gradient, and what needs none runs under `no_grad`. Nothing of the lab is
used; the model's blocks are `model.model.layers`, its FFNs end in `mlp.down_proj`.

References:
    Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 3.1.
    Meng et al. 2023, Mass-Editing Memory in a Transformer, section 4.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn import functional

ESSENCE = "{} is a"


@dataclass(frozen=True)
class Request:
    """`template` has one `{}` for the subject; `target` starts with a space."""

    subject: str
    template: str
    target: str


@dataclass(frozen=True)
class Search:
    """The papers' settings for GPT-2 XL; the step count is fixed."""

    steps: int = 20
    lr: float = 0.5
    kl_factor: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0


# --- prompts ------------------------------------------------------------------------------


def placed(tokenizer, text, subject, start):
    """Ids of a text, and the position of the subject's last token."""
    out = tokenizer(text, return_offsets_mapping=True)
    stop = start + len(subject)
    last = max(i for i, (first, _) in enumerate(out["offset_mapping"]) if first < stop)
    return out["input_ids"], last


def in_contexts(tokenizer, template, subject, contexts):
    """A filled template behind every context: ids and the subject's last position."""
    rows = []
    for context in contexts:
        before = f"{context} " if context else ""
        text = before + template.replace("{}", subject, 1)
        rows.append(placed(tokenizer, text, subject, len(before) + template.index("{}")))
    return rows


def padded(rows):
    """Ids filled up on the right, and the attention mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


# --- keys ---------------------------------------------------------------------------------


def projection(model, layer):
    """The FFN's output projection of a block."""
    return model.model.layers[layer].mlp.down_proj


@contextmanager
def inputs_of(module):
    """The inputs of every call of a module inside the block."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def covariance(model, documents, layer, at_once):
    """`E[k k^T]` over all tokens of some documents (lists of ids), a few at a time."""
    d_mlp = projection(model, layer).in_features
    total, count = torch.zeros(d_mlp, d_mlp), 0
    for first in range(0, len(documents), at_once):
        ids, mask = padded(documents[first : first + at_once])
        with inputs_of(projection(model, layer)) as seen:
            model(input_ids=ids, attention_mask=mask)
        keys = seen[0][mask.bool()].float()
        total += keys.T @ keys
        count += len(keys)
    return total / count


@torch.no_grad()
def key(model, tokenizer, request, contexts, layer):
    """`k*`: mean over contexts of the key at the subject's last token."""
    rows = in_contexts(tokenizer, request.template, request.subject, contexts)
    ids, mask = padded([ids for ids, _ in rows])
    with inputs_of(projection(model, layer)) as seen:
        model(input_ids=ids, attention_mask=mask)
    return torch.stack([seen[0][i, last] for i, (_, last) in enumerate(rows)]).mean(dim=0)


# --- values -------------------------------------------------------------------------------


def value(model, tokenizer, request, contexts, module, search):
    """The vector that, as a module's output at the subject's last token, says the target.

    Args:
        module: The FFN for ROME, a whole block for MEMIT.

    Returns:
        The vector, and the module's output there before, both `[d_model]`.
    """
    target = tokenizer(request.target, add_special_tokens=False)["input_ids"]
    asked = in_contexts(tokenizer, request.template, request.subject, contexts)
    essence = in_contexts(tokenizer, ESSENCE, request.subject, [""])
    lasts = [last for _, last in asked + essence]
    ids, mask = padded([ids + target[:-1] for ids, _ in asked] + [essence[0][0]])
    rows, n_asked = torch.arange(len(lasts)), len(asked)
    reads = torch.tensor([[len(ids) - 1 + i for i in range(len(target))] for ids, _ in asked])
    change = torch.zeros(model.config.hidden_size, requires_grad=True)
    before, essence_before = None, None

    def write(_module, _args, out):
        nonlocal before
        hidden = out[0] if isinstance(out, tuple) else out
        if before is None:
            before = hidden[0, lasts[0]].detach().clone()
        hidden = hidden.index_put((rows, torch.tensor(lasts)), hidden[rows, lasts] + change)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    optimiser = torch.optim.Adam([change], lr=search.lr)
    handle = module.register_forward_hook(write)
    try:
        for _ in range(search.steps):
            logprobs = model(input_ids=ids, attention_mask=mask).logits.log_softmax(dim=-1)
            said = logprobs[rows[:n_asked, None], reads]
            nll = -said.gather(-1, torch.tensor(target).expand(n_asked, -1)[..., None]).mean()
            now = logprobs[-1, len(essence[0][0]) - 1]
            essence_before = now.detach().clone() if essence_before is None else essence_before
            kl = functional.kl_div(now, essence_before, log_target=True, reduction="sum")
            norm = change.square().sum() / before.square().sum()
            optimiser.zero_grad()
            (nll + search.kl_factor * kl + search.decay * norm).backward()
            optimiser.step()
            with torch.no_grad():
                bound = search.clamp * before.norm()
                change.mul_((bound / change.norm()).clamp(max=1.0))
    finally:
        handle.remove()
    return (before + change).detach(), before


# --- closed forms -------------------------------------------------------------------------


def rank_one(weight, k_star, v_star, inverse):
    """ROME's change of a weight `[d_model, d_mlp]`, equation 2."""
    direction = inverse @ k_star.double()
    residual = v_star.double() - weight.double() @ k_star.double()
    return torch.outer(residual, direction) / (direction @ k_star.double())


def many(keys, residuals, moment, weight):
    """MEMIT's change `[d_model, d_mlp]` for keys and residuals in rows, equation 14."""
    keys, residuals = keys.double(), residuals.double()
    metric = weight * moment.double() + keys.T @ keys
    return residuals.T @ torch.linalg.solve(metric, keys.T).T


# --- methods ------------------------------------------------------------------------------


def rome(model, tokenizer, request, contexts, layer, inverse, search=Search()):
    """The change of one FFN's output projection that rewrites one fact."""
    k_star = key(model, tokenizer, request, contexts, layer)
    ffn = model.model.layers[layer].mlp
    v_star, _ = value(model, tokenizer, request, contexts, ffn, search)
    return rank_one(projection(model, layer).weight.detach(), k_star, v_star, inverse)


def memit_values(model, tokenizer, requests, contexts, layer, search=Search()):
    """The hidden states behind the last edited block that say the targets, one by one."""
    block = model.model.layers[layer]
    found = [value(model, tokenizer, one, contexts, block, search)[0] for one in requests]
    return torch.stack(found)


@torch.no_grad()
def hidden(model, tokenizer, request, layer):
    """The hidden state behind a block at the subject's last token."""
    ids, last = in_contexts(tokenizer, request.template, request.subject, [""])[0]
    out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return out.hidden_states[layer + 1][0, last]


@torch.no_grad()
def memit(model, tokenizer, requests, contexts, layers, values, moments, weight=15_000.0):
    """The changes by layer that spread the way to the values over the layers.

    The model is edited on the way, since each layer answers what those below have left, and is
    put back at the end.

    Args:
        values: From `memit_values` at the last of the layers.
        moments: `E[k k^T]` by layer.
        weight: Of the second moment against the new keys (the paper: 15,000 for GPT-J).
    """
    kept = {layer: projection(model, layer).weight.detach().clone() for layer in layers}
    changes = {}
    try:
        for place, layer in enumerate(layers):
            keys = [key(model, tokenizer, one, contexts, layer) for one in requests]
            now = [hidden(model, tokenizer, one, layers[-1]) for one in requests]
            residuals = (values - torch.stack(now)) / (len(layers) - place)
            changes[layer] = many(torch.stack(keys), residuals, moments[layer], weight)
            projection(model, layer).weight += changes[layer].to(kept[layer].dtype)
    finally:
        for layer, before in kept.items():
            projection(model, layer).weight.copy_(before)
    return changes
