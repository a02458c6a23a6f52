# ---
# jupyter:
#   jupytext:
#     formats: ipynb,sources//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Probes: what is linguistic, what is factual, and in which layer?
#
# **Question.** A probe is a small classifier that reads one thing off one hidden state: a word's
# part of speech, its syntactic relation, the country that its bearer comes from. At which depth can
# each be read, is it *read* there or worked out by the probe, and does the model use it?
#
# The claims at stake are C1 (shallow linguistic knowledge in the low and middle layers, semantic
# knowledge in the middle and upper ones) and C2 (factual knowledge mostly in the middle, growing
# with depth). Depths count blocks passed through: 0 is what the embedding gives.
#
# On `smollm2-135m` this notebook takes about six minutes; `"pocket"` takes half a minute.

# %%
import os
from dataclasses import replace

import pandas as pd

from labkit import load
from labkit.plots import use_in_notebooks
from labkit.results import Finding, answered
from probes.probing.map import probe_map
from probes.tasks.defaults import default_tasks
from probes.use.interventions import forget

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")

use_in_notebooks()
model = load(MODEL)
model

# %% [markdown]
# ## 1. What is asked
#
# Words in sentences, each with a gold label. A test sentence shares no sentence with training,
# and a test fact no subject: what is scored was not there to be learned by heart.

# %%
tasks = default_tasks(model)
pd.DataFrame(
    [
        {
            "task": task.name,
            "family": task.family,
            "examples": len(task),
            "labels": "numbers" if task.numeric else len(set(task.labels)),
            "source": task.source,
        }
        for task in tasks.values()
    ]
)

# %% [markdown]
# ## 2. The map
#
# **Prediction (C1, C2).** From top to bottom of the figure, which is ordered from surface to
# facts, the diamonds move to the right.
#
# At every depth one linear probe per task, its strength chosen in cross-validation over groups.

# %% tags=["main"]
found = probe_map(model, tasks)
found.figure()

# %% [markdown]
# The bright cells say what *can* be read. Three things can be bright without the model's doing: a
# task that most words give away by their form, a task that a probe can learn by heart, and a task
# that random weights solve.

# %%
summary = found.summary()
summary[["task", "measure", "best depth", "score", "embedding", "baseline", "baseline is", "n"]]

# %% [markdown]
# ## 3. The controls that could refute it
#
# - **Random weights**: the same probe on a model of the same shape that was never trained. What it
#   scores there, the words and the architecture give away.
# - **Selectivity**: the score less the score on a *control task*, where every word type has one
#   random label. A probe that does as well there has memorised (none where no word type recurs).
# - **Compression**: how many times shorter the labels become for someone who has the states, paying
#   for what has to be learned. At 1 nothing was learned.

# %%
summary[["task", "score", "random weights", "selectivity", "compression"]]

# %% [markdown]
# One task of each kind, depth by depth, beside its controls. First the linguistic task with the
# highest compression, then the factual one.

# %%
codes = {each.task: each.best.compression.mean for each in found.probes if each.best.compression}
families = {each.task: each.family for each in found.probes}
linguistic = [name for name in codes if families[name] in ("lexical", "syntactic")]
factual = [name for name in codes if families[name] == "factual"]
grammar, fact = max(linguistic, key=codes.get), max(factual, key=codes.get)
found[grammar].figure()

# %%
found[fact].figure()

# %% [markdown]
# ## 4. Do linguistic tasks arise at lower depths than factual ones?
#
# Each task's *arrival* is the mean depth of what its probe gains over the majority; what the
# embedding tells already counts as depth 0. The test regroups the tasks: how often would a random
# split into two kinds differ as much? The interval resamples tasks, and the sentences and subjects
# of each. A handful of tasks is a small sample of all that could be asked: two against two cannot
# give a p below 1/6.

# %%
order = found.order("arrival")
semantic = found.order("arrival", upper=("semantic",))
pd.DataFrame(
    [
        {"above the linguistic tasks": name, "depths": str(test.difference), "p": test.p}
        for name, test in {"factual": order, "semantic": semantic}.items()
    ]
)

# %%
found.centres("arrival").round(2)

# %% [markdown]
# ## 5. Does the model use what the probe reads?
#
# A state may hold what the model does not use. Amnesic probing takes the directions that a linear
# probe could use out of the state at one depth, and watches the next token; the placebo takes out
# as many random directions, scaled to change each state by as much.
#
# Directions are found round by round, in ten rounds at most, and the search ends where a probe is
# no better than the majority on the *test* side: if the last of the scores below is above the
# majority's, something was left in, and if it is not, it is a little too good.

# %%
depth = found[fact].best.depth
forgotten = forget(model, tasks[fact], depth)
print(forgotten.title, [round(score, 2) for score in forgotten.scores])
forgotten.figure()

# %% [markdown]
# ## Conclusion
#
# The next cell says what was found on this model, whichever way it came out. A difference whose
# interval holds 0 neither supports nor refutes C1 and C2; a difference below 0 contradicts them.
# Either way the claims are about where something *can be read*: a low depth is no proof that it is
# used there, and section 5 is the only one that asks.

# %%
low, high = order.difference.low, order.difference.high
agrees = "support" if order.p < 0.05 else "point the way of, with too few tasks to support,"
verdict = agrees if low > 0 else "contradict" if high < 0 else "leave open"
print(f"factual tasks lie {order.difference} depths above the linguistic ones (p = {order.p:.3f})")
print(f"on {model.name}, these {len(found.probes)} tasks {verdict} the order of C1 and C2")
best = found[fact].best
print(f"{fact}: {best.score} at depth {best.depth}; random weights {best.twin}")

# %% [markdown]
# What this says of C1 and of C2, each by its own kind of tasks; then of how well facts are read at
# all. The units of an order are tasks: fewer than six of them, or a p of .05 and more, leave it
# open.

# %%
enough = order.difference.n >= 6
refuted = "contradicts" if enough and high < 0 else "leaves open"
facts_higher = Finding(
    claim="C2",
    measured=f"Depths by which factual tasks arise above linguistic ones (p = {order.p:.2g})",
    value=order.difference,
    control="no difference, as between tasks that are regrouped at random",
    control_value=0.0,
    on=f"{len(order.lower)} linguistic and {len(order.upper)} factual tasks",
    verdict="supports" if enough and order.p < 0.05 and low > 0 else refuted,
    changed_by="More tasks of either kind, and an order that random regroupings do not reach.",
)

# %%
gap, enough = semantic.difference, semantic.difference.n >= 6
refuted = "contradicts" if enough and gap.high < 0 else "leaves open"
meaning_higher = replace(
    facts_higher,
    claim="C1",
    measured=f"Depths by which semantic tasks arise above linguistic ones (p = {semantic.p:.2g})",
    value=gap,
    on=f"{len(semantic.lower)} linguistic and {len(semantic.upper)} semantic tasks",
    verdict="supports" if enough and semantic.p < 0.05 and gap.low > 0 else refuted,
)

# %%
facts_read = Finding(
    claim="C2",
    measured=f"Score of a probe for {fact} at its best depth, {best.depth} of {model.n_layers}",
    value=best.score,
    control="on random weights",
    control_value=best.twin,
    on=f"{best.score.n} groups of test examples",
    verdict="in part" if best.score.low > best.twin.high else "leaves open",
    changed_by="Facts read as well from random weights, or best in the low layers.",
)

# %%
assert best.score.low > best.twin.high, "the facts are no better read than from random weights"
assert best.p_holm < 0.05, "the facts are no better read than by a baseline"
answered(
    model,
    "04_probe_layers",
    f"Factual tasks arise {order.difference:+.1f} depths above linguistic ones "
    f"(p = {order.p:.2g}); {fact} is read best at depth {best.depth} of {model.n_layers}, with "
    f"{best.score:.2f} (random weights {best.twin:.2f}).",
    meaning_higher,
    facts_higher,
    facts_read,
).keep()
