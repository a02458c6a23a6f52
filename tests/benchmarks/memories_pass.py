"""What it costs to look for the triggers of every neuron, in plain forward passes."""

import dataclasses
import os
import resource
import statistics
import tempfile
import time
from unittest.mock import patch

import torch

from labkit.memories import find_triggers
from labkit.text.corpus import corpus_of, fact_prompts
from labkit.text.streams import batches


def triggers_against_forward(model, n_tokens, rounds=2):
    """Seconds of one uncached pass for all neurons and of the plain forward over its batches.

    The two take turns. `growth_bytes` is how much the process's largest resident size grew
    when the pass read the whole text instead of its first half; below some 16k tokens the
    half does not fill a batch, and what grows is the batch.

    Returns:
        ratio, triggers_seconds, forward_seconds (medians), n_tokens, growth_bytes.
    """
    corpus, prompts = corpus_of(model), fact_prompts(model)
    if prompts is not None:  # the bundled corpus alone is shorter than a long pass
        corpus = dataclasses.replace(corpus, documents=corpus.documents + prompts.documents)
    stop = total = 0
    while total < n_tokens and stop < len(corpus.documents):
        total += len(model.ids(corpus.documents[stop]))
        stop += 1
    corpus = dataclasses.replace(corpus, documents=corpus.documents[:stop])
    half = dataclasses.replace(corpus, documents=corpus.documents[: max(1, stop // 2)])
    several = list(batches(model, corpus))

    def forward():
        for _, batch in several:
            mask = None if bool(batch.mask.all()) else batch.mask.long()
            model.hf(input_ids=batch.ids, attention_mask=mask, use_cache=False)

    def triggers(text=corpus):
        with (
            tempfile.TemporaryDirectory() as folder,
            patch.dict(os.environ, {"LABKIT_CACHE": folder}),
        ):
            find_triggers(model, corpus=text)

    triggers(half)
    peak = _peak_bytes()
    triggers()
    growth = _peak_bytes() - peak
    seconds = {forward: [], triggers: []}
    with torch.no_grad():
        for _ in range(rounds):
            for job, kept in seconds.items():
                start = time.perf_counter()
                job()
                kept.append(time.perf_counter() - start)
    plain, ours = (statistics.median(kept) for kept in seconds.values())
    return {
        "ratio": ours / plain,
        "triggers_seconds": ours,
        "forward_seconds": plain,
        "n_tokens": sum(int(batch.mask.sum()) for _, batch in several),
        "growth_bytes": growth,
    }


def _peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
