"""The demo as a page for a reader who was not there."""

import pandas as pd

from labkit.demo.outcome import Demo
from labkit.plots import predictions_bar, trace_curves
from labkit.results.report import Report


def report(demo: Demo) -> Report:
    """The demo as a page for a reader who was not there."""
    from editing.readings.asking import EXPLAINED

    rewrite, audit = demo.case.rewrite, demo.audit
    where, layer = demo.located.peak()
    effect = demo.located.indirect_effect(where, layer)
    new_where, new_layer = demo.relocated.peak()
    edited = next(iter(demo.delta.changes))
    page = Report(f"{rewrite.subject}: {rewrite.target_true} → {rewrite.target_new}")
    page.paragraph(
        f"The fact “{rewrite.prompt} {rewrite.target_true}” was located in {demo.before.model}, "
        f"rewritten to “{rewrite.target_new}” with ROME, audited, located again, and exported."
    )
    page.heading("In short")
    for line in audit.verdict:
        page.paragraph(f"{line[0].upper()}{line[1:]}.")
    page.heading("What the model says")
    both = pd.concat(
        [
            demo.before.to_frame().assign(state="before"),
            demo.after.to_frame().assign(state="after"),
        ]
    )
    page.figure(predictions_bar(both, title=rewrite.prompt))
    page.heading("Layer by layer: the logit lens")
    page.paragraph(
        "The state after each block, read through the model's own final norm and unembedding. "
        "A state that reads as a word need not be used as that word by later blocks."
    )
    page.figure(demo.lens.figure_at_last())
    page.figure(demo.lens.figure())
    page.heading("Where the fact is")
    page.paragraph(
        f"Noise on the subject's embeddings destroys the answer; restoring one clean state "
        f"brings it back. Among the subject's tokens the state after layer {layer} at token "
        f"{where} ({demo.located.tokens[where]!r}) restores most: indirect effect {effect} in "
        "probability, interval over noise draws. The trace shows what suffices to carry the "
        "fact in this run; it does not tell where an edit works best."
    )
    page.figure(demo.located.figure())
    page.heading("The edit")
    provenance = demo.delta.provenance
    (n_keys,) = provenance["keys_behind_C"].values()
    page.paragraph(
        f"One weight changed, by a matrix of rank one: {edited}. The covariance behind it was "
        f"estimated from {n_keys:,} keys ({provenance['corpus']})."
    )
    page.heading("The audit")
    page.paragraph("Intervals are 95 % over the prompts of this one case.")
    shown = audit.to_frame()
    measured = {*shown["metric"], *shown["reading"]}
    page.terms({name: words for name, words in EXPLAINED.items() if name in measured})
    page.figure(audit.figure())
    shares = audit.table().rename(columns={"n": "prompts"})
    page.table(shares, caption="Shares of prompts that pass, with 95 % intervals")
    page.paragraph(
        f"Perplexity on held-out text: {audit.perplexity('before')} before, "
        f"{audit.perplexity('after')} after; change in nats per token {audit.nll_change}, "
        "paired over pieces of 64 tokens."
    )
    page.table(audit.prompts(), caption="Every prompt; P is per token of the wanted object")
    page.heading("What it writes")
    page.table(
        pd.DataFrame(
            {
                "prompt": audit.openings,
                "before": [text.strip() for text in audit.written_before],
                "after": [text.strip() for text in audit.written_after],
            }
        ),
        caption="Greedy continuations",
    )
    page.heading("Where the new fact is")
    page.paragraph(
        f"The same trace in the edited model, now for “{rewrite.target_new}”: the strongest "
        f"subject state is after layer {new_layer} at token {new_where} "
        f"({demo.relocated.tokens[new_where]!r}), indirect effect "
        f"{demo.relocated.indirect_effect(new_where, new_layer)}."
    )
    page.figure(demo.relocated.figure())
    last = demo.located.subject_positions[-1]
    page.figure(
        trace_curves(
            {
                f"before: {demo.located.answer.strip()}": demo.located.to_frame(),
                f"after: {demo.relocated.answer.strip()}": demo.relocated.to_frame(),
            },
            positions=last,
        )
    )
    page.heading("The checkpoint")
    page.facts(
        {
            "says, in plain transformers": demo.reload.says.strip(),
            "largest difference of logits": f"{demo.reload.largest_difference:.1e}",
            "weights that differ from the base": list(demo.reload.changed),
        }
    )
    page.heading("How it was made")
    page.facts({"config": demo.run.config, "environment": demo.run.environment})
    return page
