"""Pure functions of logits and tokens: what a prediction is worth.

All logarithms are natural (nats) except in the n-gram entropies, which are in bits as in
the paper they come from. Half-precision logits are worked on in float32.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Weights of the bigram and trigram entropies in `fluency`; they are averaged, so they sum to 2.
FLUENCY_WEIGHTS = {2: 2 / 3, 3: 4 / 3}


def widened(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
    """Logits in float32 at least: half precision is too coarse for what is computed from them."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_prob(
    logits: Float[Tensor, "*batch vocab"], target: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Log-probability of one target token per row, in nats (at most 0)."""
    return _log_softmax(logits).gather(-1, target.unsqueeze(-1)).squeeze(-1)


def kl_divergence(
    p_logits: Float[Tensor, "*batch vocab"], q_logits: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """KL(p || q) = sum_v p(v) (log p(v) - log q(v)), in nats; p is the reference model.

    Tokens to which p gives no probability (logit -inf) add nothing.
    """
    p, q = _log_softmax(p_logits), _log_softmax(q_logits)
    terms = torch.where(p == -math.inf, 0.0, p.exp() * (p - q))
    return terms.sum(-1)


def rank(
    logits: Float[Tensor, "*batch vocab"], target: Int[Tensor, "*batch"]
) -> Int[Tensor, "*batch"]:
    """Number of other tokens that are at least as probable as the target: 0 is the top.

    Ties and NaNs count against the target, so that a model whose logits are all alike, or
    not numbers, gets nothing right.
    """
    own = logits.gather(-1, target.unsqueeze(-1))
    return (~(logits < own)).sum(-1) - 1


def is_argmax(
    logits: Float[Tensor, "*batch vocab"], target: Int[Tensor, "*batch"]
) -> Bool[Tensor, "*batch"]:
    """Whether the target is the one most probable token (argmax accuracy, before averaging)."""
    return rank(logits, target) == 0


def ngram_entropy(tokens: Sequence[Hashable], n: int) -> float:
    """Entropy of the distribution of n-grams, -sum_k f(k) log2 f(k), in bits.

    Low where a text repeats itself; 0 for a text of fewer than n + 1 tokens.

    Args:
        tokens: Words or token ids of one text.
        n: Length of the n-grams.
    """
    counts = Counter(_ngrams(tokens, n))
    total = counts.total()
    return math.fsum(count / total * math.log2(total / count) for count in counts.values())


def fluency(tokens: Sequence[Hashable]) -> float:
    """Weighted mean of the bigram and trigram entropies of one text, in bits.

    Args:
        tokens: Words of one generated text (about 6 for 100 words of ordinary prose).

    References:
        Meng et al. (2022), section 3.4, "generation entropy".

    Differs from the paper:
        Its code splits words with NLTK; here the caller splits. A text too short for
        trigrams gives a number here, NaN there.
    """
    weighted = (weight * ngram_entropy(tokens, n) for n, weight in FLUENCY_WEIGHTS.items())
    return math.fsum(weighted) / len(FLUENCY_WEIGHTS)


def repetition(tokens: Sequence[Hashable], n: int = 3) -> float:
    """Share of n-grams that occurred before in the same text: 0 (none) to nearly 1."""
    ngrams = _ngrams(tokens, n)
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _log_softmax(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _ngrams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
