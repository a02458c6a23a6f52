"""Ratios that the lab promises, each measured within one run: `python -m tests.benchmarks.core`.

Seconds depend on the machine and on what else it does; ratios of interleaved runs travel.
A script and not a test: under pytest every annotation is checked, which costs more than some
of what is measured here.
"""

import statistics
import time

import torch

from labkit.models.loading import load
from labkit.running.activations import run_with_cache
from labkit.running.execute import Execution, freeze, repeat_rows

PROMPT = "The Eiffel Tower is located in the city of"


def medians(*jobs, runs=9):
    """Median seconds of each job, the jobs taking turns."""
    for job in jobs:
        job()
    seconds = [[] for _ in jobs]
    for _ in range(runs):
        for job, kept in zip(jobs, seconds, strict=True):
            start = time.perf_counter()
            job()
            kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in seconds]


@torch.no_grad()
def run_with_cache_against_a_plain_forward(smollm2):
    for words in (1, 8):
        batch = smollm2.tokens([" ".join([PROMPT] * words)])
        plain, theirs, ours = medians(
            lambda batch=batch: smollm2.hf(batch.ids),
            lambda batch=batch: smollm2.bridge.run_with_cache(batch.ids),
            lambda batch=batch: run_with_cache(smollm2, batch),
        )
        print(
            f"\nrun_with_cache of everything, {batch.shape[1]} tokens: {ours / plain:.2f} x the "
            f"plain forward ({plain:.3f} s); the bridge's own: {theirs / plain:.2f} x"
        )


@torch.no_grad()
def partial_runs_against_a_full_one(smollm2):
    batch = repeat_rows(smollm2.tokens([" ".join([PROMPT] * 4)]), 8)
    length = batch.shape[1] - 5
    prefix = freeze(smollm2, batch, length=length)
    run, tail = Execution(smollm2, batch), Execution(smollm2, batch, prefix)
    entering = tail.forward(stop=5)
    full, stopped, resumed = medians(
        run.forward, lambda: run.forward(stop=5), lambda: tail.forward(entering, start=5)
    )
    print(f"\nstop at layer 5 of 30: {stopped / full:.2f} x a full run")
    print(f"resume at layer 5 on the last 5 of {batch.shape[1]} positions: {resumed / full:.2f} x")


def loading_the_cached_default_model():
    (seconds,) = medians(lambda: load("smollm2-135m"), runs=3)
    print(f"\nload('smollm2-135m'), cached, self-check included: {seconds:.1f} s")


if __name__ == "__main__":
    torch.set_num_threads(2)
    default = load("smollm2-135m")
    run_with_cache_against_a_plain_forward(default)
    partial_runs_against_a_full_one(default)
    loading_the_cached_default_model()
