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
# # Where is a fact? One, then a hundred, by four methods
#
# **Question.** "A given fact can be located in particular FFN nodes" (claim C6 of the surveys
# that this lab puts to the test). Which states of this model carry its facts, which neurons hold
# them, which path takes them to the answer, and do the methods that say so agree?
#
# The hypothesis of Meng et al. (2022): an *early site*, FFNs of middle layers at the subject's last
# token, recalls the fact; a *late site*, attention at the last token, fetches it.
#
# On `smollm2-135m` this notebook takes three quarters of an hour on one core; the hundred traces
# are kept as they finish, in a folder `runs` beside it, and a second run goes on from there.
# `"pocket"` takes half a minute, and of that model we know what it was taught.

# %%
import os
from dataclasses import replace

import numpy as np

from editing import sweep_layers
from labkit import CausalTrace, load
from labkit.facts.cases import make_case
from labkit.facts.fact import Fact
from labkit.facts.known import known_sample
from labkit.facts.worlds import demo_case_of, facts_of
from labkit.locate import (
    AttentionKnockout,
    AttributionPatching,
    KnowledgeNeurons,
    PairTrace,
    attention_patterns,
    average_knockouts,
    average_traces,
    compare,
    compare_severed,
    neuron_tests,
)
from labkit.plots import use_in_notebooks
from labkit.results import Finding, answered
from labkit.results.result import RunDirectory
from labkit.stats import paired_difference

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")

use_in_notebooks()
model = load(MODEL)
facts = known_sample(model, 100).facts  # that it knows, spread over relations
print(len(facts), "facts of", len({fact.relation for fact in facts}), "relations")

# %% [markdown]
# ## 1. One fact
#
# Noise on the subject destroys the answer; one state at a time is set back. Hidden states, then
# windows of FFN outputs, then of attention outputs, on one colour axis.

# %%
rewrite = demo_case_of(model).rewrite
fact = Fact(subject=rewrite.subject, template=rewrite.template, object=rewrite.target_true)
trace = CausalTrace()(model, fact)
by_ffn, by_attn = (CausalTrace(kind=kind)(model, fact) for kind in ("ffn", "attn"))
trace.figure(by_ffn, by_attn)

# %% [markdown]
# Noise puts a model into states that never occur. The same question with an ordinary prompt in
# place of noise: states of this prompt patched into that of *another* subject. (The partner has as
# many tokens, in the same places, and another answer.)

# %%
spans = {
    f: model.span(f.prompt, f.subject) for f in facts_of(model) if f.relation == "landmark_city"
}
here, n_tokens = model.span(fact.prompt, fact.subject), len(model.ids(fact.prompt))
alike = [replace(f, template=fact.template) for f in spans if f.object != fact.object]
alike = [f for f in alike if len(model.ids(f.prompt)) == n_tokens]
partner = next(f for f in alike if model.span(f.prompt, f.subject) == here)
print(f"{fact.prompt} {fact.object} / {partner.prompt} {partner.object}")
PairTrace()(model, fact, partner).figure()

# %% [markdown]
# ## 2. The same grid from one backward pass
#
# Attribution patching replaces each intervention by its first-order estimate: clean minus
# corrupted state, times the gradient. It costs a hundredth. Does it say the same?

# %%
attribution = AttributionPatching()(model, fact)
agreed = attribution.agreement(trace)
print(agreed.title)
agreed.figure()

# %% [markdown]
# ## 3. A hundred facts
#
# One prompt is an anecdote. Aligned on what each token is to its fact (first, middle, last
# token of the subject, what follows, the last token), with bands over facts.
#
# **Prediction** (Meng et al.). The mean effect at the *last subject token* rises to a peak in the
# lower middle layers; the last token takes over in the upper ones.

# %% tags=["main"]
settings = {"notebook": "03_locate", "facts": [f.prompt for f in facts]}
run = RunDirectory.create(f"runs/traces-{model.name}", settings, model, resume=True)
average = average_traces(model, facts, run=run)
average.figure()

# %%
average.heatmap()

# %%
average.sites().round(2)

# %% [markdown]
# Read the quartiles beside the mean. Where single facts peak all over the model, the mean
# curve's peak is a fact about the average and about no fact in it.

# %% [markdown]
# ## 4. Through the FFN?
#
# Restore the subject's state, but hold the FFNs at that token as they were under noise, in all
# later layers: what the restored state can then still do does not pass through them. The same
# for attention. The gap to the plain trace is what the held path was needed for.

# %%
last_subject = CausalTrace(roles=("last subject token",), samples=5)
few = facts[:20]
plain = average_traces(model, few, last_subject)
severed = [average_traces(model, few, replace(last_subject, severed=p)) for p in ("ffn", "attn")]
paths = compare_severed(plain, *severed)
paths.figure()

# %% [markdown]
# ## 5. Neurons
#
# Knowledge neurons (Dai et al. 2022): integrated gradients of P(answer) along the activations of
# each FFN, kept where the fact's paraphrases agree. The test: switch exactly these off.
#
# **Prediction.** This fact suffers, random neurons do nothing, and *other facts of the same
# relation* stay. The last is the one to watch: only it tells neurons of a fact from neurons
# that every answer of this kind needs.

# %%
asked = next(f for f in facts if len(f.paraphrases) >= 3)
kin = [f for f in facts_of(model) if f.relation == asked.relation and f.object != asked.object]
neurons = KnowledgeNeurons()(model, asked)
neurons.figure()

# %%
test = neurons.test(model, kin[:10])
test.figure()

# %% [markdown]
# One fact is an anecdote here too. The same for several facts, of as many relations; a point on
# the dashed line has neurons that its whole relation needs, one on the left edge at height 0 has
# neurons of its own. **Prediction (C6).** Facts lie at the left edge, near 0.

# %%
several = {f.relation: f for f in facts if len(f.paraphrases) >= 3}.values()
many = neuron_tests(model, list(several)[:8], facts_of(model))
many.figure()

# %% [markdown]
# ## 6. The way to the answer
#
# Attention from the last token to the subject is blocked in a window of layers (Geva et al.
# 2023); the control blocks as many random other tokens.

# %%
knocked = average_knockouts(model, facts[:12])
knocked.figure()

# %%
knocked.figure_heads()

# %% [markdown]
# Where do heads look in the first prompt? Every tile is a head; the sliders pick a layer and a
# head, and the tooltip names query, key and weight.

# %%
attention_patterns(model, fact.prompt).figure()

# %% [markdown]
# ## 7. Do they agree, and does it tell where to edit?
#
# Each method as a profile over layers; rank correlations on the same fact above the diagonal, and
# below it the control: against *another* fact's profile. What the control shares is a preference
# for certain layers. Beside them, where ROME's edits succeed.

# %%
every = range(0, model.n_layers, max(1, model.n_layers // 6))
cases = []
for one in facts[:5]:
    kind = [f for f in facts_of(model) if f.relation == one.relation]
    new = next(f.object for f in kind if f.object not in one.answers)
    cases.append(make_case(one, kind, new, seed=0))
sweep = sweep_layers(model, cases, every)
sweep.figure()

# %%
methods = {
    "trace of states": CausalTrace(samples=5),
    "trace of FFNs": CausalTrace(kind="ffn", samples=5),
    "attribution": AttributionPatching(samples=5),
    "knowledge neurons": KnowledgeNeurons(positions="subject", steps=10),
    "attention blocked": AttentionKnockout(draws=1),
}
found = compare(model, facts[:8], methods, sweeps={"edit success": sweep.by_layer()})
found.figure()

# %%
found.figure_profiles()

# %%
found.methods_frame().round(2)

# %% [markdown]
# ## Conclusion

# %%
site = average.early_site("last subject token")
own, random, others = (
    many.change(group) for group in ("this fact", "random neurons", "other facts")
)
in_part = "in part" if own.n >= 6 and many.own.low > 0 else "leaves open"
neurons_off = Finding(
    claim="C6",
    measured=f"Change of P(answer), knowledge neurons off (random ones: {random.mean:z.1%})",
    value=own,
    control="of other facts of its relation, with the same neurons off",
    control_value=others,
    on=f"{own.n} facts of as many relations",
    verdict="supports" if own.high < -0.5 < others.low else in_part,
    changed_by="It turns on whether the fact loses most of its own, and others keep theirs.",
)

# %%
restored, *held = np.nanmean(paths.effects, axis=(2, 3))  # by fact, mean over layers
of_ffn, of_attn = (paired_difference(restored, without)[0] for without in held)
path = Finding(
    claim="C4",
    measured="P(answer) that a state returns only through the FFNs above it, mean over layers",
    value=of_ffn,
    control="only through the attention above it",
    control_value=of_attn,
    on=f"{of_ffn.n} facts, last token of the subject",
    verdict="in part" if of_ffn.n >= 6 and of_ffn.low > of_attn.high else "leaves open",
    changed_by="It turns on which of the two is needed more; to be needed is not yet to hold.",
)

# %% [markdown]
# On `smollm2-135m`, 100 known facts of 41 relations:
#
# - There is an early site in the mean. Noise takes 0.41 from P(answer); restoring the last subject
#   token after layer 9 gives 0.28 [0.24, 0.34] back, the first subject token 0.08, what follows
#   the subject next to nothing. The late site is where it must be.
# - It is wide. Half of the facts peak between layers 2 and 11, the rest outside: "layer 9" is true
#   of the mean. Single prompts can go another way altogether: the Eiffel Tower of part 1 is
#   carried by "iffel", not by "Tower".
# - It needs the FFNs above it: with those held, what layer 4 restores falls from 0.28 to 0.06, and
#   the gap closes by layer 20. Holding attention costs a tenth of that. So far the hypothesis.
# - The fact is fetched around layer 22: blocking the subject there costs 78 % of P(answer), random
#   tokens 10 %, and two heads do much of it, L23H4 (37 %) and L23H5 (23 %).
# - Whose the knowledge neurons are differs from fact to fact. Over eight facts of as many
#   relations, switching them off takes 77 % of the fact's own P(answer) on average and 64 % of that
#   of other facts of the relation, random neurons nothing. The spread is the result: others lose
#   3 % (of Afghanistan's demonym, one neuron) to 100 % (of Tennessee's capital, 14). C6 as claimed
#   ("particular FFN nodes of a fact") holds for none of them fully: where only the fact is hit, it
#   is hit weakly.
# - Attribution agrees with the trace on the same fact hardly more than with another fact's: most
#   of that agreement is a liking for layers. And ROME succeeds wherever it was tried up to layer
#   10, layer 0 included, where nothing peaks; above, paraphrases fall away.
#
# Asserted: noise destroys these answers; restoring the last token in the last layer brings all
# of it back, by construction; some state of the subject brings a part back, with an interval
# above zero; blocking the subject costs more than blocking random tokens.

# %%
assert average.total_effect.low > 0 and site.effect.low > 0
assert abs(average.share_recovered("last token", model.n_layers - 1).mean - 1) < 1e-3
curves = knocked.to_frame().pivot(index="layer", columns="source", values="mean")
assert curves["subject"].min() < curves["random other tokens"].min()
pair = "trace of states", "attribution"
same, another = (found.correlation(*pair, shift=shift) for shift in (0, 1))
answered(
    model,
    "03_locate",
    f"In the mean of {len(facts)} facts the subject's last token, restored after layer "
    f"{site.layer}, gives {site.effect:.2f} of P(answer) back; trace and attribution correlate "
    f"by {same:.2f} on a fact, by {another:.2f} on different facts.",
    neurons_off,
    path,
).keep()

# %% [markdown]
# **What this does not show.** A state that *suffices* to bring an answer back need not be where
# the fact is stored, nor where it can be changed (Hase et al. 2023): look at the last figure
# before choosing a layer to edit. The paper's early site is a claim about GPT-2 XL and GPT-J;
# the curves above are this model's.
#
# **Try.** A relation of your own, `[f for f in facts if f.relation == "country_capital"]`; severed
# traces at the *first* subject token; `window=1` for FFN traces.
