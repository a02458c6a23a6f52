"""Fitting translators: one pass over a text, one ridge regression per depth, quality, the cache.

What is fitted, and why, is explained in `probes.cloze.translators`.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from labkit import cache as cached
from labkit.arguments import checked
from labkit.errors import InputError, SingularSystem
from labkit.metrics import kl_divergence
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.results.measured import measured_on
from labkit.running.execute import Execution
from labkit.running.logits import MEMORY
from labkit.running.packing import unmasked
from labkit.text.corpus import Corpus, corpus_of, held_out
from labkit.text.streams import packed
from probes.cloze.translators import Translators, depths, lens_logits, rms

logger = logging.getLogger(__name__)

FORMAT = 2
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Strengths that are tried, in units of the mean square of a normed state's entry (which is 1)."""


@dataclass(frozen=True, kw_only=True)
class TranslatorFit:
    """How translators are fitted.

        translators = TranslatorFit()(model)

    Attributes:
        tokens: Tokens to fit on; all of a smaller corpus is used. By default 20 x d_model, and
            12,000 at least.
        held_out: Tokens that the reported quality is measured on, at most about so many: each takes
            two readings through the unembedding per depth.
        window: Documents are cut into pieces of at most so many tokens.
        memory: Bound on the activations held at once, in bytes.

    Calling it needs `4 d_model^2` numbers per depth besides.

    Shows:
        What a state says once an affine map makes up for the basis of its depth.

    Does not show:
        What the state alone holds: a translator knows what usually follows. Where it reads the
        right word off a state that holds next to nothing, that is its own knowledge;
        `probes.cloze.objects` asks it about states of other facts, as a control.
    """

    tokens: int | None = None
    held_out: int = 400
    window: int = 256
    memory: int = MEMORY

    def __post_init__(self) -> None:
        """Refuse counts that nothing can be fitted with."""
        for name in ("tokens", "held_out", "window"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise InputError(f"{name} = {value}: choose at least 2")

    @checked
    @torch.no_grad()
    def __call__(
        self,
        model: LabModel,
        corpus: Corpus | None = None,
        *,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> Translators:
        """Fit one translator per depth, or take them from the cache.

        Args:
            model: The model.
            corpus: Text to fit on; by default the model's own (`labkit.text.corpus.corpus_of`).
                Every eighth document serves to choose the ridge.
            cache: Whether to read and write the user's cache.
            progress: Called as the pass goes on.

        Raises:
            InputError: If the corpus has fewer than two documents.
            SingularSystem: If the model's states are not finite on the text.
        """
        corpus = corpus_of(model, progress=progress) if corpus is None else corpus
        texts = held_out(model)
        place = self._place(model, corpus, texts) if cache else None
        if (found := cached.read(place)) is not None:
            return _of(found, model, corpus)
        if len(corpus.documents) < 2:
            raise InputError(f"{corpus.source}: one document, two are needed to choose a ridge")
        weight, bias, ridge, n_tokens = self._fitted(model, corpus, progress)
        result = Translators(
            weight=weight,
            bias=bias,
            ridge=ridge,
            divergence=np.zeros((2, 1, len(bias))),
            agreement=np.zeros((2, 1, len(bias))),
            n_tokens=n_tokens,
            source=corpus.source,
            **measured_on(model),
        )
        divergence, agreement = self._quality(model, result, texts, progress)
        result = Translators(
            **{**vars(result), "divergence": divergence, "agreement": agreement},
        )
        _write(place, result)
        return result

    def _fitted(
        self, model: LabModel, corpus: Corpus, progress: Progress | None
    ) -> tuple[Tensor, Tensor, tuple[float, ...], int]:
        """The maps of all depths, the ridge of each, and the tokens behind them."""
        wanted = max(12_000, 20 * model.d_model) if self.tokens is None else self.tokens
        chosen = Corpus(documents=corpus.documents[::8], source=corpus.source)
        rest = [text for place, text in enumerate(corpus.documents) if place % 8]
        fit, check = _Moments(), _Moments()
        for moments, part, n in (
            (fit, Corpus(documents=tuple(rest), source=corpus.source), wanted),
            (check, chosen, max(wanted // 8, 2)),
        ):
            for states in _token_states(model, part, n, self.window, self.memory):
                moments.add(states)
                share = (fit.n + check.n) / (wanted + wanted // 8)
                listener(progress)("fitting translators", min(0.7, 0.7 * share))
        solved = [_ridge(fit, check, depth) for depth in range(model.n_layers)]
        nothing = torch.zeros(model.d_model, model.d_model), torch.zeros(model.d_model)
        weights = [weight.float() for weight, _, _ in solved] + [nothing[0]]
        biases = [bias.float() for _, bias, _ in solved] + [nothing[1]]
        ridges = (*(ridge for _, _, ridge in solved), 0.0)
        logger.info("translators of %s from %d tokens", model.name, fit.n)
        return torch.stack(weights), torch.stack(biases), ridges, fit.n

    def _quality(
        self, model: LabModel, found: Translators, texts: Sequence[str], progress: Progress | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """KL to the model and agreement with it `[lens text depth]` on held-out texts."""
        kept: list[np.ndarray] = []
        n_tokens = 0
        for text in texts:
            part = Corpus(documents=(text,), source="held out")
            states = torch.cat(
                list(_token_states(model, part, self.window, self.window, self.memory))
            )
            n_tokens += len(states)
            kept.append(
                np.stack([_fidelity(model, states, lens, self.memory) for lens in (None, found)])
            )
            listener(progress)(
                "measuring translators", 0.7 + 0.3 * min(1.0, n_tokens / self.held_out)
            )
            if n_tokens >= self.held_out:
                break
        table = rearrange(np.stack(kept), "text lens measure depth -> measure lens text depth")
        return table[0], table[1]

    def _place(self, model: LabModel, corpus: Corpus, texts: Sequence[str]) -> Path | None:
        """Where translators are cached: named by everything that they depend on."""
        settings = asdict(self)
        del settings["memory"]
        parts = settings | {
            "corpus": corpus.digest,
            "held_out_text": Corpus(documents=tuple(texts), source="").digest,
        }
        return cached.place(model, "translators", FORMAT, parts)


class _Moments:
    """Sums over tokens for the ridge regression, of all depths but the last."""

    def __init__(self) -> None:
        self.n = 0
        self.xx: Tensor | float = 0.0  # [depth d_model d_model], of normed states and a constant
        self.xr: Tensor | float = 0.0  # [depth d_model d_model], with what they lack to the last
        self.rr: Tensor | float = 0.0

    def add(self, states: Float[Tensor, "token depth d_model"]) -> None:
        """Count some tokens in."""
        normed = states / rms(states)
        x = torch.nn.functional.pad(normed[:, :-1], (0, 1), value=1.0)  # the constant: the bias
        r = normed[:, -1:] - normed[:, :-1]
        wide = torch.promote_types(states.dtype, torch.float32)
        x, r = x.to(wide), r.to(wide)
        pairs = "token depth d_in, token depth d_out -> depth d_in d_out"
        self.xx = self.xx + einsum(x, x, pairs).cpu().double()
        self.xr = self.xr + einsum(x, r, pairs).cpu().double()
        self.rr = self.rr + r.square().sum(dim=(0, 2)).cpu().double()
        self.n += len(states)


def _ridge(fit: _Moments, check: _Moments, depth: int) -> tuple[Tensor, Tensor, float]:
    """Weight and bias of one depth, with the ridge that is best on the other documents."""
    xx, xr = fit.xx[depth] / fit.n, fit.xr[depth] / fit.n  # type: ignore[index]
    if not (xx.isfinite().all() and xr.isfinite().all()):
        raise SingularSystem(
            f"the states after {depth} blocks are not finite: load the model in a wider dtype"
        )
    best: tuple[float, Tensor, float] | None = None
    for ridge in RIDGES:
        penalty = torch.full((len(xx),), ridge, dtype=xx.dtype)
        penalty[-1] = 1e-9  # the bias is not held back
        solution = torch.linalg.solve(xx + penalty.diag(), xr)
        wrong = check.rr[depth] - 2 * (solution * check.xr[depth]).sum()  # type: ignore[index]
        wrong += (solution * (check.xx[depth] @ solution)).sum()  # type: ignore[index]
        if best is None or float(wrong) < best[0]:
            best = float(wrong), solution, ridge
    assert best is not None
    return best[1][:-1].T, best[1][-1], best[2]


def _token_states(
    model: LabModel, corpus: Corpus, min_tokens: int, window: int, memory: int
) -> Iterator[Float[Tensor, "token depth d_model"]]:
    """States of a corpus' tokens at all depths, batch by batch.

    A piece's first token is left out: it is the attention sink, whatever the word.
    """
    for batch in packed(model, corpus, min_tokens=min_tokens, window=window, memory=memory):
        kept = batch.mask.clone()
        kept[:, 0] = False
        if not bool(kept.any()):
            continue
        # What follows a position cannot change it, so padding on the right needs no mask.
        run = Execution(model, unmasked(batch))
        yield torch.stack([resid[kept] for resid in depths(run)], dim=1)


def _fidelity(
    model: LabModel,
    states: Float[Tensor, "token depth d_model"],
    translators: Translators | None,
    memory: int,
) -> Float[np.ndarray, "measure depth"]:
    """Mean KL(model || lens) and agreement of the top words, by depth."""
    totals = np.zeros((2, states.shape[1]))
    at_once = max(1, memory // (states.shape[1] * model.d_vocab * 16))
    for some in states.split(at_once):
        logits = lens_logits(model, some, translators).float()
        own = logits[:, -1:].expand_as(logits)
        totals[0] += kl_divergence(own, logits).sum(dim=0).cpu().numpy()
        same = logits.argmax(dim=-1) == own.argmax(dim=-1)
        totals[1] += same.sum(dim=0).cpu().numpy()
    return totals / len(states)


def _of(found: cached.Found, model: LabModel, corpus: Corpus) -> Translators:
    """Cached translators."""
    tensors, header = found.tensors, found.header
    return Translators(
        weight=tensors["weight"],
        bias=tensors["bias"],
        ridge=tuple(header["ridge"]),
        divergence=tensors["divergence"].numpy(),
        agreement=tensors["agreement"].numpy(),
        n_tokens=header["n_tokens"],
        source=corpus.source,
        **measured_on(model),
    )


def _write(place: Path | None, found: Translators) -> None:
    """Cache translators."""
    tensors = {
        "weight": found.weight,
        "bias": found.bias,
        "divergence": torch.from_numpy(np.ascontiguousarray(found.divergence)),
        "agreement": torch.from_numpy(np.ascontiguousarray(found.agreement)),
    }
    cached.write(place, tensors, {"ridge": found.ridge, "n_tokens": found.n_tokens})
