"""What scoring behind demonstrations costs, against every prompt from scratch.

Both take turns within one run; the ratio is what is promised. From scratch means: the same
prompts, sorted by length and padded into the same large batches, every position of each run.

    python -m tests.benchmarks.icl                   # the default model
    python -m tests.benchmarks.icl pocket 12 5       # another model, queries, rounds
"""

import statistics
import sys

import torch

from labkit.icl import Shot, label_ids, prompt_ids, score_labels, task, told_apart
from labkit.icl.tasks.prompts import write
from labkit.models.loading import load
from labkit.running.logits import next_token_logits
from tests.benchmarks.locate import flops, timed

K, QUERIES, SETS, ROUNDS = 8, 50, 1, 3


def prompts_of(model, own, n_queries):
    """Sets of k demonstrations, and the same queries behind each."""
    queries, pool = own.items[:n_queries], own.items[n_queries:]
    groups = []
    for number in range(SETS):
        shots = [Shot(input=i.input, label=i.label) for i in pool[K * number : K * (number + 1)]]
        texts = [write(own.template, shots, item.input) for item in queries]
        groups.append(prompt_ids(model, texts))
    return groups


def from_scratch(model, groups, labels):
    """Log-probability of each label's first token, every prompt on its own."""
    flat = [prompt for prompts in groups for prompt in prompts]
    logits = next_token_logits(model, model.pad(flat)).double().log_softmax(dim=-1)
    return logits[:, [ids[0] for ids in labels]]


def main(name="smollm2-135m", n_queries=QUERIES, rounds=ROUNDS):
    model = load(name)
    own = task("country_continent" if name == "pocket" else "capital", model)
    n_queries = min(int(n_queries), len(own) - K * SETS)
    own = told_apart(model, own)
    labels = label_ids(model, own.template, own.labels, tokens="first")
    groups = prompts_of(model, own, n_queries)
    ratio = flops(from_scratch, model, groups, labels) / flops(score_labels, model, groups, labels)
    ours, theirs = [], []
    for _ in range(int(rounds)):
        kept, seconds = timed(score_labels, model, groups, labels)
        ours.append(seconds)
        reference, seconds = timed(from_scratch, model, groups, labels)
        theirs.append(seconds)
    apart = (torch.cat(kept) - reference).abs().max().item()
    share = (torch.cat(kept).exp() - reference.exp()).abs().max().item()
    n_prompts = sum(map(len, groups))
    a, b = statistics.median(theirs), statistics.median(ours)
    print("| job | from scratch | here | ratio | promised | |\n|---|---|---|---|---|---|")
    print(
        f"| {n_prompts} prompts of {own.name} behind {K} demonstrations | {n_prompts / a:.1f}/s | "
        f"{n_prompts / b:.1f}/s | {a / b:.1f} x faster | 5 x | {len(labels)} labels; {ratio:.1f} x "
        f"less arithmetic; largest difference of a probability {share:.0e}, of a log-probability "
        f"{apart:.0e} |"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
