"""Direct logit attribution: what each part of a model adds to an answer's logit."""

import copy

import pandas as pd
import torch
from transformer_lens.tools.analysis import direct_logit_attribution as _attribute

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.answers import follow
from labkit.models.bridging import bridge
from labkit.models.model import LabModel
from labkit.running.execute import Execution
from labkit.running.logits import read_logits
from labkit.tokens import Token, TokenBatch, target_ids


@checked
@torch.no_grad()
def direct_logit_attribution(
    model: LabModel, prompt: str, answer: str, *, unit: str = "component"
) -> pd.DataFrame:
    """What each component adds to the logit of an answer at the last position.

        direct_logit_attribution(model, prompt, " Paris", unit="head")

    transformer_lens computes this on a model whose final norm is folded into its
    unembedding. Folding rewrites weights, so it is done on a copy: this needs the memory
    of a second model for the duration of the call. The unembedding is not centred, so what
    is attributed is the logit itself and not its distance from the mean logit. Where a family
    cannot be folded (OLMo 2), or the folded parts are not the model's (XGLM), the shares are
    those of `labkit.memories.contributions`, which folds nothing.

    Args:
        model: The model; it is not touched.
        prompt: The prompt.
        answer: The continuation whose first token is attributed. A first token that says
            nothing moves to the prompt (`labkit.facts.answers.follow`).
        unit: "component" (embedding, attention and FFN of each layer) or "head" (each
            attention head, and the remainder). For the stream as it grows from layer to
            layer see `logit_lens`.

    Returns:
        Columns `component` and `logit`; the logits sum to the answer's before any cap. The last
        row, `bias`, is what the final norm and the unembedding add whatever they read. The
        table's `attrs` say both `logit`, the sum, and `model_logit`, what the model gives:
        families that cap their logits (Gemma 2) give less.

    Raises:
        EmptyPrompt, EmptyTarget: If prompt or answer is empty.
        NotOneToken: If the answer is a number that is cut into digits.
        NotDecomposable: If the logit is not the sum of what the parts write.
        InputError: If there is no such unit.

    Shows:
        What each part adds to the answer's logit directly, through the final norm at its actual
        scale and the unembedding.

    Does not show:
        What a part does through the parts after it that read it; nor what would happen without
        it.

    References:
        Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
    """
    if unit not in ("component", "head"):
        raise InputError(f"unit {unit!r}: one of component, head")
    prompt, answer = follow(model.tokenizer, prompt, answer)
    token = target_ids(model.tokenizer, prompt, answer)[0]
    batch = model.tokens([prompt])
    resid = Execution(model, batch).forward()[:, -1:]
    plain = float(model.unembed(model.final_norm(resid))[0, 0, token])
    table = _folded(model, batch, token, unit)
    if table is None or not _sums_to(table, plain):
        table = _shared_out(model, prompt, Token.of(model.tokenizer, token), unit)
    table.attrs = {"logit": plain, "model_logit": float(read_logits(model, resid)[0, 0, token])}
    return table


def _folded(model: LabModel, batch: TokenBatch, token: int, unit: str) -> pd.DataFrame | None:
    """transformer_lens' attribution on a folded copy; None where it cannot be folded."""
    folded = bridge(copy.deepcopy(model.hf), model.tokenizer)
    try:
        folded.enable_compatibility_mode(center_unembed=False)
        found = _attribute(folded, batch.ids, torch.tensor([token]), unit=unit)
    except (ValueError, NotImplementedError):
        return None
    written = found.attribution.detach().float().reshape(len(found.labels), -1)[:, 0].tolist()
    bias = float(folded.b_U[token].detach())
    return pd.DataFrame({"component": [*found.labels, "bias"], "logit": [*written, bias]})


def _sums_to(table: pd.DataFrame, logit: float) -> bool:
    """Whether parts are the parts of a logit, within 1e-3 of the largest of them."""
    largest = max(abs(logit), float(table["logit"].abs().max()))
    return abs(float(table["logit"].sum()) - logit) <= 1e-3 * largest


def _shared_out(model: LabModel, prompt: str, answer: Token, unit: str) -> pd.DataFrame:
    """The same table from the shares of every neuron and head."""
    from labkit.memories.composition import contributions

    found = contributions(model, prompt, answer)
    layers = range(model.n_layers)
    ffn = found.neurons.sum(axis=1) + found.ffn_bias
    if unit == "head":
        heads = {
            f"L{layer}H{head}": float(found.heads[layer, head])
            for layer in layers
            for head in range(model.n_heads)
        }
        rest = found.embedding + float(ffn.sum() + found.attn_bias.sum())
        parts = {**heads, "remainder": rest}
    else:
        attn = found.heads.sum(axis=1) + found.attn_bias
        parts = {"embed": found.embedding}
        for layer in layers:
            parts[f"{layer}_attn_out"] = float(attn[layer])
            parts[f"{layer}_mlp_out"] = float(ffn[layer])
    parts["bias"] = found.bias
    return pd.DataFrame({"component": list(parts), "logit": list(parts.values())})
