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
# # A tour: find a fact, change it, judge the change
#
# **Question.** A language model says that the Eiffel Tower is in Paris. Can we find where that
# comes from, write Rome there instead, and change nothing else?
#
# The path: load → read → locate → edit → audit → locate again → export. Every step says what
# we expect *before* it is measured, and the edit is judged against two controls. Everything
# happens in memory: at the end the model is bit for bit what it was.
#
# Any causal language model will do; change the line that says `MODEL`. `smollm2-135m` takes two
# minutes; `"pocket"` ships with the package, takes less than half a minute, and asks about a
# landmark of an invented world instead.

# %%
import os
import tempfile
from dataclasses import replace

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from editing import ROME, LowRank, WeightDelta, applied, audit, audit_table, export_hf
from labkit import CausalTrace, Fact, known_facts, load, logit_lens, predict
from labkit.errors import InputError
from labkit.facts.worlds import demo_case_of
from labkit.models.in_effect import fingerprint
from labkit.plots import use_in_notebooks
from labkit.results import Finding, answered
from labkit.stats import generator

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")

use_in_notebooks()
disable_progress_bar()
model = load(MODEL)
model

# %% [markdown]
# ## 1. What does the model say?
#
# A *case* is a rewrite with the prompts that judge it: *paraphrases*, which should change with it;
# *neighbours*, other subjects of the same kind, which should not; and *attribute* prompts about
# subjects that have the new object in truth.

# %%
case = demo_case_of(model)
rewrite = case.rewrite
old, new = rewrite.target_true, rewrite.target_new
fact = Fact(subject=rewrite.subject, template=rewrite.template, object=old)
if not known_facts(model, [fact]):
    needs = "this tour needs a model that does, such as 'smollm2-135m' or 'pocket'"
    raise InputError(f"{model.name} does not know {rewrite.prompt!r} … {old!r}: {needs}")
print(f"{rewrite.prompt} … {old} → {new}, judged by")
print(len(case.paraphrases), "paraphrases and", len(case.neighbours), "neighbours")
predict(model, rewrite.prompt).figure()

# %% [markdown]
# ## 2. When does the answer appear?
#
# The logit lens reads the residual stream after every block as if it were the last.
#
# **Prediction.** Over the subject's tokens the answer is not readable: there the model
# predicts the next word of the sentence. Over the last token it becomes the top word
# somewhere in the upper half, not gradually from the first layer on.

# %%
lens = logit_lens(model, rewrite.prompt, answer=old)
lens.figure()

# %%
lens.figure_at_last()

# %% [markdown]
# The lens shows when the answer can be *read*. A state that reads as something else may hold
# the answer in a form that only later blocks turn into words, so this is no proof of where
# the fact is *kept*. For that we have to intervene.

# %% [markdown]
# ## 3. Which states carry the fact?
#
# Causal tracing (Meng et al. 2022): noise on the subject's tokens destroys the answer; then one
# hidden state at a time is set back to its clean value. What brings the answer back carries
# the fact.
#
# **Prediction.** Two places. The last layers of the last token, which is no news: they are
# about to be read out. And early layers of the *subject*, before attention has moved
# anything to the end of the prompt.

# %%
trace = CausalTrace()(model, fact)
trace.figure()

# %% [markdown]
# One draw of noise can mislead. How much do all of the draws agree on the best state of the
# subject?

# %%
pos, layer = trace.peak()
print(f"what the noise destroys     {trace.total_effect}")
print(f"what the best state returns {trace.indirect_effect(pos, layer)}")
print(f"which is {trace.tokens[pos]!r} after layer {layer} (0 to {model.n_layers - 1})")

# %% [markdown]
# The interval is 95 % over noise draws, for this prompt alone: another prompt is another
# question.
#
# Is it the FFN that adds the fact to that state? The same trace with the outputs of a window
# of FFNs restored, instead of the state itself:

# %%
ffn_trace = CausalTrace(kind="ffn")(model, fact)
print("best window of FFNs:", ffn_trace.indirect_effect(*ffn_trace.peak()))
ffn_trace.figure()

# %% [markdown]
# ## 4. Rewrite it
#
# ROME treats the output projection of one FFN as a memory: a *key* (what the neurons say at
# the subject's last token) is answered with a *value* (what is added to the residual stream).
# It searches for a value that makes the model say the new object, and changes the matrix by
# rank one so that this key gets this value, while keys that usually occur change as little as
# possible.
#
# The layer is a measured preset of the model, not the peak above. The peak does not predict
# where an edit works best (Hase et al. 2023), and it is good to keep the two apart.

# %%
delta = ROME()(model, [rewrite])
delta

# %%
made = pd.Series(delta.provenance).drop(["rewrites", "config"])
made.to_frame("how it was made")

# %% [markdown]
# `delta` is an object of its own: it can be saved, added to others, and applied. The model has
# not changed yet.

# %%
with applied(model, delta):
    edited = predict(model, rewrite.prompt)
print("edited:  ", edited.title)
print("restored:", predict(model, rewrite.prompt).title)

# %% [markdown]
# ## 5. Audit it
#
# That the edited prompt says the new object is the least one can ask. **Prediction.** If the
# fact was changed and not just the sentence, paraphrases follow, neighbours stay, and
# the likelihood of ordinary text does not move.
#
# Three readings of each, which should never be confused: *success* (is the wanted object
# likelier than its rival?), *argmax accuracy* (is it the top word?), *generation* (does a free
# continuation mention it?).
#
# One more kind of prompt is asked: a *distractor* is a neighbour's prompt right after the sentence
# that states the edit ("… is in the city of Rome. The Louvre is in the city of"). Even an unedited
# model is pulled towards the word that it has just read; an edited one often far more, which the
# neighbours alone do not show.

# %%
report = audit(model, delta, case)
print(*report.verdict, sep="\n")

# %% tags=["main"]
report.figure()

# %%
left = {"text-align": "left", "vertical-align": "top"}
report.prompts().style.format(precision=2).hide().set_properties(**left)

# %%
print(f"perplexity of held-out text, before {report.perplexity('before')}")
print(f"                             after  {report.perplexity('after')}")
print(f"change in nats per token            {report.nll_change}")
for opening, text in zip(report.openings, report.written_after, strict=True):
    print(f"\n{opening} → {' '.join(text.split())}")

# %% [markdown]
# ## 6. Controls: would any change have done that?
#
# **Placebo.** The same key is answered with a value whose entries are shuffled: the change
# has the same place, the same rank and exactly the same norm, and means nothing.
#
# **No covariance.** ROME that ignores which keys usually occur, a popular shortcut.
#
# **Prediction.** The placebo does not say the new object. The shortcut does, and pays for it
# at the neighbours, where they have something in common with the subject.

# %%
((weight, change),) = delta.changes.items()
shuffled = torch.randperm(len(change.left), generator=generator(0, "placebo"))
meaningless = LowRank(change.left[shuffled], change.right)
placebo = WeightDelta({weight: meaningless}, delta.base, {"method": "placebo"})
shortcut = ROME(covariance=False)(model, [rewrite])

# %% [markdown]
# All four states side by side: argmax accuracy with the interval over prompts and their number,
# then the price on held-out text.

# %%
brief = replace(case, generation=())  # no free continuations
audits = {
    "ROME": report,
    "placebo": audit(model, placebo, brief, n_tokens=0),
    "no covariance": audit(model, shortcut, brief, n_tokens=0),
}
audit_table(audits)

# %% [markdown]
# Read the rows one by one: an edit took where *efficacy* is 1; it was understood where *paraphrase*
# follows, and by argmax often not even half of them do; and what it broke shows under
# *neighbourhood* and *distractor*, against the unedited row.
#
# Look at the widths before believing a difference, and before believing that there is none:
# where ROME and its shortcut agree, one case was not enough to tell them apart.
# `labkit evaluate` asks the same of many facts.

# %% [markdown]
# ## 7. Locate it again
#
# ROME wrote at the subject's last token, in one layer. **Prediction.** If facts are kept where
# they can be written, the state there brings back the old object in the unedited model and
# the new object in the edited one.

# %%
new_fact = replace(fact, object=new)
with applied(model, delta):
    new_trace = CausalTrace()(model, new_fact)
here = trace.subject_positions[-1], delta.provenance["config"]["layer"]
print(f"old object, unedited model: {trace.indirect_effect(*here)}")
print(f"new object, edited model:   {new_trace.indirect_effect(*here)}")
new_trace.figure()

# %% [markdown]
# Where the two numbers do not agree, the prediction has failed, and the edit did not correct a
# memory in its place. If only the second is far from zero, it put a new one where there was
# none. An edit that works is no evidence of where the fact was stored.

# %% [markdown]
# ## 8. Take it away
#
# `export_hf` writes a checkpoint that plain `transformers` opens, with a card that says what was
# changed and what the audit found. Here it goes to a temporary folder; give it a folder of
# yours to keep it.

# %%
with tempfile.TemporaryDirectory() as folder:
    export_hf(model, delta, folder, audit=report.metrics())
    exported = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer(rewrite.prompt, return_tensors="pt").input_ids
says = tokenizer.decode(exported(ids).logits[0, -1].argmax()).strip()
print(f"{rewrite.prompt} … {says}")

# %% [markdown]
# ## Conclusion
#
# What this notebook claims, as assertions: the model knew the fact and some state of its subject
# carried it; the rewrite took, the placebo did not; at least four in five neighbours that were
# right stayed right; the checkpoint says the same; and the model in memory is untouched.

# %%
follow, by_placebo = (
    audits[name].estimate("after", "accuracy", "paraphrase") for name in ("ROME", "placebo")
)
overwritten = Finding(
    claim="C6",
    measured="Paraphrases that say the new object after ROME, in one matrix",
    value=follow,
    control="after a placebo of the same place, rank and norm",
    control_value=by_placebo,
    on=f"1 fact, {follow.n} paraphrases; the interval is over these",
    verdict="in part" if follow.n >= 6 and follow.low > by_placebo.high else "leaves open",
    changed_by="As much over many facts, and written where the trace finds the fact.",
)

# %%
assert lens.settled is not None and trace.indirect_effect(pos, layer).low > 0
took = {k: a.estimate("after", "accuracy", "efficacy").mean for k, a in audits.items()}
assert took["ROME"] == 1 and took["placebo"] == 0, took
right = {s: report.estimate(s, "success", "neighbourhood") for s in ("before", "after")}
assert right["after"].mean >= 0.8 * right["before"].mean, right
assert new.startswith(says), says
assert fingerprint(model.hf, model.tokenizer) == model.fingerprint
kept, was = (report.estimate(s, "accuracy", "neighbourhood") for s in ("after", "before"))
answered(
    model,
    "00_tour",
    f"Rewritten to {new}, {follow:.0%} of the paraphrases follow; a placebo moves "
    f"{by_placebo:.0%}. Neighbours that are right: {was:.0%} before, {kept:.0%} after.",
    overwritten,
).keep()

# %% [markdown]
# **What this does not show.** One fact, one model, one run: that the rewrite took says nothing
# about the next fact. Consequences were not edited (which country is the tower in now?).
# And a state that is *sufficient* to bring an answer back need not be where it is stored.
#
# **Try.** `"pocket"` as the model; another `layer=` for ROME; a rewrite of your own,
# `Rewrite.from_fact(Fact.from_prompt(prompt, subject), "new object")`.
