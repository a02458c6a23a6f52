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
# # FFN layers as key-value memories
#
# **Question.** Most of a block's weights are its FFN. Geva et al. (2021) read it as a memory:
# each neuron's *key* detects a pattern in the text so far, and its *value* pushes the words that
# should follow. Low layers are said to detect surface patterns, high layers meaning (claims C4
# and C5 of the surveys that this lab puts to the test). Is that so in this model?
#
# The paper had people look at the prefixes that excite a key. Here patterns are counted, with
# rules that are stated, and set beside prefixes drawn at random: what random text shares is no
# pattern.
#
# Any causal language model will do. `smollm2-135m` takes seven minutes; `"pocket"` ships with the
# package and takes less than half a minute.

# %%
import os
from dataclasses import replace

from labkit import load
from labkit.facts.worlds import demo_case_of
from labkit.memories import (
    agreement,
    contributions,
    ffn_share,
    find_triggers,
    neuron_card,
    patterns,
    switched,
    words_of,
    writers,
)
from labkit.plots import use_in_notebooks
from labkit.results import Finding, answered
from labkit.stats import Estimate
from labkit.tokens import target_ids

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")

use_in_notebooks()
model = load(MODEL)
of_block, of_all = ffn_share(model)
print(f"FFNs: {of_block:.0%} of the weights of the blocks, {of_all:.0%} of all weights")
model

# %% [markdown]
# ## 1. What excites each key?
#
# One pass over the model's corpus keeps, for every neuron of every layer, the ten prefixes that
# excite it most. The pass is cached: the second time it takes no time.

# %%
triggers = find_triggers(model)
print(triggers.title)
triggers.of(0, 0).drop(columns=["document", "pos"]).head(5)

# %% [markdown]
# ## 2. One neuron
#
# Who writes the answer to a question that we know from the tour? Of all neurons, these have
# values that point most towards it:

# %%
case = demo_case_of(model)
prompt, answer = case.rewrite.prompt, case.rewrite.target_true
token = target_ids(model.tokenizer, prompt, answer)[0]
found = writers(model, token)
found.figure()

# %% [markdown]
# The first of them, from both sides: the texts that excite its key, and the words that its value
# promotes and suppresses. **Prediction.** If the memory view is right, the texts ask for the
# words.

# %%
layer, neuron = (int(found.neurons.iloc[0][name]) for name in ("layer", "neuron"))
neuron_card(model, layer, neuron, triggers, prompt=prompt).figure()

# %% [markdown]
# A picked neuron proves nothing. The rest of this notebook counts over all of them.

# %% [markdown]
# ## 3. From surface to meaning?
#
# What a neuron's triggers share: the *last token*, the last two tokens, or *words* elsewhere in the
# text, more than random prefixes of the same length do (the paper's figure 2, counted).
#
# **Prediction** (C5). The share with a common last token falls with depth, the share with common
# words rises; both stand above the control.

# %% tags=["main"]
shared = patterns(model, triggers)
shared.figure()

# %%
table = shared.to_frame().pivot_table(
    index="layer", columns=["measure", "source"], values="mean", sort=False
)[["last token", "shared words"]]
table.round(3)

# %% [markdown]
# ## 4. Does the value say what followed?
#
# In the texts that excite a key, some token came next. Does the neuron's value promote just that
# one (the paper's figure 4)? Chance is the rate of keys and values paired at random.
#
# **Prediction.** Next to never in low layers, more often in the last ones.

# %%
agreed = agreement(model, triggers)
agreed.figure()

# %% [markdown]
# ## 5. Which neurons produce this answer?
#
# The logit of an answer is a sum: what the embedding, every head and every neuron add, with the
# final norm's scale held. How many neurons does half of what they add take? That depends on what
# is halved: the *net* sum, or the sum of those that promote the answer, most of which others may
# cancel. **Prediction.** The two sums are far apart: many neurons write this word, and as many
# others against it.

# %%
parts = contributions(model, prompt, answer)
half = parts.covering(0.5)
print(f"logit {parts.logit:.3f}, sum of all parts {parts.total:.3f}")
print(f"neurons for it {parts.positive:+.1f}, in all {parts.neurons.sum():+.1f}")
print(f"half of the net sum: {len(half)} neurons of {parts.neurons.size}")
print(f"half of what is for it: {len(parts.covering(0.5, of='positive'))} neurons")
parts.figure()

# %%
parts.neurons_frame(8)

# %% [markdown]
# **The test.** Switch exactly these neurons off. The *direct* effect has to be what the parts
# predict, to the last digit: that is arithmetic. The *total* effect, with everything after
# them free to react, is what the model would really do, and nothing makes the two agree.

# %%
off = switched(model, parts, half)
off.figure()

# %%
double = switched(model, parts, half, factor=2.0)
print(f"off:     predicted {off.predicted:+.3f}, direct {off.direct:+.3f}, total {off.total:+.3f}")
print(f"doubled: predicted {double.predicted:+.3f}, total {double.total:+.3f}")
print("as many random neurons off, in all:", off.control[1])

# %% [markdown]
# What do the largest of them write by themselves?

# %%
for row in parts.neurons_frame(5).itertuples():
    words = words_of(model, row.layer, row.neuron, k=6)
    side = words.promoted if row.activation > 0 else words.suppressed
    shown = ", ".join(word.strip() for word in side)
    print(f"L{row.layer}N{row.neuron} ({row.logit:+.2f}): {shown}")

# %% [markdown]
# ## Conclusion
#
# The next cell says what was found in this model, whichever it is.

# %%
last_token = table["last token", "triggers"]
middle = table["shared words", "triggers"].idxmax()
print(
    f"triggers that share their last token: {last_token.iloc[0]:.0%} in layer 0, at least "
    f"{last_token.min():.0%} (layer {last_token.idxmin()}), {last_token.iloc[-1]:.0%} in the last"
)
print(
    f"shared words: most in layer {middle}, {table['shared words', 'triggers'][middle]:.0%} "
    f"against {table['shared words', 'control'][middle]:.0%} by chance"
)
print(
    f"{answer}: {len(half)} neurons give half of the {parts.neurons.sum():.1f} logits that all "
    f"{parts.neurons.size} add, {parts.positive - parts.neurons.sum():.1f} are taken back"
)

# %% [markdown]
# C5 expects the first line to fall with depth all the way, and the layer of the second to be among
# the last. On `smollm2-135m` and its own text it holds in part: 64 % share their last token in
# layer 0 and 14 % by layer 3, but a quarter and more again in the upper layers, where keys respond
# to the word just read in order to write the next; and shared words peak in the *middle*, layers
# 12 to 15. Of one answer there, neurons write 135 logits and take 127.5 back: three give half of
# the 7.5 that remain, and 944 half of the 135. Who "makes" an answer is a question about a small
# difference of large sums, and a number of neurons alone does not answer it.
#
# Asserted below: the parts sum to the logit; switching off does directly what was predicted, and
# more in all than as many random neurons do; triggers share last tokens far beyond chance in
# the first layer; and keys agree with values more in the last layers than by chance.

# %% [markdown]
# What this says of the claims. Words in common count as meaning, a last token in common as surface.

# %%
rows = shared.to_frame().set_index(["measure", "source", "layer"]).to_dict("index")
share = {key: Estimate.from_dict(row) for key, row in rows.items()}
ends = (0, model.n_layers - 1)
first, final = (share["last token", "triggers", layer] for layer in ends)
least = share["last token", "triggers", last_token.idxmin()]
low_words, high_words = (share["shared words", "triggers", layer] for layer in ends)
random_first = share["last token", "control", 0]
random_high = share["shared words", "control", ends[1]]
peak = share["shared words", "triggers", middle]
falls = "in part" if least.high < final.low else "supports"
falls_not = "contradicts" if final.low > first.high else "leaves open"
rises = "in part" if peak.low > high_words.high else "supports"
rises_not = "contradicts" if high_words.high < low_words.low else "leaves open"

# %%
surface = Finding(
    claim="C5",
    measured=f"Triggers that share a last token, layer 0 (random text: {random_first.mean:.2f})",
    value=first,
    control="in the last layer",
    control_value=final,
    on=f"{first.n} neurons a layer, {triggers.activation.shape[2]} prefixes each",
    verdict=falls if first.low > final.high else falls_not,
    changed_by="It turns on whether the share falls with depth all the way.",
)

# %%
meaning = replace(
    surface,
    measured=f"Triggers that share words, last layer (random text: {random_high.mean:.2f})",
    value=high_words,
    control="in layer 0",
    control_value=low_words,
    verdict=rises if high_words.low > low_words.high else rises_not,
    changed_by="It turns on whether the share rises all the way; synonyms do not count here.",
)

# %%
last = agreed.to_frame().iloc[-1]
rate = Estimate.from_dict(last.to_dict())
weights = Finding(
    claim="C4",
    measured="Share of the FFNs in the weights of the blocks",
    value=of_block,
    control="everything else in the blocks",
    control_value=1 - of_block,
    on=f"all {model.n_layers} blocks, counted",
    verdict="in part" if of_block > 0.5 else "contradicts",
    changed_by="Most weights elsewhere; where knowledge is held, counting them cannot tell.",
)

# %%
promoted = replace(
    surface,
    measured="Neurons of the last layer whose value promotes what followed their triggers",
    value=rate,
    control="keys and values that are paired at random",
    control_value=float(last["chance"]),
    on=f"{rate.n} neurons",
    verdict="supports" if rate.n >= 6 and rate.low > last["chance"] else "leaves open",
    changed_by="It turns on whether more values fit their keys than by chance.",
)
findings = weights, surface, meaning, promoted

# %%
assert abs(parts.total - parts.logit) < 1e-3 * abs(parts.logit)
assert abs(off.direct - off.predicted) < 1e-3 * abs(off.predicted)
assert off.total < off.control[1].low
assert table["last token", "triggers"].iloc[0] > 2 * table["last token", "control"].iloc[0]
assert last["low"] > last["chance"], last
answered(
    model,
    "02_memories",
    f"{first:.0%} of a neuron's triggers share their last token in layer 0 and {final:.0%} in the "
    f"last; what followed is promoted by {rate:.0%} of the last layer's neurons, by chance "
    f"{last['chance']:.1%}.",
    *findings,
).keep()

# %% [markdown]
# **What this does not show.** Ten prefixes of a small corpus are a thin description of a key: a
# neuron is also what it does at its second-rate activations. "Shared words" counts words, not
# meaning: synonyms do not count, and a document about one town shares its name throughout. And
# a *direct* effect credits the last layers for what earlier ones made possible.
#
# **Try.** `writers(model, " London")`; a neuron of a low layer,
# `neuron_card(model, 0, 0, triggers)`; your own text,
# `find_triggers(model, corpus=Corpus.from_file("mine.txt"))`.
