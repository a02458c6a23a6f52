"""Affine translators: the states of each depth in the basis of the last.

The logit lens reads a state of a middle layer as if the last block had written it. It ignores what
the blocks in between would change. A translator makes up for the affine part:

    h'_d = h_d + A_d h_d + rms(h_d) b_d,        d = 0 .. n_layers,

where `h_d` is the residual stream after d blocks, and the last translator is the identity.
`A_d` and `b_d` are the ridge regression, towards the identity (`A = 0`), of the final state on
`h_d`, both divided by their root mean square: the final norm divides by it in any case, and a
few tokens of enormous norm would rule the fit otherwise. How strong the ridge is, is chosen for
each depth on documents of their own; what a translator is worth (`to_frame`) is measured on
text of a third kind, as KL to the model's own next-token distribution, beside the logit lens.

References:
    Belrose et al. 2023, Eliciting Latent Predictions from Transformers with the Tuned Lens,
    section 3.

Differs from the paper: closed form, not gradient descent on the KL; it takes one pass over a
few thousand tokens. The bias grows with the state's norm, so that a state's scale cannot
matter to what is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from labkit import stats
from labkit.errors import FingerprintMismatch
from labkit.models.model import LabModel
from labkit.results.measured import Measured
from labkit.running.execute import Execution
from labkit.running.logits import read_logits

LENSES = ("logit", "translated")


@dataclass(frozen=True, kw_only=True, eq=False)
class Translators(Measured):
    """One affine map per depth, from the state there to the state after the last block.

    Attributes:
        weight: `A`, what is added to the identity; zero for the last depth.
        bias: `b`, in units of the state's root mean square.
        ridge: Strength chosen for each depth.
        divergence: KL(model || lens) in nats, by lens (logit, translated), held-out text, and
            depth; mean over a text's tokens.
        agreement: Share of tokens where lens and model have the same top word, likewise.
        n_tokens: Tokens behind the fit.
        source: The text they were fitted on.
    """

    weight: Float[Tensor, "depth d_model d_model"]
    bias: Float[Tensor, "depth d_model"]
    ridge: tuple[float, ...]
    divergence: Float[np.ndarray, "lens text depth"]
    agreement: Float[np.ndarray, "lens text depth"]
    n_tokens: int
    source: str

    @property
    def title(self) -> str:
        """What was fitted, on what."""
        return f"Translators of {self.model}, {self.n_tokens} tokens ({self.source})"

    def __call__(self, states: Float[Tensor, "row depth d_model"]) -> Tensor:
        """States of all depths as the last block would have written them."""
        weight, bias = self.weight.to(states), self.bias.to(states)
        added = einsum(states, weight, "row depth d_in, depth d_out d_in -> row depth d_out")
        return states + added + rms(states) * bias

    def to_frame(self) -> pd.DataFrame:
        """One row per lens and depth: KL to the model in nats, mean, low, high over texts, n.

        `agreement` is the share of tokens with the model's own top word, mean over texts.
        """
        return pd.DataFrame(
            {"lens": lens, "depth": depth}
            | stats.average(divergence).to_dict()
            | {"agreement": float(agreement.mean())}
            for lens, *tables in zip(LENSES, self.divergence, self.agreement, strict=True)
            for depth, (divergence, agreement) in enumerate(
                zip(*(table.T for table in tables), strict=True)
            )
        )

    def figure(self) -> Any:
        """KL to the model's own distribution by depth, with and without translator."""
        from labkit.plots import lens_quality_curves

        return lens_quality_curves(self.to_frame(), title=self.title)


def lens_logits(
    model: LabModel,
    states: Float[Tensor, "row depth d_model"],
    translators: Translators | None = None,
) -> Float[Tensor, "row depth vocab"]:
    """Logits of states of all depths, through the model's own head.

    Args:
        model: The model.
        states: The residual stream at one position, after 0, 1, ... n_layers blocks.
        translators: The translators to apply first; without, the logit lens.

    Raises:
        FingerprintMismatch: If the translators are another model's.
    """
    if translators is not None:
        if not model.is_own(translators.fingerprint):
            raise FingerprintMismatch(
                f"the translators of {translators.model} were handed to {model.name}: fit its own"
            )
        states = translators(states)
    return read_logits(model, states)


def depths(run: Execution) -> Iterator[Float[Tensor, "row pos d_model"]]:
    """The residual stream of all prompts after 0, 1, ... n_layers blocks, one after the other."""
    resid = run.forward(stop=0)
    yield resid
    for layer in range(run.model.n_layers):
        resid = run.forward(resid, start=layer, stop=layer + 1)
        yield resid


def rms(states: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 1"]:
    """Root mean square of every state, which the final norm divides by."""
    return states.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-12)
