"""Second moments of FFN keys: `C = E[k k^T]`, the metric of rank-one editing.

An edit that must not disturb what is stored under other keys needs to know which keys
there are (Meng et al. 2022, section 3.1, equation 2). Keys are collected at every token of
a corpus, all layers in one pass that stops after the last of them, and only the running
sum is kept. What was computed is cached under a hash of everything that it depends on.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labkit import cache
from labkit.arguments import checked
from labkit.errors import InputError, SingularSystem
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.running.activations import Activations, capture
from labkit.running.execute import Execution
from labkit.running.packing import unmasked
from labkit.text.corpus import Corpus, corpus_of
from labkit.text.streams import USUAL, ReadingOptions, packed
from labkit.tokens import TokenBatch

logger = logging.getLogger(__name__)

KEYS_PER_NEURON = 10
"""Keys collected by default, as a multiple of d_mlp."""

FORMAT = 2


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """`C = E[k k^T]` of one layer's FFN keys.

    Attributes:
        matrix: `C`, float64, on the CPU.
        layer: The layer.
        n_keys: Number of keys (tokens) behind it.
        source: The corpus it was measured on.
        fingerprint: Fingerprint of the weights in effect when it was measured.
        base: Fingerprint of the model as loaded; None stands for the same.
        equal_length: Whether the keys were brought to one length first.
    """

    matrix: Float[Tensor, "d_mlp d_mlp"]
    layer: int
    n_keys: int
    source: str
    fingerprint: str
    base: str | None = None
    equal_length: bool = False

    @cached_property
    def _cholesky(self) -> Tensor:
        """Lower Cholesky factor of `C`, with the smallest ridge that makes it invertible.

        Raises:
            SingularSystem: If `C` is zero, not finite, or not positive definite.
        """
        ridge = RIDGE * self.matrix.diagonal().mean()
        factor, failed = torch.linalg.cholesky_ex(
            self.matrix + ridge * torch.eye(len(self.matrix), dtype=self.matrix.dtype)
        )
        if failed or not ridge > 0 or not factor.isfinite().all():
            raise SingularSystem(
                f"the second moment of layer {self.layer} ({self.source}, {self.n_keys} keys) "
                "cannot be inverted: it is zero, not finite or not positive. Measure it on "
                "more text, and on a model that does not overflow"
            )
        return factor

    def blended(self, other: "SecondMoment", share: float) -> "SecondMoment":
        """The second moment of a mixture: `(1 - share) C + share C'`.

        Args:
            other: The same layer of the same model, measured on another corpus.
            share: Weight of the other, 0..1.

        Raises:
            InputError: If the share is no share, or the two do not belong together.
        """
        if not 0 <= share <= 1:
            raise InputError(f"a share of {share}: choose 0 to 1")
        mine = (self.layer, self.fingerprint, self.equal_length)
        if mine != (other.layer, other.fingerprint, other.equal_length):
            raise InputError(
                "second moments of different layers or models, or of keys as they are and keys of "
                "equal length, cannot be blended"
            )
        return SecondMoment(
            (1 - share) * self.matrix + share * other.matrix,
            self.layer,
            self.n_keys + other.n_keys,
            f"{1 - share:.0%} {self.source}, {share:.0%} {other.source}",
            self.fingerprint,
            self.base,
            self.equal_length,
        )

    def solve(self, keys: Float[Tensor, "key d_mlp"]) -> Float[Tensor, "key d_mlp"]:
        """`C^-1 k` for every key, float64, on the keys' device.

        `C` is factorised by the first call and never again.

        Raises:
            SingularSystem: If `C` is zero, not finite, or not positive definite.
        """
        solved = torch.cholesky_solve(keys.double().cpu().T, self._cholesky).T
        return solved.to(keys.device)


RIDGE = 1e-4
"""Added to the diagonal of C, in units of its mean: keys of a small corpus do not span."""


@checked
@torch.no_grad()
def second_moments(
    model: LabModel,
    layers: Iterable[int],
    corpus: Corpus | None = None,
    how: ReadingOptions = USUAL,
    *,
    equal_length: bool = False,
    progress: Progress | None = None,
) -> dict[int, SecondMoment]:
    """Second moments of some layers, from the cache or in one pass over a corpus.

        C = second_moments(model, [3])[3].matrix

    Args:
        model: The model.
        layers: Which layers.
        corpus: The text; by default the model's own (`labkit.text.corpus.corpus_of`).
        how: How much of it is read, at least 10 x d_mlp tokens by default, and in what pieces.
            All of a smaller corpus is used, and `SecondMoment.n_keys` says how much that was.
        equal_length: Whether to bring every key to the median length first. Then each token
            counts as much as any other: a *massive activation* (one direction that a few tokens
            have, many times as long as all others) holds most of the trace otherwise, 94 % of it
            in layer 2 of SmolLM2-135M.
        progress: Called as the pass goes on.

    Raises:
        LayerOutOfRange: For a layer that the model does not have.
        InputError: If the options are of another kind.
        SingularSystem: If the model overflows on the text; nothing is cached then.

    Shows:
        Which directions of an FFN's keys usual text uses, and how strongly: what an edit should
        leave as it is.

    Does not show:
        Which of them matter for an answer. A few tokens with a massive activation can hold most
        of the trace, and other text has other keys.

    References:
        Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 3.1.

    Differs from the paper: the text is the model's own corpus, not Wikipedia.
    """
    layers = sorted({model.layer(layer) for layer in layers})
    min_keys = KEYS_PER_NEURON * model.d_mlp if how.min_tokens is None else how.min_tokens
    how = replace(how, min_tokens=min_keys)
    corpus = corpus_of(model, progress=progress) if corpus is None else corpus
    places = cache_files(model, layers, corpus, min_keys, how.window, equal_length)
    found = {layer: cache.read(place) for layer, place in places.items()}
    sums = {
        layer: (kept.tensors["second_moment"], int(kept.header["n_keys"]))
        for layer, kept in found.items()
        if kept is not None
    }
    missing = [layer for layer in layers if layer not in sums]
    if missing:
        computed = _compute(model, missing, corpus, how, equal_length, progress)
        for layer, (matrix, n_keys) in computed.items():
            cache.write(places[layer], {"second_moment": matrix}, {"n_keys": n_keys})
        sums |= computed
    measured_on = model.in_effect
    return {
        layer: SecondMoment(
            matrix, layer, n_keys, corpus.source, measured_on, model.fingerprint, equal_length
        )
        for layer, (matrix, n_keys) in sorted(sums.items())
    }


def cache_files(
    model: LabModel,
    layers: Iterable[int],
    corpus: Corpus,
    min_keys: int,
    window: int,
    equal_length: bool = False,
) -> dict[int, Path | None]:
    """Where second moments are cached: named by everything that they depend on."""
    layers = list(layers)
    shared = {
        "corpus": corpus.digest,
        "min_keys": min_keys,
        "window": window,
        "equal_length": equal_length,
    }
    asked = [{"layer": layer, **shared} for layer in layers]
    return dict(zip(layers, cache.places(model, "moments", FORMAT, asked), strict=True))


def _compute(
    model: LabModel,
    layers: Sequence[int],
    corpus: Corpus,
    how: ReadingOptions,
    equal_length: bool,
    progress: Progress | None,
) -> dict[int, tuple[Tensor, int]]:
    """`C` and number of keys by layer: one pass that stops at the key of the last layer."""
    sums = {layer: torch.zeros(model.d_mlp, model.d_mlp, dtype=torch.float64) for layer in layers}
    squared: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    n_keys = 0
    read = packed(model, corpus, min_tokens=how.min_tokens, window=how.window, memory=how.memory)
    for batch in read:
        # What follows a position cannot change it, so padding on the right needs no mask.
        with capture(model, ["ffn_key"], layers) as seen, _ends_at_key(model, layers[-1]):
            Execution(model, unmasked(batch)).forward(stop=layers[-1] + 1)
        for layer in layers:
            keys = _keys(seen, layer, batch)
            if equal_length:
                squared[layer].append(keys.square().sum(dim=1))
                # A key of no length has no direction, and stays what it is.
                keys = keys / squared[layer][-1].clamp(min=1e-30).sqrt()[:, None]
            sums[layer] += (keys.T @ keys).cpu().double()
        n_keys += int(batch.mask.sum())
        share = n_keys / (how.min_tokens or n_keys)
        listener(progress)("measuring which FFN keys occur", min(1.0, share))
    logger.info("second moments of layers %s from %d keys (%s)", layers, n_keys, corpus.source)
    for layer, total in sums.items():
        if not total.isfinite().all():
            raise SingularSystem(
                f"the keys of layer {layer} of {model.name} are not finite on {corpus.source}: "
                "load the model in a wider dtype"
            )
    if equal_length:
        for layer, lengths in squared.items():
            sums[layer] *= float(torch.cat(lengths).median())
    return {layer: (total / n_keys, n_keys) for layer, total in sums.items()}


def _keys(seen: Activations, layer: int, batch: TokenBatch) -> Float[Tensor, "key d_mlp"]:
    """The keys of a batch's tokens, in float32 at least."""
    keys = seen["ffn_key", layer][batch.mask]
    return keys.to(torch.promote_types(keys.dtype, torch.float32))


class _KeyReached(Exception):
    """The key of the last layer has been read: nothing after it is needed."""


@contextmanager
def _ends_at_key(model: LabModel, layer: int) -> Iterator[None]:
    """The run inside ends where the layer's key enters the FFN's output projection."""

    def reached(_module: Any, _args: Any) -> None:
        raise _KeyReached

    handle = model.ffn_proj(layer).register_forward_pre_hook(reached)
    try:
        yield
    except _KeyReached:
        pass
    finally:
        handle.remove()
