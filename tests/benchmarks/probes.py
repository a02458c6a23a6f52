"""What the states of every layer cost, in plain forward passes."""

import statistics
import time

import torch

from labkit.text.corpus import Corpus
from labkit.text.streams import batches
from probes.sentences.own import language
from probes.states.features import extract


def features_against_forward(model, n_tokens, rounds=3):
    """Seconds of reading every word's states at all depths, and of the plain forward.

    The plain forward runs the model's own blocks over the same texts in batches of alike
    lengths, once without and once with the unembedding. They take turns.

    Returns:
        ratio (to the forward without unembedding), ratio_with_logits, features_seconds,
        forward_seconds, logits_seconds (medians), n_tokens, n_words.
    """
    sentences, total = [], 0
    for sentence in language(2000):
        sentences.append(sentence)
        total += len(model.ids(sentence.text))
        if total >= n_tokens:
            break
    texts = [sentence.text for sentence in sentences]
    spans = [(n, *word.span) for n, sentence in enumerate(sentences) for word in sentence.words]
    several = [batch for _, batch in batches(model, Corpus(documents=tuple(texts), source=""))]

    def forward(module):
        for batch in several:
            mask = None if bool(batch.mask.all()) else batch.mask.long()
            module(input_ids=batch.ids, attention_mask=mask, use_cache=False)

    jobs = {
        "features": lambda: extract(model, texts, spans),
        "forward": lambda: forward(model.hf.base_model),
        "logits": lambda: forward(model.hf),
    }
    seconds = {name: [] for name in jobs}
    with torch.no_grad():
        jobs["forward"]()
        for _ in range(rounds):
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(kept) for name, kept in seconds.items()}
    return {
        "ratio": median["features"] / median["forward"],
        "ratio_with_logits": median["features"] / median["logits"],
        **{f"{name}_seconds": value for name, value in median.items()},
        "n_tokens": total,
        "n_words": len(spans),
    }
