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
# # Inside in-context learning: which parts of a model do it?
#
# **Question.** Demonstrations change the answer and no weight. Where does that happen? In some
# heads that look for an earlier copy? At the label words? In one state that could be carried over
# to another prompt?
#
# The claims at stake: C12 (certain heads do prefix matching and copying, and carry in-context
# learning), C13 (late demonstrations weigh more), C19 (the first token is an attention sink); and
# two findings of the literature: label words are anchors (Wang et al. 2023), and a task is one
# vector (Hendel et al. 2023, Todd et al. 2024).
#
# Any causal language model will do; `smollm2-135m` takes ten minutes. `"pocket"` ships with the
# package and shows the tools in half a minute; but it knows its little world so well that
# demonstrations teach it nothing.

# %%
import math
import os

from labkit import load
from labkit.icl import (
    Anchors,
    FunctionVectors,
    HeadAblation,
    Influence,
    TaskVectors,
    Trajectories,
    task,
    told_apart,
)
from labkit.icl.inside.anchor_edges import PARTS
from labkit.plots import use_in_notebooks
from labkit.results import Finding, answered
from labkit.results.claims import FEWEST
from labkit.stats import Estimate, average

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")

use_in_notebooks()
model = load(MODEL)
pocket = model.name == "pocket"
names = ("city_river", "country_continent") if pocket else ("past", "animal")
pairs, classes = (told_apart(model, task(name, model)) for name in names)
K, QUERIES, LAYERS = (3, 6, None) if pocket else (8, 25, range(8, 28, 2))
model

# %% [markdown]
# ## 1. From which layer on does the answer differ?
#
# The state of the last token after every block, read as if it were the last one (the logit lens),
# after no, one and `K` demonstrations. **Prediction.** The curves part in the upper half, where
# words of the right kind become the right word.

# %%
depth = Trajectories(ks=(0, 1, K), draws=1 if pocket else 2, queries=QUERIES)(model, pairs)
depth.figure()

# %%
gold = {k: depth.at_last("gold", k) for k in depth.ks}
apart = {k: depth.parting(k).query("low > 0")["layer"].tolist() for k in depth.ks}
for k, value in gold.items():
    print(f"{k} shown: log P(right) {value}, above a wrong label after blocks {apart[k]}")

# %% [markdown]
# ## 2. C12: are there heads that carry it?
#
# Induction heads look, in random tokens that are repeated, for what stood after the present token
# the first time. Previous-token heads feed them. They are found on such sequences, then switched
# off (their output becomes its mean over text), beside as many random heads of the same layers.
#
# **Prediction (C12).** Without them repetition is worth less, and so are demonstrations; random
# heads cost little.

# %%
setting = {"draws": 2, "sequences": 6, "documents": 3, "window": 64} if pocket else {"draws": 3}
heads = HeadAblation(k=K, queries=QUERIES, sets=1 if pocket else 2, **setting)
off = heads(model, [pairs, classes])
off.figure_heads()

# %%
off.figure_loss()

# %% tags=["main"]
off.figure()

# %% [markdown]
# A head that is off also harms what has nothing to do with context: the loss on text says how much.
# What counts is the gain from demonstrations, and what is lost beyond random heads (`beyond`).

# %%
table = off.to_frame()
gain = table.query("measure == 'gain of accuracy'")
columns = ["on", "heads", "n_heads", "intact", "mean", "beyond", "beyond_low", "beyond_high"]
gain[[*columns, "p_holm"]].round(2)

# %% [markdown]
# ## 3. Where is it looked up? Anchors and the sink
#
# One prompt, its tokens coloured by how much the last token attends to them; labels are framed.

# %%
read = Anchors(k=K, sets=1 if pocket else 2, queries=QUERIES, read=6)
anchors = read(model, classes)
anchors.figure_prompt()

# %%
anchors.figure_attention()

# %% [markdown]
# A weight says where a head looks, not what it takes from there. So edges are blocked: from
# labels to what stands before them, from the query to labels, to inputs, to the first token;
# beside random edges.
#
# **Prediction (anchors).** In low layers it costs most to block what labels gather, in high
# layers to block what is read off them.

# %%
anchors.figure()

# %%
blocked = anchors.to_frame().query("measure == 'gold' and layers == 'all'").set_index("edges")
blocked[["intact", "mean", "random", "beyond", "beyond_low", "beyond_high", "p_holm"]].round(3)

# %% [markdown]
# ## 4. Is a task one vector?
#
# The state of the last token after `K` demonstrations, put into a bare query at one layer. Layer
# chosen on some queries, all numbers from others. Placebos: the vector of another task, and a
# random direction of the same norm. **Prediction.** The vector does most of what demonstrations do.

# %%
taken = TaskVectors(k=K, draws=1 if pocket else 2, development=3 if pocket else 12, queries=QUERIES)
vector = taken(model, pairs, other=classes)
vector.figure()

# %%
vector.vocabulary().set_index("layer").loc[[vector.chosen[1]]]

# %% [markdown]
# A function vector is built from heads: those whose output, taken after correct labels, raises the
# answer most after permuted ones. Their mean outputs are summed and added to bare queries.

# %%
sweep = {"prompts": 2, "heads": 3} if pocket else {"prompts": 12}
by_heads = FunctionVectors(
    k=K, draws=1, development=3 if pocket else 12, queries=QUERIES, layers=LAYERS, **sweep
)(model, pairs)
by_heads.figure_heads()

# %%
by_heads.figure()

# %% [markdown]
# ## 5. C13: which demonstrations count?
#
# Each is left out once. Two readings that cost no such runs, gradient x input and attention, should
# rank them alike if they are to be trusted; and if late ones weigh more, so should position.

# %%
worth = Influence(k=K, sets=2 if pocket else 3, queries=max(6, QUERIES // 2))(model, pairs)
worth.figure()

# %% [markdown]
# ## Conclusion
#
# Every claim as a difference from its control, with its interval and which way it fell here. The
# sign is the one that the claim predicts; an interval that holds 0 leaves it open.

# %%
ENDS, BEYOND = ["mean", "low", "high"], ["beyond", "beyond_low", "beyond_high"]
repeated = off.row("score", "repeated tokens", "induction")[BEYOND]
said = [("C12", 1, "late - early loss, repeated tokens, induction heads off", *repeated)]
for kind in off.sets:
    lost = off.row("gain of accuracy", pairs.name, kind)[BEYOND]
    said.append(("C12", -1, f"gain of accuracy, {pairs.name}, heads off: {kind}", *lost))
low, high = anchors.windows[0], anchors.windows[-2]
for edges, window in (("labels to all before", low), ("query to labels", high)):
    where = f"{edges}, layers {window[0]} to {window[1] - 1}, blocked"
    said.append(("anchors", -1, where, *anchors.row("gold", edges, window)[BEYOND]))

# %%
for result in (vector, by_heads):
    for row in result.comparisons("said").iloc[1:-1].to_dict("records"):
        what = f"{result.vectors[0]} - {row['against']}"
        said.append(("a task is a vector", 1, what, *(row[end] for end in ENDS)))
rank = worth.agreement().set_index("reading")
for reading, claim in (
    ("position", "C13"),
    ("gradient", "attribution"),
    ("attention", "attribution"),
):
    said.append((claim, 1, f"rank correlation of worth, {reading}", *rank.loc[reading, ENDS]))
words = {1: "supports", 0: "leaves open", -1: "contradicts"}
for claim, sign, what, mean, lower, upper in said:
    fell = sign * (int(lower > 0) - int(upper < 0))
    print(f"{what}: {mean:+.2f} [{lower:+.2f}, {upper:+.2f}] {words[fell]} {claim}")

# %%
SAID = {1: ("loss late - early, nats", "sequences"), -1: ("gain of accuracy", "queries")}
findings, beyond, repeats = [], [], (1, "score", "repeated tokens", "induction")
for sign, measure, on, kind in (repeats, (-1, "gain of accuracy", pairs.name, "all of them")):
    row = off.row(measure, on, kind)
    beyond.append(Estimate(*row[BEYOND], row["n"]))
    fell = sign * (int(row["beyond_low"] > 0) - int(row["beyond_high"] < 0))
    random = row["intact"] + row[["random", "random_low", "random_high"]]
    what, units = SAID[sign]
    findings.append(Finding(
        claim="C12", measured=f"{what}; heads off: {kind} ({row['n_heads']})",
        value=Estimate.from_dict(row), control="as many random heads of the same layers off",
        control_value=Estimate(*random, row["n"]), on=f"{row['n']} {units} of {on}",
        verdict=words[fell if row["n"] >= FEWEST else 0],
        changed_by=f"more {units}: the sign of the difference from random heads, {beyond[-1]:+.2f}",
    ))  # fmt: skip

# %%
place = Estimate(*rank.loc["position", ENDS].clip(-1, 1), int(rank.loc["position", "n"]))
first = average(anchors.attention[..., PARTS.index("first token")].mean(axis=(0, 2, 3)))
goes, blocked = words | {1: "in part"}, anchors.row("gold", "query to first token")
even = 1 / len(anchors.tokens)
findings += [
    Finding(claim="C13", measured="rank correlation of a demonstration's worth with its position",
            value=place, control="no relation", control_value=0.0, on=f"{place.n} queries",
            verdict=words[(int(place.low > 0) - int(place.high < 0)) * (place.n >= FEWEST)],
            changed_by="more queries: an interval above 0 supports it, one below contradicts it"),
    Finding(claim="C19", measured="share of the last token's attention that the first one gets",
            value=first, control="if all got the same", control_value=even, on=f"{first.n} queries",
            verdict=goes[int(first.low > even) - int(first.high < even)],
            changed_by="what blocking it changes, beyond random edges, in P(right label), now "
            f"{blocked['beyond']:+.3f}: a loss would say that something is fetched there"),
]  # fmt: skip

# %% [markdown]
# Asserted: attention is shared out whole, no more random edges are blocked than named ones, and the
# right label is no likelier than all labels together.

# %%
shares = anchors.attention_frame().groupby("layer")["mean"].sum()
assert abs(shares - 1).max() < 1e-3, shares
assert anchors.to_frame().eval("n_random <= n_edges").all()
assert all(math.exp(gold[k].mean) <= depth.at_last("mass", k).mean + 1e-6 for k in depth.ks)
says = [vector.estimate("said", own) for own in (vector.vectors[0], "zero-shot")]
answered(
    model, "10_inside_icl",
    f"Beyond what random heads do, {len(off.sets['induction'][0])} induction head(s) switched off "
    f"make repetition worth {beyond[0]:.2f} nats less, and all heads found change what {K} "
    f"demonstrations gain by {beyond[1]:+.0%} of accuracy; with a task vector instead of them, "
    f"{says[0]:.0%} of labels are said ({says[1]:.0%} with nothing).",
    *findings,
).keep()  # fmt: skip

# %% [markdown]
# **What this does not show.** One or two tasks of one model. A head that is switched off harms
# whatever reads it; where others take over, a head that carries much costs little. A vector that
# works at a late layer may be the answer of the dummy query rather than the task.
#
# **Try.** Another task (`labkit.icl.task_names()`), `HeadAblation(instead="zero")`,
# `TaskVectors(form="add", scales=(1.0, 2.0))`, the same on a model of another size.
