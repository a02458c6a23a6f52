"""What locating a fact costs, against a textbook implementation.

Seconds depend on the machine and on what else it does, so what is compared takes turns within
one run, and the ratios are what is promised. FLOPs are torch's count. It prints a table for the
README. Not a test: under pytest every annotation is checked, which costs more than some of what
is measured.

    python -m tests.benchmarks.locate             # every section
    python -m tests.benchmarks.locate trace       # one of them
"""

import statistics
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from labkit.facts.fact import Fact
from labkit.locate import CausalTrace
from labkit.locate.traces.tracing import embedding_spread
from labkit.models.loading import load
from labkit.stats import generator
from labkit.tokens import target_ids
from tests.benchmarks.textbook import trace_cell, trace_column

FACT = Fact.from_prompt("The Eiffel Tower is located in the city of", "Eiffel Tower", "Paris")
TRACE = CausalTrace(samples=10)
ATTRIBUTIONS = 5
CORPUS_TOKENS = 100_000


def textbook_inputs(model):
    """Ids, span, noise and answer: the very draws of `TRACE`."""
    span = model.span(FACT.prompt, FACT.subject, at=FACT.subject_start)
    draw = generator(TRACE.seed, "trace", FACT.prompt, FACT.subject)
    noise = torch.randn((TRACE.samples, len(span), model.d_model), generator=draw)
    noise *= TRACE.noise * embedding_spread(model)
    answer = target_ids(model.tokenizer, FACT.prompt, FACT.object)[0]
    return model.ids(FACT.prompt), (span.start, span.stop), noise, answer


def timed(job, *args):
    """What a job gives, and its seconds."""
    start = time.perf_counter()
    out = job(*args)
    return out, time.perf_counter() - start


def flops(job, *args):
    """Floating point operations of a job, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        job(*args)
    return counter.get_total_flops()


def textbook_trace(model, between):
    """The textbook's cells and seconds; `between` is run now and then, so that both take turns."""
    inputs = textbook_inputs(model)
    n_positions = len(inputs[0])
    columns, seconds = [], 0.0
    for pos in range(n_positions):
        if pos % (n_positions // 2) == 0:
            between()
        column, spent = timed(trace_column, model.hf, *inputs, pos)
        columns.append(column)
        seconds += spent
    between()
    return torch.stack(columns, dim=1), seconds


def trace(model):
    """The exact trace against the textbook's."""
    TRACE(model, FACT)
    kept = []
    cells, textbook = textbook_trace(model, lambda: kept.append(timed(TRACE, model, FACT)))
    ours = statistics.median(seconds for _, seconds in kept)
    difference = (torch.tensor(kept[0][0].cells) - cells).abs().max().item()
    n_cells = cells[0].numel()
    theirs_flops = n_cells * flops(trace_cell, model.hf, *textbook_inputs(model), 3, 5)
    ours_flops = flops(TRACE, model, FACT)
    n_positions, n_layers = cells.shape[1:]
    note = (
        f"{n_positions} tokens x {n_layers} layers, {TRACE.samples} noise draws; "
        f"{theirs_flops / 1e12:.2f} and {ours_flops / 1e12:.2f} TFLOP "
        f"({theirs_flops / ours_flops:.1f} x less); largest difference {difference:.0e}"
    )
    yield "exact causal trace", textbook, ours, f"{textbook / ours:.1f} x faster", "6 x", note


def attribution(model):
    """The gradient's approximation of the same grid, against the textbook's trace."""
    from labkit.locate.attributions.attribution import AttributionPatching

    method = AttributionPatching(samples=TRACE.samples)
    method(model, FACT)
    inputs, kept, columns = textbook_inputs(model), [], []
    for pos in range(0, len(inputs[0]), 3):  # all columns of the textbook cost the same
        columns.append(timed(trace_column, model.hf, *inputs, pos)[1])
        kept += [timed(method, model, FACT)[1] for _ in range(ATTRIBUTIONS)]
    textbook, ours = statistics.median(columns) * len(inputs[0]), statistics.median(kept)
    n_cells = len(inputs[0]) * model.n_layers
    theirs_flops = n_cells * flops(trace_cell, model.hf, *inputs, 3, 5)
    ours_flops = flops(method, model, FACT)
    note = (
        f"the same grid; {theirs_flops / 1e12:.2f} and {ours_flops / 1e12:.3f} TFLOP "
        f"({theirs_flops / ours_flops:.0f} x less); the textbook's from every third token"
    )
    yield "attribution patching", textbook, ours, f"{textbook / ours:.0f} x faster", "100 x", note


def memories(model):
    """The triggers of all neurons in one pass, against the plain forward."""
    from tests.benchmarks.memories_pass import triggers_against_forward

    found = triggers_against_forward(model, CORPUS_TOKENS, rounds=1)
    note = (
        f"{found['n_tokens']:,} tokens, {model.n_layers} x {model.d_mlp} neurons; memory grew by "
        f"{found['growth_bytes'] / 2**20:.0f} MiB from half of the text to all of it"
    )
    yield (
        "triggers of all neurons",
        found["forward_seconds"],
        found["triggers_seconds"],
        f"{found['ratio']:.2f} x the forward",
        "1.5 x",
        note,
    )


SECTIONS = {"trace": trace, "attribution": attribution, "memories": memories}


def main(names):
    unknown = sorted(set(names) - set(SECTIONS))
    if unknown:
        raise SystemExit(f"no section {unknown}; there are {', '.join(SECTIONS)}")
    torch.set_num_threads(2)
    model = load("smollm2-135m")
    print("| job | reference | here | ratio | promised | |\n|---|---|---|---|---|---|", flush=True)
    for name in names or SECTIONS:
        for job, reference, ours, ratio, promised, note in SECTIONS[name](model):
            row = f"| {job} | {reference:.1f} s | {ours:.2f} s | {ratio} | {promised} | {note} |"
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
