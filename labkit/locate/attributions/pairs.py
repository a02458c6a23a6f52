"""Attribution patching between two prompts, by transformer_lens' own tool.

For prompts of equal length that differ in a few tokens ("The capital of France is" and
"The capital of Spain is"), the corrupted run is the other prompt. Nodes are what writes
into the residual stream: the embedding, every attention head, every FFN. The score of a
node is the first-order effect on P(answer) of moving it from the corrupted prompt's value
to the clean one's.

For a corruption by noise and for hidden states see `labkit.locate.attributions.attribution`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformer_lens.tools.analysis import attribution_patching as lens

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.answers import follow
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import next_token_logits
from labkit.stats.intervals import over_units
from labkit.tokens import target_ids


@dataclass(frozen=True, kw_only=True, eq=False)
class PairAttribution(Measured):
    """First-order effects of every node, between clean and corrupted prompts.

    Attributes:
        pairs: The clean and the corrupted prompt of each pair.
        answers: The token whose probability is followed, by pair.
        tokens: Tokens of the clean prompt of the first pair.
        clean: P(answer) of the clean prompts.
        corrupted: P(answer) of the corrupted prompts.
        embed: Effect of the token embedding.
        heads: Effect of each attention head's output.
        ffn: Effect of each FFN's output.
    """

    pairs: tuple[tuple[str, str], ...]
    answers: tuple[str, ...]
    tokens: tuple[str, ...]
    clean: Float[np.ndarray, " pair"]
    corrupted: Float[np.ndarray, " pair"]
    embed: Float[np.ndarray, "pair pos"]
    heads: Float[np.ndarray, "pair pos layer head"]
    ffn: Float[np.ndarray, "pair pos layer"]

    @property
    def title(self) -> str:
        """The first pair, and how many there are."""
        clean, corrupted = self.pairs[0]
        count = f"{len(self.pairs)} pairs, such as " if len(self.pairs) > 1 else ""
        return f"Attribution between prompts: {count}{clean!r} against {corrupted!r}"

    def to_frame(self) -> pd.DataFrame:
        """One row per node: kind, pos, token, layer, head, and mean, low, high of its effect.

        The interval covers the pairs: 95 %; a single pair has none (NaN). `layer`
        and `head` are -1 where a node has none.
        """
        parts = []
        grids = (("embed", self.embed), ("head", self.heads), ("ffn", self.ffn))
        for kind, values in grids:
            mean, low, high, _ = over_units(values)
            axes = dict(zip(("pos", "layer", "head"), np.indices(mean.shape), strict=False))
            part = pd.DataFrame({name: index.ravel() for name, index in axes.items()})
            part = part.assign(kind=kind, mean=mean.ravel(), low=low.ravel(), high=high.ravel())
            parts.append(part.reindex(columns=_COLUMNS, fill_value=-1))
        frame = pd.concat(parts, ignore_index=True)
        frame["token"] = [self.tokens[pos] for pos in frame["pos"]]
        return frame

    def figure(self) -> Any:
        """The largest effects, bar by bar, with their intervals."""
        from labkit.plots import node_bars

        return node_bars(self.to_frame(), answer=self.answers[0], title=self.title)


_COLUMNS = "kind pos token layer head mean low high".split()


@checked
def attribution_pairs(
    model: LabModel,
    pairs: Sequence[tuple[str, str]],
    answers: str | Sequence[str],
    *,
    progress: Progress | None = None,
) -> PairAttribution:
    """Effect of every node on P(answer), from corrupted to clean prompts.

        pair = ("The capital of France is", "The capital of Spain is")
        attribution_pairs(model, [pair], " Paris").figure()

    Args:
        model: The model.
        pairs: Clean and corrupted prompts, all of the same number of tokens.
        answers: Whose first token's probability is followed after the clean prompt; one
            for all pairs, or one each.
        progress: Called with what is being done and the share that is done.

    Raises:
        InputError: If there is no pair, prompts differ in length or not at all, or there
            are not as many answers as pairs.
        EmptyPrompt, EmptyTarget: If a prompt or an answer is empty.
        NotOneToken: If an answer is a number that is cut into digits.

    Shows:
        A ranking of heads, FFNs and the embedding by their first-order effect between two
        prompts.

    Does not show:
        The effect itself, which patching measures; and nothing that both prompts share.

    References:
        Syed et al. 2023, Attribution Patching Outperforms Automated Circuit Discovery;
        transformer_lens' `tools.analysis.attribution_patching`, node granularity.

    Differs from the paper: nodes at single positions instead of edges.
    """
    asked = [answers] * len(pairs) if isinstance(answers, str) else list(answers)
    if not pairs or len(asked) != len(pairs):
        raise InputError(f"{len(pairs)} pairs with {len(asked)} answers: each pair needs one")
    asked, pairs = _told(model, asked, pairs)
    tokens = [model.tokens([*pair]) for pair in pairs]
    lengths = {int(length) for batch in tokens for length in batch.lengths}
    if len(lengths) > 1:
        raise InputError(
            f"the prompts have {sorted(lengths)} tokens: attribution goes position by "
            "position, so all of them need the same number"
        )
    for (clean, _), batch in zip(pairs, tokens, strict=True):
        if torch.equal(batch.ids[0], batch.ids[1]):
            raise InputError(f"clean and corrupted prompt are the same: {clean!r}")
    followed = [
        target_ids(model.tokenizer, clean, answer)[0]
        for (clean, _), answer in zip(pairs, asked, strict=True)
    ]
    grids: list[tuple[Tensor, Tensor, Tensor]] = []
    probabilities: list[Tensor] = []
    for index, (batch, token) in enumerate(zip(tokens, followed, strict=True)):
        listener(progress)(f"pair {index + 1} of {len(pairs)}", index / len(pairs))
        grids.append(_attribute(model, batch.ids, token))
        probabilities.append(next_token_logits(model, batch).float().softmax(dim=-1)[:, token])
    embed, heads, ffn = (torch.stack(parts).numpy() for parts in zip(*grids, strict=True))
    clean_p, corrupted_p = rearrange(torch.stack(probabilities), "pair side -> side pair")
    return PairAttribution(
        pairs=tuple((clean, corrupted) for clean, corrupted in pairs),
        answers=tuple(model.tokenizer.decode([token]) for token in followed),
        tokens=tuple(model.tokenizer.decode([token]) for token in tokens[0].ids[0].tolist()),
        clean=clean_p.cpu().numpy(),
        corrupted=corrupted_p.cpu().numpy(),
        embed=embed,
        heads=heads,
        ffn=ffn,
        **measured_on(model),
    )


def _told(
    model: LabModel, answers: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Answers that their first tokens tell apart, and prompts that end in what they share."""
    behind = [
        follow(model.tokenizer, clean, answer)
        for (clean, _), answer in zip(pairs, answers, strict=True)
    ]
    longer = [
        (asked, corrupted + asked[len(clean) :])
        for (asked, _), (clean, corrupted) in zip(behind, pairs, strict=True)
    ]
    return [answer for _, answer in behind], longer


def _attribute(
    model: LabModel, ids: Tensor, token: int
) -> tuple[Float[Tensor, " pos"], Float[Tensor, "pos layer head"], Float[Tensor, "pos layer"]]:
    """transformer_lens' scores of one pair, as grids."""

    def probability(logits: Tensor) -> Tensor:
        return logits[0, -1].float().softmax(dim=-1)[token]

    def ask(embedding: Tensor, hook: Any) -> Tensor:
        # The lab's parameters ask for no gradient, so the graph has to begin here.
        return embedding.detach().requires_grad_()

    with (
        torch.enable_grad(),
        model.bridge.hooks(fwd_hooks=[("hook_embed", ask)]),
        warnings.catch_warnings(),
    ):
        # Where the graph begins there is no input whose gradient a hook could see.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        found = lens.attribution_patch(model.bridge, ids[:1], ids[1:], probability)
    n_positions = ids.shape[1]
    embed = torch.zeros(n_positions)
    heads = torch.zeros(n_positions, model.n_layers, model.n_heads)
    ffn = torch.zeros(n_positions, model.n_layers)
    for node, score in found.node_scores.items():
        if node.kind == "embed":
            embed[node.position] = score
        elif node.kind == "mlp_out":
            ffn[node.position, node.layer] = score
        else:
            heads[node.position, node.layer, node.head] = score
    return embed, heads, ffn
