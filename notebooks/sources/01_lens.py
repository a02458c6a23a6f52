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
# # The lens: layer by layer, what can already be read?
#
# **Question.** A model answers after its last block. How much of the answer is there after the
# first, the tenth, the twentieth? And is what one reads on the way *the fact*, or only the
# kind of word that is wanted?
#
# The logit lens treats every hidden state as if it were the last: final norm, unembedding,
# read the words. The claim at stake is C2 of the surveys that this lab puts to the test:
# factual knowledge sits mostly in the middle layers and grows with depth.
#
# Any causal language model will do. `smollm2-135m` takes a minute and a half, `"pocket"`, which
# ships with the package, a quarter of a minute.

# %%
import os

import numpy as np

from labkit import load, logit_lens, predict
from labkit.direct_attribution import direct_logit_attribution
from labkit.facts.known import known_sample
from labkit.facts.worlds import demo_case_of
from labkit.memories import contributions
from labkit.plots import use_in_notebooks
from labkit.results import Finding, answered
from labkit.stats import average
from probes import Cloze

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")

use_in_notebooks()
model = load(MODEL)
model

# %% [markdown]
# ## 1. One prompt
#
# **Prediction.** The answer does not seep in from the first layer on. At the last token there
# is first a long stretch of words that fit nothing, then words of the right kind, then the
# answer.

# %%
case = demo_case_of(model)
prompt, answer = case.rewrite.prompt, case.rewrite.target_true
predict(model, prompt).figure()

# %%
lens = logit_lens(model, prompt, answer=answer)
lens.figure()

# %%
lens.figure_at_last()

# %% [markdown]
# ## 2. Who pushes it there?
#
# The residual stream is a sum: embedding, then what every attention and every FFN adds. So is
# the logit of the answer, once the scale of the final norm is held fixed. Bars above zero
# push the answer up, bars below push it down; together they *are* the logit.

# %%
parts = contributions(model, prompt, answer)
parts.figure()

# %% [markdown]
# The same decomposition by transformer_lens' own tool, as a check on ours: the components that
# add most, and the sum of all of them.

# %%
table = direct_logit_attribution(model, prompt, answer)
summed = table["logit"].sum()
print(f"sum here {parts.total:.3f}, sum there {summed:.3f}")
table.reindex(table["logit"].abs().sort_values(ascending=False).index).head(8)

# %% [markdown]
# These are *direct* contributions only. A layer that tells later layers what to write has
# moved the answer and gets no credit here.

# %% [markdown]
# ## 3. Many facts, with a control
#
# One prompt is a story. Facts that this model knows, drawn evenly over relations, are a sample.
#
# Depth 0 is the embedding, depth d what block d leaves behind (counted from 1).
#
# **Prediction.** If the lens reads the fact, the answer's curve leaves the control's in the
# middle layers. The control is *another object of the same relation*: another city, another
# language. Where both rise together, the model has understood what kind of word is wanted and
# not yet which.

# %%
n_facts = 100
known = known_sample(model, n_facts)
print(f"{len(known)} facts that it knows, of {len(known.asked)} asked")
known.by_relation().sort_values("known", ascending=False).head(8)

# %% tags=["main"]
found = Cloze()(model, known.facts)
found.figure()

# %%
found.figure_ranks()

# %% [markdown]
# ## 4. Where is an answer settled?
#
# The first depth from which on the answer stays the top word, fact by fact. The spread matters
# as much as the middle: a mean depth that no fact has is not a place.

# %%
table = found.depths_frame().query("k == 1 and reach > 0")
table.sort_values("median").head(12).round(1)

# %%
found.figure_relations()

# %% [markdown]
# ## Conclusion
#
# In depth, 0 the embedding and 1 what the last block leaves behind:

# %%
said = found.precision(1)[-1]
settled = found.depth_within(1)[np.isfinite(found.depth_within(1))] / model.n_layers
at = {share: float(np.quantile(settled, share, method="higher")) for share in (0.1, 0.5, 0.9)}
print(f"answered in the end: {said}")
print({f"{share:.0%} of these settled by": round(depth, 2) for share, depth in at.items()})
ahead = [depth for depth, gain in enumerate(found.advantage()) if gain.low > 0]
print(f"the answer ranks above its control, interval and all, at depths {ahead}")

# %% [markdown]
# What this notebook asserts: the parts of the logit sum to the logit; in the end the answers
# stand far above their controls; and half of the facts are not settled before the middle of
# the model. On `smollm2-135m` facts are settled late, well above the middle: C2, read
# through this lens, does not hold for it as stated.

# %% [markdown]
# What this says of C2. "Middle" is taken to end at two thirds of the depth: were most facts read
# there, more than half would be the top word by then, and more than another object is.

# %%
depth, control = round(2 * model.n_layers / 3), "another object"
middle, other = found.precision(1)[depth], found.precision(1, control)[depth]
grows = "in part" if said.low > middle.high else "leaves open"
by_layer = Finding(
    claim="C2",
    measured=f"Known facts whose answer is the top word after block {depth} of {model.n_layers}",
    value=middle,
    control="another object of the same relation there",
    control_value=other,
    on=f"{len(known)} known facts, through the logit lens",
    verdict="supports" if middle.low > max(0.5, other.high) else grows,
    changed_by=f"In the end {said:.0%}: more with depth; most in the middle is over half by then.",
)

# %%
assert abs(parts.total - summed) < 1e-2
assert said.low > found.precision(1, "another object")[-1].high
assert at[0.5] > 0.5, at
late = average(settled, within=(0.0, 1.0))
answered(
    model,
    "01_lens",
    f"A known fact becomes the top word at {late:.2f} of the depth in the mean; after block "
    f"{depth} of {model.n_layers} it is on top for {middle:.0%}, in the end for {said:.0%}.",
    by_layer,
).keep()

# %% [markdown]
# **What this does not show.** Readable is not stored. The fact may sit in an early layer of the
# *subject's* token (where this lens, at the last token, never looked), in a basis that the
# unembedding does not read. Notebook 03 intervenes instead of reading.
#
# **Try.** Another model; your own prompt and answer in part 1; facts the model does *not* know
# (`known.asked` holds them): does the lens show the answer on the way, and lose it again?
