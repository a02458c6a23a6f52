"""What editing costs, against a textbook implementation, both in one run.

Seconds depend on the machine and on what else it does, so what is compared takes turns within
one run, and the ratios are what is promised. The textbook (`textbook_editing.py`) runs the whole
model in every forward, one rewrite at a time, a fixed number of steps, 21 templates; it is given
the same layers and the same second moments. FLOPs are torch's count. Cases are rewrites of the
project's own facts that the model knows. Not a test: under pytest every annotation is checked.

    python -m tests.benchmarks.editing                 # every section
    python -m tests.benchmarks.editing rome memory     # some of them
    python -m tests.benchmarks.editing --threads 1 covariance    # where others work as well
    python -m tests.benchmarks.editing --rewrites 2 rome         # a first look
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from editing.edits.applying import applied
from editing.edits.requests import grouped
from editing.layers.tuning_cases import known_cases
from editing.methods.closed_form.keys import contexts, group_keys
from editing.methods.closed_form.memit import MEMIT
from editing.methods.closed_form.prepared import moments
from editing.methods.closed_form.rome import ROME
from editing.methods.closed_form.values import value_stars
from editing.presets.preset_files import preset
from editing.readings.asking import METRICS, ask, shares
from labkit.models.loading import load
from labkit.text.corpus import Corpus, corpus_of, fact_prompts
from labkit.text.moments import RIDGE, second_moments
from labkit.text.streams import ReadingOptions, pieces
from tests.benchmarks import textbook_editing as textbook

N_TEMPLATES = 21
ROME_CASES = 6
MEMIT_REWRITES = 100
MEMIT_SUBSET = 5
MEMIT_PEAK = 20
COVARIANCE_TOKENS = 2_500
SEED = 5


def timed(job, *args, **more):
    """What a job gives, and its seconds: on one thread the processor's, which others leave be."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    out = job(*args, **more)
    return out, clock() - start


def teraflops(job, *args, **more):
    """Floating point operations of a job, by torch's counter, in 10^12."""
    with FlopCounterMode(display=False) as counter:
        job(*args, **more)
    return counter.get_total_flops() / 1e12


def request(rewrite):
    """A rewrite as the textbook takes it."""
    return textbook.Request(rewrite.subject, rewrite.template, f" {rewrite.target_new}")


def row(job, theirs, ours, promised, note):
    """One line of the table."""
    ratio = f"{theirs / ours:.1f} x faster"
    return f"| {job} | {theirs:.3g} s | {ours:.3g} s | {ratio} | {promised} | {note} |"


def second_moment(model, layer, facts_share):
    """The `C` that an edit uses, float64 with its ridge: for the textbook to invert."""
    matrix = moments(model, [layer], facts_share)[layer].matrix
    return matrix + RIDGE * matrix.diagonal().mean() * torch.eye(len(matrix))


@torch.no_grad()
def added(model, layer, change, case):
    """The readings of a case with the textbook's change in effect."""
    weight = model.ffn_proj(layer).weight
    before = weight.clone()
    try:
        weight += change.to(weight.dtype)
        return shares(ask(model, case, n_tokens=0))
    finally:
        weight.copy_(before)


def quality(readings):
    """Means over cases: success of each metric, and argmax accuracy behind it."""
    parts = []
    for metric in METRICS:
        means = [
            statistics.mean(one[reading][metric] for one in readings)
            for reading in ("success", "accuracy")
        ]
        parts.append(f"{metric} {means[0]:.2f}; {means[1]:.2f}")
    return ", ".join(parts)


# --- sections -----------------------------------------------------------------------------


def rome(model, asked):
    """One edit, and what cannot be left out of it."""
    method = ROME()
    prepared = method.prepare(model)
    layer = preset(model).layer
    inverse = second_moment(model, layer, method.facts_share).inverse()
    before = contexts(corpus_of(model), N_TEMPLATES, seed=SEED)
    cases = known_cases(model, asked.rewrites or ROME_CASES, seed=SEED)
    spent, read = {"ours": [], "theirs": []}, {"ours": [], "theirs": [], "unedited": []}
    edit(model, method, cases[0], prepared)
    for case in cases:
        one = request(case.rewrite)
        read["unedited"].append(shares(ask(model, case, n_tokens=0)))
        delta, seconds = timed(edit, model, method, case, prepared)
        spent["ours"].append(seconds)
        with applied(model, delta):
            read["ours"].append(shares(ask(model, case, n_tokens=0)))
        change, seconds = timed(
            textbook.rome, model.hf, model.tokenizer, one, before, layer, inverse
        )
        spent["theirs"].append(seconds)
        read["theirs"].append(added(model, layer, change, case))
    theirs, ours = (statistics.median(spent[who]) for who in ("theirs", "ours"))
    one = request(cases[0].rewrite)
    flops = (
        textbook_teraflops(model, one, before, layer),
        teraflops(edit, model, method, cases[0], prepared),
    )
    note = (
        f"layer {layer}, median of {len(cases)} rewrites ({min(spent['ours']):.2f} to "
        f"{max(spent['ours']):.2f} s here); first rewrite {flops[0]:.2f} and {flops[1]:.3f} TFLOP "
        f"({flops[0] / flops[1]:.0f} x less)"
    )
    yield row("one ROME edit", theirs, ours, "8 x", note)
    for who, name in (("unedited", "unedited"), ("theirs", "textbook"), ("ours", "here")):
        yield f"| ... quality, {name} (success; argmax) | | | | | {quality(read[who])} |"
    yield from rome_parts(model, method, prepared, cases, layer)


def textbook_teraflops(model, one, before, layer):
    """Of one ROME edit by the textbook: its keys, and as many times one step as it takes."""
    shared = (model.hf, model.tokenizer, one, before)
    step = textbook.Search(steps=1)
    ffn = model.hf.model.layers[layer].mlp
    steps = textbook.Search().steps * teraflops(textbook.value, *shared, ffn, step)
    return teraflops(textbook.key, *shared, layer) + steps


def rome_parts(model, method, prepared, cases, layer):
    """Where an edit's time goes, against the arithmetic that it cannot do without."""
    seconds = {"keys": [], "search": [], "solve": []}
    steps, needed, done = [], [], []
    moment = prepared.moments[layer]
    for case in cases:
        groups = grouped([case.rewrite])
        k_star, spent = timed(
            group_keys, model, groups, layer, prepared.contexts, method.bare_weight
        )
        seconds["keys"].append(spent)
        found, spent = timed(value_stars, model, groups, layer, prepared.contexts, method.search)
        seconds["search"].append(spent)
        seconds["solve"].append(timed(moment.solve, k_star)[1])
        steps.append(int(found.steps[0]))
        done.append(teraflops(value_stars, model, groups, layer, prepared.contexts, method.search))
        needed.append(unavoidable(model, case, layer, len(prepared.contexts), steps[-1]) / 1e12)
    total = sum(sum(spent) for spent in seconds.values())
    share = ", ".join(f"{part} {sum(spent) / total:.0%}" for part, spent in seconds.items())
    rate = sum(needed) / sum(seconds["search"])
    peak = gemm_rate(model)
    yield (
        f"| ... where the time goes | | | | | {share}; {statistics.mean(steps):.1f} steps of the "
        f"search; its forward and backward runs behind the subject, above the layer, and the "
        f"unembedding where it is read cannot be done with less than {sum(needed):.2f} of its "
        f"{sum(done):.2f} TFLOP; that arithmetic ran at {rate:.3f} TFLOP/s, a matrix product as "
        f"large as the batch's runs at {peak:.3f} |"
    )


def unavoidable(model, case, layer, n_contexts, n_steps):
    """FLOPs of a search: positions behind the subject, blocks above the layer, read logits."""
    rewrite = case.rewrite
    span = model.span(rewrite.prompt, rewrite.subject, at=rewrite.subject_start)
    target = len(model.tokenizer(f" {rewrite.target_new}", add_special_tokens=False).input_ids)
    behind = len(model.ids(rewrite.prompt)) - span.last + target - 1
    block = sum(p.numel() for p in model.blocks[layer].parameters() if p.dim() > 1)
    tokens = n_contexts * behind + 3  # the essence prompt: the subject's last token, "is", "a"
    logits = (n_contexts * target + 1) * model.unembed.weight.numel()
    once = tokens * block * (model.n_layers - layer - 1) + logits
    # A multiply and an add; forward, and backward to the activations alone.
    return 2 * once * (2 * n_steps + 1)


def gemm_rate(model):
    """10^12 FLOP a second of the FFN's product over a hundred tokens."""
    x = torch.randn(100, model.d_model)
    weight = torch.randn(model.d_mlp, model.d_model)
    product = torch.nn.functional.linear
    spent = [timed(product, x, weight)[1] for _ in range(200)]
    return 2 * x.numel() * model.d_mlp / statistics.median(spent) / 1e12


def edit(model, method, case, prepared):
    """One edit by the lab."""
    return method(model, [case.rewrite], prepared=prepared)


def memit(model, asked):
    """A hundred rewrites at once."""
    n_rewrites = asked.rewrites or MEMIT_REWRITES
    method = MEMIT()
    prepared = method.prepare(model)
    layers = method.layers_for(model)
    cases = known_cases(model, n_rewrites, seed=SEED)
    rewrites = [case.rewrite for case in cases]
    delta, ours = timed(method, model, rewrites, prepared=prepared)
    with applied(model, delta):
        here = [shares(ask(model, case, n_tokens=0)) for case in cases]

    before = contexts(corpus_of(model), N_TEMPLATES, seed=SEED)
    moments = {layer: second_moment(model, layer, method.facts_share) for layer in layers}
    some = [
        request(rewrite)
        for rewrite in rewrites[:: max(1, n_rewrites // MEMIT_SUBSET)][:MEMIT_SUBSET]
    ]
    shared = (model.hf, model.tokenizer, some, before)
    values, searching = timed(textbook.memit_values, *shared, layers[-1])
    writing = []
    for n in (1, MEMIT_SUBSET):  # what grows with the rewrites, and the solving, which does not
        arguments = (model.hf, model.tokenizer, some[:n], before, layers, values[:n], moments)
        writing.append(timed(textbook.memit, *arguments)[1])
    slope = max(0.0, (writing[1] - writing[0]) / (MEMIT_SUBSET - 1))
    theirs = searching * n_rewrites / MEMIT_SUBSET + writing[0] + slope * (n_rewrites - 1)
    note = (
        f"layers {', '.join(map(str, layers))}; the textbook's from {MEMIT_SUBSET} rewrites, "
        f"scaled (a search {searching / MEMIT_SUBSET:.1f} s, its keys {slope:.1f} s); here whole"
    )
    yield row(f"MEMIT, {n_rewrites} rewrites", theirs, ours, "8 x", note)
    yield f"| ... quality, here (success; argmax) | | | | | {quality(here)} |"


def covariance(model, asked):
    """`E[k k^T]` of one layer, per token, on the texts that an edit's own is measured on.

    Half of them are running text and half short prompts that ask for facts. Documents one at a
    time have no padding; four at a time have what their lengths bring.
    """
    middle, early = model.n_layers // 2, preset(model).layer
    texts = {"running text": corpus_of(model), "prompts of facts": fact_prompts(model)}
    texts = {name: corpus for name, corpus in texts.items() if corpus is not None}
    for layer, promised in ((middle, "3 x"), (early, "")):
        ours, flops, documents = {}, {}, {}
        for name, corpus in texts.items():
            some = list(pieces(model, corpus, min_tokens=asked.tokens or COVARIANCE_TOKENS))
            documents[name] = [piece.ids for piece in some]
            few = Corpus(documents=corpus.documents[: some[-1].document + 1], source="benchmark")
            ours[name] = min(timed(measured, model, layer, few)[1] for _ in range(2))
            flops[name] = teraflops(measured, model, layer, few)
        n_tokens = {name: sum(map(len, some)) for name, some in documents.items()}
        for at_once in (1, 4):
            theirs, notes = {}, []
            for name, some in documents.items():
                arguments = (model.hf, some, layer, at_once)
                theirs[name] = timed(textbook.covariance, *arguments)[1]
                less = teraflops(textbook.covariance, *arguments) / flops[name]
                unit = 1e3 / n_tokens[name]
                notes.append(
                    f"{name}: {theirs[name] * unit:.2f} and {ours[name] * unit:.2f} ms per token, "
                    f"{theirs[name] / ours[name]:.1f} x ({less:.1f} x less arithmetic)"
                )
            note = f"textbook's {at_once} document(s) at a time; {'; '.join(notes)}"
            job = (
                f"covariance of layer {layer} of {model.n_layers}, {sum(n_tokens.values())} tokens"
            )
            yield row(job, sum(theirs.values()), sum(ours.values()), promised, note)


def measured(model, layer, corpus):
    """The lab's second moment, with nothing in its cache."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, {"LABKIT_CACHE": folder}),
    ):
        return second_moments(model, [layer], corpus, ReadingOptions(min_tokens=10**9))


def memory(model, _asked):
    """Peak resident memory of an edit against that of the loaded model, in fresh processes."""
    for name in ("rome", "memit"):
        command = [sys.executable, "-m", "tests.benchmarks.editing", "--peak", name]
        command += ["--model", model.name, "--threads", str(torch.get_num_threads())]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        bare, loaded, peak = (int(part) / 2**20 for part in out.split()[-3:])
        weights = sum(p.numel() * p.element_size() for p in model.hf.parameters()) / 2**20
        yield (
            f"| peak memory, {name} | {loaded:.0f} MiB loaded | {peak:.0f} MiB at most | "
            f"{peak / loaded:.2f} x | 1.5 x | of the process; libraries alone {bare:.0f} MiB, "
            f"weights {weights:.0f} MiB |"
        )


def peaks(name, model_name):
    """Resident bytes with the libraries, with the model, and at most during an edit."""
    bare = resident()
    model = load(model_name)
    loaded = resident()
    method = {"rome": ROME, "memit": MEMIT}[name]()
    cases = known_cases(model, 1 if name == "rome" else MEMIT_PEAK, seed=SEED)
    method.prepare(model)  # measured once per model: from here on it is read from the cache
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak so far is forgotten (Linux)
    method(model, [case.rewrite for case in cases], prepared=method.prepare(model))
    print(bare, loaded, peak())


def peak():
    """Most bytes that the process has had in memory (Linux)."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def resident():
    """Bytes that the process has in memory now (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


SECTIONS = {"rome": rome, "memit": memit, "covariance": covariance, "memory": memory}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rewrites", type=int, help="of ROME and MEMIT; by default 6 and 100")
    parser.add_argument("--tokens", type=int, help="of each text of the covariance: 2500")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.peak:
        peaks(asked.peak, asked.model)
        return
    model = load(asked.model)
    print("| job | textbook | here | ratio | promised | |\n|---|---|---|---|---|---|", flush=True)
    for name in asked.sections or SECTIONS:
        for line in SECTIONS[name](model, asked):
            print(line, flush=True)


if __name__ == "__main__":
    main()
