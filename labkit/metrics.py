"""Pure functions of logits and tokens: what a prediction is worth.

All logarithms are natural (nats) except in the n-gram entropies, which are in bits as in
the paper they come from. Half-precision logits are worked on in float32. Three readings of
an edit must not be confused (they differ by tens of points): `success` asks whether the new
object is more probable than the true one, `is_argmax` whether it is what the model would
say, and generation whether it does say it, which only sampled text can answer.
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


def probability(
    logits: Float[Tensor, "*batch vocab"], target: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Probability of one target token per row, in 0..1."""
    return log_prob(logits, target).exp()


def mean_nll(
    logits: Float[Tensor, "batch pos vocab"],
    target: Int[Tensor, "batch pos"],
    mask: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch"]:
    """Mean negative log-likelihood of each row's target tokens, in nats per token.

    Rows are not weighted by length: weigh by `mask.sum(-1)` for a mean over a corpus.

    Args:
        logits: The prediction *of* each target token (already shifted by the caller).
        target: Token ids; any id where the mask is false.
        mask: True where a token counts. A row without any gives NaN.
    """
    nll = -log_prob(logits, target).masked_fill(~mask, 0.0)
    return nll.sum(-1) / mask.sum(-1)


def perplexity(
    logits: Float[Tensor, "batch pos vocab"],
    target: Int[Tensor, "batch pos"],
    mask: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch"]:
    """Perplexity per token of each row, `exp(mean_nll)`; at least 1."""
    return mean_nll(logits, target, mask).exp()


def kl_divergence(
    p_logits: Float[Tensor, "*batch vocab"], q_logits: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """KL(p || q) = sum_v p(v) (log p(v) - log q(v)), in nats; p is the reference model.

    Tokens to which p gives no probability (logit -inf) add nothing.
    """
    p, q = _log_softmax(p_logits), _log_softmax(q_logits)
    terms = torch.where(p == -math.inf, 0.0, p.exp() * (p - q))
    return terms.sum(-1)


def entropy(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """Entropy of the predicted distribution, in nats; 0..log(vocab)."""
    log_p = _log_softmax(logits)
    return -torch.where(log_p == -math.inf, 0.0, log_p.exp() * log_p).sum(-1)


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


def success(
    logits: Float[Tensor, "*batch vocab"],
    target_new: Int[Tensor, "*batch"],
    target_true: Int[Tensor, "*batch"],
) -> Bool[Tensor, "*batch"]:
    """Whether P(target_new) > P(target_true), for objects of one token.

    Objects of several tokens are compared by their `mean_nll` instead.

    References:
        Meng et al. (2022), Locating and Editing Factual Associations in GPT, section 3.4.
    """
    return log_prob(logits, target_new) > log_prob(logits, target_true)


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
