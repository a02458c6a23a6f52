# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Demonstrations: what is it about them that helps?
#
# **Question.** No weight changes, and still a model does a task after a few examples. Is it their
# labels, their inputs, their format, their order, which ones they are? And could an instruction
# do the same?
#
# The claims at stake are C9 (correct labels are hardly needed), C13 (choice and order move accuracy
# a lot, late demonstrations weigh more, entropy finds good orders, similar examples help) and C14
# (an instruction can be inferred from demonstrations, and can replace them).
#
# Any causal language model will do; `"pocket"` ships with the package and runs in seconds, but it
# knows its little world so well that there is nothing left to demonstrate.

# %%
import os

import pandas as pd

from labkit import load
from labkit.icl import (
    Choice,
    Demonstrations,
    Gains,
    Instructions,
    Orders,
    scorable,
    task,
    task_names,
)
from labkit.icl.behaviour.choice import WORDS
from labkit.plots import use_in_notebooks

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")

use_in_notebooks()
model = load(MODEL)
pocket = model.name == "pocket"
PAIRS, CLASSES = ("city_river", "country_continent") if pocket else ("antonym", "topic")
K, QUERIES = (3, 8) if pocket else (8, 30)
model

# %% [markdown]
# ## 1. Which tasks gain at all?
#
# Every task of the lab, without demonstrations and with `K` of them. The label space is given and
# the likeliest label counts as the answer. **Prediction.** Most tasks gain.

# %%
tasks = [task(name, model) for name in task_names(model)]
gains = Gains(k=K, queries=10 if pocket else 40)(model, tasks)
gains.figure()

# %% [markdown]
# Some would gain by luck: p-values are corrected for the number of tasks (Holm). And to say the
# commonest label every time is no skill: `clear` asks for more than that (`majority`) too.

# %%
gains.to_frame().round(3)

# %% [markdown]
# ## 2. C9: are correct labels needed?
#
# The same demonstrations, changed in one respect at a time. **Prediction (C9).** Random labels cost
# little; words that are no labels, foreign inputs, or no format cost a lot.
#
# First a task of word pairs, in which nearly every input has a label of its own.

# %%
CONDITIONS = ("gold", "random", "permuted", "flipped", "out-of-space", "foreign", "no-format",
              "labels-only")  # fmt: skip
changed = {}
for name in (PAIRS, CLASSES):
    own, tokens = scorable(model, task(name, model))
    method = Demonstrations(conditions=CONDITIONS, ks=(0, 2, K), draws=2, queries=QUERIES,
                            tokens=tokens)  # fmt: skip
    changed[name] = method(model, own)
changed[PAIRS].figure()

# %% [markdown]
# Then one of classification, the kind of task that the claim was made about.

# %%
changed[CLASSES].figure()

# %%
pd.concat(
    {name: found.comparisons().query("k == @K") for name, found in changed.items()}, names=["task"]
).drop(columns="k").round(3)

# %% [markdown]
# A model can fail to answer because it does not know, or because it does not know which words are
# answers. The probability of all labels together tells the two apart.

# %%
changed[CLASSES].figure("mass")

# %% [markdown]
# Two tasks are two tasks. Here is the cost of random labels over all tasks of section 1, by kind.

# %%
kinds = {"classification": [own.name for own in tasks if own.closed]}
kinds["word pairs"] = [own.name for own in tasks if not own.closed]
over = {
    (kind, f"{one} - {other}"): str(gains.over_tasks(one, other, tasks=names))
    for kind, names in kinds.items()
    for one, other in (("gold", "none"), ("random", "none"), ("gold", "random"))
}
pd.Series(over, name="accuracy, mean over tasks")

# %% [markdown]
# ## 3. C13: does the order matter?
#
# A few sets of demonstrations, each in many orders. **Prediction (C13).** Accuracy spreads widely,
# and orders that make the model use all its labels (high entropy of its answers to inputs whose
# labels nobody looks at) are better.
#
# The best of many is partly luck. The control chooses the best order on one half of the queries
# and measures it on the other.

# %%
orders = Orders(k=3 if pocket else 4, sets=2 if pocket else 3, orders=6 if pocket else 12,
                queries=QUERIES, probes=4 if pocket else 12)  # fmt: skip
ordered = orders(model, task(CLASSES, model))
ordered.figure()

# %%
ordered.by_position().round(3), ordered.by_count().round(3)

# %% [markdown]
# ## 4. C13: does the choice matter?
#
# Demonstrations near to the query, or far from each other, against random ones. **Prediction
# (C13).** The nearest help. **Control.** They often have the query's own label: `drawn, labels of
# the nearest` shows the same labels on other items.

# %%
choice = Choice(ks=(2, K), draws=2, queries=QUERIES)
chosen = choice(model, task(CLASSES, model))
chosen.figure()

# %%
choices = chosen.comparisons(against=WORDS["random"])
choices.round(3)

# %% [markdown]
# ## 5. C14: told or shown?
#
# The same queries behind an instruction, behind demonstrations, behind both, and behind the
# instruction of another task (control). Then the model reads demonstrations and proposes
# instructions itself; the best on development items is asked beside the mean of all (control).

# %%
own, tokens = scorable(model, task(PAIRS, model))
tell = Instructions(k=K, draws=2 if pocket else 4, queries=QUERIES, tokens=tokens,
                    development=4 if pocket else 16)  # fmt: skip
told = tell(model, own)
told.figure()

# %%
told.comparisons(against="another's").round(3)

# %% [markdown]
# What the model proposes, the best on the development items first. Read them before believing the
# figure: an instruction can be chosen for what it does, and say nothing of what is to be done.

# %%
told.candidate_frame().head(8).round(3)

# %% [markdown]
# ## Conclusion
#
# Every claim as a difference in accuracy (of recency: in probability), with its interval and which
# way it fell on this model. The sign says what the claim predicts; an interval that holds 0 leaves
# it open, and is no proof of its absence: `n` is small.

# %%
near, drawn = WORDS["states"], WORDS["random"]
said = {
    ("C9", -1, f"own labels - random, {PAIRS}"): changed[PAIRS].difference("gold", "random", K)[0],
    ("C9", -1, f"own labels - random, {CLASSES}"): changed[CLASSES].difference("gold", "random", K)[
        0
    ],
    ("C9", -1, "own labels - random, all tasks"): gains.over_tasks("gold", "random"),
    ("C9", 1, f"own format - none, {CLASSES}"): changed[CLASSES].difference("gold", "no-format", K)[
        0
    ],
    ("C13", 1, "best order of many, on new queries"): ordered.best_on_new_queries(),
    ("C13", 1, "orders of high entropy - all"): ordered.gain_of_entropy()[0],
    ("C13", 1, "label shown last - shown first"): ordered.recency()[0],
}

# %%
said |= {
    ("C13", 1, "nearest by state - random"): chosen.difference(near, drawn, K)[0],
    ("C13", 1, "nearest by state - its labels on others"): chosen.difference(
        near, WORDS["alike"], K
    )[0],
    ("C14", 1, "instruction - another's"): told.difference("instruction", "another's")[0],
    ("C14", -1, "demonstrations - instruction"): told.difference("demonstrations", "instruction")[
        0
    ],
}
if told.candidates:
    said["C14", 1, "best proposed - written"] = told.difference("proposed", "instruction")[0]
    said["C14", 1, "best proposed - any"] = told.difference("proposed", "any proposed")[0]

# %%
words = {1: "supports", 0: "leaves open", -1: "contradicts"}
for (claim, sign, what), estimate in said.items():
    fell = sign * (int(estimate.low > 0) - int(estimate.high < 0))
    print(f"{what}: {estimate} {words[fell]} {claim}")
clear = gains.clear()
print(f"{len(clear)} of {len(tasks)} tasks clearly gain on {model.name}: {', '.join(clear)}")

# %%
knows = gains.to_frame()["none"].mean() > 0.9  # as the pocket model does: nothing is left to show
assert len(clear) >= 5 or knows, "fewer than five tasks clearly gain from demonstrations"
