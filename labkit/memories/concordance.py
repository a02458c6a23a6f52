"""Do value and key agree? What a neuron writes, against what followed its triggers.

If an FFN is a key-value memory in the strong sense, a value row promotes the word that
comes next where its key fires (Geva et al. 2021, section 4). The agreement rate of a layer
is the share of its neurons whose value's top token is the token that follows their
strongest trigger in the corpus. Its chance level is exact: the rate that would be expected
if the layer's values and triggers were paired at random, `sum over tokens of P(top) P(next)`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from labkit.arguments import checked
from labkit.errors import FingerprintMismatch, InputError
from labkit.memories.triggers import Triggers
from labkit.memories.values import directions, logit_chunks
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import MEMORY
from labkit.stats import proportion


@dataclass(frozen=True, kw_only=True, eq=False)
class Concordance(Measured):
    """Whether each neuron's value promotes what follows its strongest trigger.

    Attributes:
        layers: The layers, in the order of the first axis.
        rank: Rank of the next token among what the value promotes, 0 the top; -1 where the
            neuron has no trigger that something follows.
        top: A next token of rank below this agrees.
        chance: Expected agreement rate of values and triggers paired at random.
        d_vocab: Number of tokens that are ranked.
        corpus: Where the triggers are from.
    """

    layers: tuple[int, ...]
    rank: Int[np.ndarray, "layer neuron"]
    top: int
    chance: Float[np.ndarray, " layer"]
    d_vocab: int
    corpus: str

    @property
    def title(self) -> str:
        """The layer where key and value agree most."""
        frame = self.to_frame()
        best = frame.loc[frame["mean"].idxmax()]
        return (
            f"Key and value agree most in layer {best['layer']:.0f}: {best['mean']:.1%} of "
            f"neurons, chance {best['chance']:.2%}"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per layer: layer, mean, low, high, n, chance, median_rank.

        The rate with its Wilson interval over the layer's neurons; `median_rank` as a share
        of the vocabulary, 0.5 where value and next token have nothing to do with each other
        and all tokens are equally common.
        """
        rows = []
        for row, layer in enumerate(self.layers):
            known = self.rank[row][self.rank[row] >= 0]
            if not len(known):
                continue
            rate = proportion(int((known < self.top).sum()), len(known))
            rows.append(
                {
                    "layer": layer,
                    **rate.to_dict(),
                    "chance": float(self.chance[row]),
                    "median_rank": float(np.median(known)) / self.d_vocab,
                }
            )
        columns = ["layer", "mean", "low", "high", "n", "chance", "median_rank"]
        return pd.DataFrame(rows, columns=columns)

    def figure(self) -> Any:
        """Concordance by layer with its interval, and the chance level."""
        from labkit.plots import agreement_curve

        return agreement_curve(self.to_frame(), top=self.top, title=self.title)


@checked
@torch.no_grad()
def agreement(
    model: LabModel,
    triggers: Triggers,
    *,
    top: int = 1,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Concordance:
    """How often a value promotes the token that follows its key's strongest trigger.

        agreement(model, find_triggers(model)).figure()

    A neuron that fires with a negative activation subtracts its value row: the words that
    the row suppresses are then the ones that it promotes.

    Args:
        model: The model.
        triggers: Triggers of the layers to ask about, from `find_triggers`.
        top: The next token has to be among so many that the value promotes most.
        memory: Bound on the logits held at once, in bytes.
        progress: Called layer by layer.

    Raises:
        FingerprintMismatch: If the triggers are those of another model.
        InputError: If `top` is not in `1..d_vocab`.

    Shows:
        How often a value promotes the very token that followed its key's strongest trigger,
        against random pairs.

    Does not show:
        That neurons without such agreement store nothing: the value may say something that the
        text did not, or be read by later blocks.

    References:
        Geva et al. 2021, section 4.2 and figure 4.

    Differs from the paper: values are read through the norm (`labkit.memories.values`), the
    sign of the activation counts, and chance is that of random pairs, not 1 / d_vocab.
    """
    if not model.is_own(triggers.fingerprint):
        raise FingerprintMismatch(f"these triggers are of {triggers.model}, not {model.name}")
    if not 1 <= top <= model.d_vocab:
        raise InputError(f"top = {top}: choose 1..{model.d_vocab}")
    following, sign = triggers.next_ids[..., 0], triggers.sign
    rank = np.full(following.shape, -1)
    chance = np.full(len(triggers.layers), np.nan)
    for row, layer in enumerate(triggers.layers):
        known = np.flatnonzero(following[row] >= 0)
        if len(known):
            signs = torch.from_numpy(sign[row][known])
            read = directions(model, layer)[known] * signs[:, None].to(model.device)
            next_ids = torch.from_numpy(following[row][known]).long().to(read.device)
            promoted = torch.zeros(model.d_vocab, dtype=torch.float64, device=read.device)
            for some, logits in logit_chunks(model, read, memory):
                own = logits.gather(1, next_ids[some, None])
                rank[row, known[some]] = (logits > own).sum(dim=-1).cpu().numpy()
                best = logits.topk(top, dim=-1).indices.flatten()
                promoted += torch.bincount(best, minlength=model.d_vocab)
            follows = torch.bincount(next_ids, minlength=model.d_vocab)
            chance[row] = float((promoted * follows).sum()) / len(known) ** 2
        listener(progress)(
            "comparing what neurons write with what came next", (row + 1) / len(rank)
        )
    return Concordance(
        layers=triggers.layers,
        rank=rank,
        top=top,
        chance=chance,
        d_vocab=model.d_vocab,
        corpus=triggers.corpus,
        **measured_on(model),
    )
