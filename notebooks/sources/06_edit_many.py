# ---
# jupyter:
#   jupytext:
#     formats: ipynb,sources//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
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

# %%
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

# %%
memit = sequence.estimate("MEMIT", "success", "efficacy")
kept, spared = (batch.estimate(n, "success", "neighbourhood") for n in ("unedited", "MEMIT"))
assert memit.mean >= 0.9, f"edits in order were lost: {memit}"
assert kept.mean - spared.mean < 0.15, f"neighbours fell from {kept} to {spared}"
