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
# # Edit many facts: at once, and one after another
#
# **Question.** One edit works. How many can a model withstand, and does it matter whether they are
# made together or one after another?
#
# Everything is read on the *final* state, with all edits in effect: an edit that was fine when
# it was made may have been overwritten since. Claims C6 (facts can be overwritten) and C20 (new
# tasks overwrite old ones) meet here.
#
# Any causal language model will do. On `smollm2-135m` 20 rewrites take 25 minutes on one core;
# `"pocket"` ships with the package and takes a minute.
#
# - **MEMIT** (Meng et al. 2023) solves all rewrites at once by least squares, and spreads them
#   over a few layers. **AlphaEdit** (Fang et al. 2025) allows itself only directions that the
#   keys that occur hardly have.
# - **EMMET** (Gupta et al. 2024) meets every rewrite exactly, in one layer.
# - **The shortcut** leaves the covariance out, as a popular toolkit's presets do.

# %%
import os
from dataclasses import replace

from editing import EMMET, MEMIT, AlphaEdit, EvaluationOptions, compare_methods
from editing.layers.tuning_cases import known_cases
from labkit import load
from labkit.plots import use_in_notebooks
from labkit.results import Finding, answered
from labkit.results.claims import FEWEST

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")
N = int(os.environ.get("LABKIT_N", "20"))  # rewrites; 100 takes five times as long

use_in_notebooks()
model = load(MODEL)

# %% [markdown]
# ## 1. What to edit
#
# Facts that the model knows, of many relations, each with another object of its relation. Half
# of a case's neighbours share the old object, half do not.

# %%
cases = known_cases(model, N)
for case in cases[:5]:
    print(f"{case.rewrite.prompt} … {case.rewrite.target_true} → {case.rewrite.target_new}")

# %% [markdown]
# ## 2. All at once
#
# **Prediction.** The exact method meets all rewrites; the soft ones meet nearly all. Without the
# covariance neighbours pay, and more so the more keys share directions.

# %%
methods = {
    "MEMIT": MEMIT(),
    "AlphaEdit": AlphaEdit(),
    "EMMET": EMMET(),
    "shortcut": EMMET(covariance=False),
}
batch = compare_methods(model, methods, cases, EvaluationOptions(protocol="batch", n_tokens=0))
batch.figure()

# %%
batch.wide()

# %% [markdown]
# Up and to the right is better: paraphrases follow, neighbours stay. Look at the intervals before
# ranking anything. The same cases went through every method, so differences can be tested in
# pairs; `p_holm` is corrected for
# asking many times.

# %%
batch.tests.sort_values("p_holm").head(12)

# %% [markdown]
# ## 3. One after another
#
# Each edit is made on top of all earlier ones. **Prediction.** The shortcut drifts: every edit
# moves directions that all keys share, so the norm of the weight grows, then perplexity, and early
# edits are lost. Methods that remember the keys of earlier edits keep them.

# %%
forgetful = replace(EMMET(), remember=False)
in_order = {"MEMIT": MEMIT(), "forgets keys": forgetful, "shortcut": methods["shortcut"]}
sequence = compare_methods(
    model, in_order, cases, EvaluationOptions(protocol="sequential", n_tokens=0)
)
sequence.figure()

# %%
sequence.wide()

# %% [markdown]
# ## 4. The collapse curve
#
# Efficacy over the edits made *so far*, perplexity, and the size of the change relative to the
# weight, as edits add up. Norm growth is the cheap early warning: it needs no text and no prompt.

# %%
sequence.collapse["shortcut"].figure()

# %% tags=["main"]
sequence.collapse["MEMIT"].figure()

# %%
sequence.collapse["shortcut"].warnings()

# %% [markdown]
# ## 5. Together or in order?
#
# The same method, the same rewrites, the same reading.

# %%
for metric in ("efficacy", "paraphrase", "neighbourhood"):
    print(metric)
    print("   unedited     ", batch.estimate("unedited", "success", metric))
    print("   at once      ", batch.estimate("MEMIT", "success", metric))
    print("   one by one   ", sequence.estimate("MEMIT", "success", metric))

# %% [markdown]
# **Conclusion.** Read it off the tables: whether the shortcut really costs more (its neighbours and
# its perplexity, at once and in order), whether remembering keys keeps earlier edits, and whether
# the norm had grown before efficacy fell. On a small model with few facts the shortcut can come
# out no worse: keys that share little need no metric to be told apart. How far any of it carries
# is a question of numbers: raise `N` at the top, or run
# `labkit evaluate --protocol sequential --methods memit,emmet,alphaedit,ft` on a file of cases.

# %% [markdown]
# Success is that the new object is likelier than the old one. C6 has two halves, and rewriting
# tests one: that facts *can* be overwritten there, not that they are nowhere else. For C20 the same
# exact method makes the same rewrites at once, where none comes later than another, and in order.

# %%
before, at_once = (batch.estimate(n, "success", "efficacy") for n in ("unedited", "MEMIT"))
memit = sequence.estimate("MEMIT", "success", "efficacy")
level = batch.estimate("EMMET", "success", "efficacy")
later = sequence.estimate("forgets keys", "success", "efficacy")
enough, on = len(cases) >= FEWEST, f"{len(cases)} rewrites of facts that the model knows"
overwritten = Finding(
    claim="C6", measured="share of rewrites, made at once by MEMIT, that succeed", value=at_once,
    control="unedited", control_value=before, on=on,
    verdict="in part" if enough and at_once.low > before.high else "leaves open",
    changed_by="the same rewrites in other places: as good there would contradict 'located'",
)  # fmt: skip

# %%
forgotten = Finding(
    claim="C20", measured="share of rewrites in effect after the last of them, made one by one by "
    "EMMET, which does not remember earlier keys here", value=later,
    control="the same, made at once", control_value=level, on=on,
    verdict="supports" if enough and later.high < level.low else "leaves open",
    changed_by="more rewrites: intervals apart would support it",
)  # fmt: skip
curve = sequence.collapse["MEMIT"]
fell, least = curve.warnings()["fell_at"].iloc[0], f"{curve.thresholds.success:.0%}"
apart = memit.high < at_once.low or at_once.high < memit.low

# %%
kept, spared = (batch.estimate(n, "success", "neighbourhood") for n in ("unedited", "MEMIT"))
assert memit.mean >= 0.9, f"edits in order were lost: {memit}"
assert kept.mean - spared.mean < 0.15, f"neighbours fell from {kept} to {spared}"
answered(
    model, "06_edit_many",
    f"Of {len(cases)} rewrites by MEMIT {memit:.0%} are in effect after the last where they are "
    f"made one after another and {at_once:.0%} where they are made at once, which "
    f"{'differ' if apart else 'this many cannot tell apart'}; on the way the share "
    f"{f'stayed at {least} or more' if fell is None else f'fell below {least} at {fell} edits'}.",
    overwritten, forgotten,
).keep()  # fmt: skip
