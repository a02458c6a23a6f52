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
# Any causal language model will do; `smollm2-135m` takes eight minutes. `"pocket"` knows its little
# world so well that there is nothing left to demonstrate: there the cells run through in half a
# minute, and decide none of the claims.

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
from labkit.icl.behaviour.conditions import words_of
from labkit.plots import use_in_notebooks
from labkit.results import Claim, Finding, answered, verdicts
from labkit.stats import Estimate

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
# *Little* has to be said beforehand: less than 0.05 of accuracy, about what Min et al. (2022)
# found. An interval that merely holds 0 would be no evidence that labels do not matter.
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
table = pd.concat(
    {name: found.comparisons().query("k == @K") for name, found in changed.items()}, names=["task"]
)
table["condition"] = table["condition"].map(words_of)  # as in the figures
table.drop(columns="k").round(3)

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
# labels are not used) are better.
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
# **Prediction (C14).** An instruction is worth as much as the demonstrations: it loses at most
# 0.05 of their accuracy.
#
# The same queries after an instruction, after demonstrations, after both, and after the
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
# Every claim as a difference in accuracy (of recency: in probability), tested together. What a
# claim expects stands beside it: *more* than 0; *alike* or *no more*, to within the margin that was
# stated above. Verdicts rest on p-values corrected for the number of claims; *too few* units (sets
# of demonstrations) decide nothing, and what is left open is no proof of absence.

# %%
MARGIN = 0.05  # of accuracy, as predicted in sections 2 and 5
near, drawn = WORDS["states"], WORDS["random"]
claims = [
    Claim(claim="C9", what=f"own labels - random, {name}", expects="alike", margin=MARGIN,
          values=changed[name].differences("gold", "random", K))
    for name in (PAIRS, CLASSES)
]  # fmt: skip
claims += [
    Claim(claim="C9", what="own labels - random, all tasks", expects="alike", margin=MARGIN,
          unit="task", values=gains.differences("gold", "random")),
    Claim(claim="C9", what=f"own format - none, {CLASSES}",
          values=changed[CLASSES].differences("gold", "no-format", K)),
]  # fmt: skip

# %%
claims += [
    Claim(claim="C13", what="best order of many, on new queries", unit="set",
          values=ordered.best_by_set()),
    Claim(claim="C13", what="orders of high entropy - all", values=ordered.entropy_by_query()),
    Claim(claim="C13", what="label shown last - first", values=ordered.recency_by_query()),
    Claim(claim="C13", what="nearest by state - random",
          values=chosen.differences(near, drawn, K)),
    Claim(claim="C13", what="nearest by state - its labels on others",
          values=chosen.differences(near, WORDS["alike"], K)),
]  # fmt: skip

# %% tags=["main"]
claims += [
    Claim(claim="C14", what="instruction - another's",
          values=told.differences("instruction", "another's")),
    Claim(claim="C14", what="demonstrations - instruction", expects="no more", margin=MARGIN,
          values=told.differences("demonstrations", "instruction")),
]  # fmt: skip
if told.candidates:
    claims.append(Claim(claim="C14", what="best proposed - any",
                        values=told.differences("proposed", "any proposed")))  # fmt: skip
decided = verdicts(claims, model=model.name)
decided.figure()

# %%
decided.to_frame().round(3)

# %%
RULES = {"more": "above 0", "alike": f"within ±{MARGIN}", "no more": f"below {MARGIN}"}
UNITS = {"query": "queries", "set": "sets", "task": "tasks"}
TASKS = {"C13": f" of {CLASSES}", "C14": f" of {PAIRS}"}
findings = [
    Finding(
        claim=row["claim"], value=Estimate.from_dict(row),
        measured=f"{'P(label)' if 'shown last' in row['what'] else 'accuracy'}: {row['what']}",
        control="largest difference that counts as none",
        control_value=0.0 if row["expects"] == "more" else MARGIN,
        on=f"{row['n']} {UNITS[row['unit']]}{TASKS.get(row['claim'], '')}",
        verdict={"too few": "leaves open"}.get(row["verdict"], row["verdict"]),
        changed_by=f"p = {row['p_holm']:.2g} (Holm, {len(claims)} tests). With p below .05, an "
        f"interval {RULES[row['expects'].split(' (')[0]]} supports it, one outside contradicts it",
    ) for row in decided.to_frame().to_dict("records")
]  # fmt: skip

# %%
clear = gains.clear()
print(f"{len(clear)} of {len(tasks)} tasks clearly gain on {model.name}: {', '.join(clear)}")
knows = gains.to_frame()["none"].mean() > 0.9  # as the pocket model does: nothing is left to show
assert len(clear) >= 5 or knows, "fewer than five tasks clearly gain from demonstrations"
shown, labels = (gains.over_tasks("gold", other) for other in ("none", "random"))
fell = (decided.to_frame()["verdict"] == "supports").sum()
answered(
    model, "09_demonstrations",
    f"{len(clear) or 'None'} of {len(tasks)} tasks clearly gain{'s' * (len(clear) < 2)} from {K} "
    f"demonstrations, which change an accuracy of {gains.to_frame()['none'].mean():.0%} by "
    f"{shown:+.1%}{', as nothing is left to show' if knows else ''}; their "
    f"own labels are worth {labels:+.1%} more than random ones, and {fell} of {len(claims)} "
    "predictions about them are supported.",
    *findings,
).keep()  # fmt: skip
