"""Read a model's states as words: next tokens, and the logit lens.

Thin, typed wrappers over transformer_lens' own analysis tools, which refuse to run where
the readout does not reproduce the model's own logits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from transformer_lens.tools.analysis import logit_lens as _lens

from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.answers import follow, shown
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.running.logits import next_token_logits
from labkit.tokens import Token, target_ids


@dataclass(frozen=True, kw_only=True)
class Predictions(Measured):
    """The most probable next tokens after a prompt.

    Attributes:
        prompt: The prompt.
        tokens: The tokens, most probable first.
        probabilities: Their probabilities, exact for this model.
        answers: The tokens as texts to type; each leads back to its token as an answer.
    """

    prompt: str
    tokens: tuple[str, ...]
    probabilities: tuple[float, ...]
    answers: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The prompt, and what follows it."""
        return f"{self.prompt} … {self.tokens[0].strip()!r} ({self.probabilities[0]:.2f})"

    def to_frame(self) -> pd.DataFrame:
        """One row per token: token, probability."""
        return pd.DataFrame({"token": self.tokens, "probability": self.probabilities})

    def figure(self) -> Any:
        """Bars of probability."""
        from labkit.plots import predictions_bar

        return predictions_bar(self.to_frame(), title=self.prompt)


@checked
def predict(model: LabModel, prompt: str, *, k: int = 10) -> Predictions:
    """The `k` most probable next tokens after a prompt.

    Raises:
        EmptyPrompt: If the prompt is empty.
        InputError: If `k` is not in `1..d_vocab`, or the prompt is no text.
    """
    if not 1 <= k <= model.d_vocab:
        raise InputError(f"k = {k}: choose 1..{model.d_vocab} next tokens")
    top = next_token_logits(model, [prompt])[0].float().softmax(dim=-1).topk(k)
    return Predictions(
        prompt=prompt,
        tokens=tuple(Token.of(model.tokenizer, token) for token in top.indices.tolist()),
        answers=tuple(shown(model.tokenizer, prompt, token) for token in top.indices.tolist()),
        probabilities=tuple(top.values.tolist()),
        **measured_on(model),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LensResult(Measured):
    """The residual stream after every block, read through the final norm and unembedding.

    Attributes:
        prompt: The prompt.
        answer: The token whose probability is followed.
        tokens: The prompt's tokens.
        top: By layer and position, the most probable tokens, best first.
        probability: Probability of the best token.
        answer_probability: Probability of the answer.
        answer_rank: Rank of the answer, 0 is the top.
    """

    prompt: str
    answer: str
    tokens: tuple[str, ...]
    top: tuple[tuple[tuple[str, ...], ...], ...]
    probability: Float[np.ndarray, "layer pos"]
    answer_probability: Float[np.ndarray, "layer pos"]
    answer_rank: Float[np.ndarray, "layer pos"]

    @property
    def title(self) -> str:
        """Where the answer becomes the top token for good."""
        settled = self.settled
        where = "never" if settled is None else f"from layer {settled} on"
        return f"{self.prompt} … {self.answer.strip()!r} is the top token {where}"

    @property
    def settled(self) -> int | None:
        """First layer from which on the answer stays the top token at the last position."""
        wrong = np.flatnonzero(self.answer_rank[:, -1] > 0)
        first = 0 if not len(wrong) else int(wrong[-1]) + 1
        return first if first < len(self.answer_rank) else None

    def to_frame(self) -> pd.DataFrame:
        """One row per layer and position: layer, pos, token, top, probability, answer_*."""
        layers, positions = np.indices(self.probability.shape)
        return pd.DataFrame(
            {
                "layer": layers.ravel(),
                "pos": positions.ravel(),
                "token": [self.tokens[p] for p in positions.ravel()],
                "top": [best[0] for row in self.top for best in row],
                "probability": self.probability.ravel(),
                "answer_probability": self.answer_probability.ravel(),
                "answer_rank": self.answer_rank.ravel().astype(int),
            }
        )

    def figure(self) -> Any:
        """The top token at every layer and position."""
        from labkit.plots import lens_table

        return lens_table(self.to_frame(), title=self.title)

    def figure_at_last(self) -> Any:
        """P(answer) and the top tokens of every layer at the last position."""
        from labkit.plots import lens_at_last

        frame = pd.DataFrame(
            {
                "layer": range(len(self.top)),
                "answer_probability": self.answer_probability[:, -1],
                "top_tokens": [row[-1] for row in self.top],
            }
        )
        return lens_at_last(frame, answer=self.answer, title=self.title)


@checked
@torch.no_grad()
def logit_lens(
    model: LabModel, prompt: str, *, answer: str | None = None, k: int = 5
) -> LensResult:
    """The logit lens over all layers and positions of a prompt.

        logit_lens(model, "The Eiffel Tower is located in the city of").figure()

    Args:
        model: The model.
        prompt: The prompt.
        answer: The continuation whose first token is followed; by default the model's own.
            A first token that says nothing moves to the prompt (`labkit.facts.answers.follow`).
        k: Number of top tokens to keep.

    Raises:
        EmptyPrompt, EmptyTarget: If prompt or answer is empty.
        InputError: If the prompt is no text.
        NotOneToken: If the answer is a number that is cut into digits.

    Shows:
        What every state would say if the blocks above it were left out.

    Does not show:
        What the state is used for: one that reads as " Paris" need not be used that way, and one
        that reads as nonsense may hold the answer in another basis (Belrose et al. 2023).

    References:
        nostalgebraist 2020, interpreting GPT: the logit lens.
    """
    if answer is None:
        followed = int(next_token_logits(model, [prompt])[0].argmax())
    else:
        prompt, answer = follow(model.tokenizer, prompt, answer)
        followed = target_ids(model.tokenizer, prompt, answer)[0]
    ids = model.tokens([prompt]).ids
    every = dict(positions=None, return_type="probs")
    top = _lens(model.bridge, ids, top_k=k, **every).readout
    own = _lens(model.bridge, ids, targets=[followed], **every).readout
    # The stack begins with the embeddings; layers are what blocks leave behind.
    best, probability = top.top_ids[1:, 0], top.values[1:, 0]
    decode = model.tokenizer.decode
    return LensResult(
        prompt=prompt,
        answer=decode([followed]),
        tokens=tuple(decode([token]) for token in ids[0].tolist()),
        top=tuple(tuple(tuple(decode([t]) for t in cell) for cell in row) for row in best.tolist()),
        probability=probability[..., 0].float().cpu().numpy(),
        answer_probability=own.values[1:, 0, :, 0].float().cpu().numpy(),
        answer_rank=own.target_ranks[1:, 0, :, 0].float().cpu().numpy(),
        **measured_on(model),
    )
