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
# # What does a correction cost?
#
# **Question.** A model says something wrong. Fine-tuning corrects it, and so does an edit. What
# follows from the correction, and what is lost for it?
#
# Claim C8 of the surveys: fine-tuning corrects facts at the price of forgetting others (Zhu et
# al. 2020). Here fine-tuning, free and within a ball, LoRA, knowledge-neuron editing, ROME and a
# sentence in front of the prompt make the same corrections, and are judged by the same readings.
#
# `"pocket"`, which ships with the package, takes a minute.

# %%
import os

import pandas as pd

from editing import (
    METHODS,
    ROME,
    EvaluationOptions,
    SideEffects,
    applied,
    compare_methods,
    known_cases,
)
from labkit import Rewrite, load, predict
from labkit.facts.worlds import chains_of, demo_case_of
from labkit.plots import use_in_notebooks
from labkit.results import Finding, answered
from labkit.results.claims import FEWEST

# %%
# Or "pocket", a folder in transformers' format, a hub id.
MODEL = os.environ.get("LABKIT_MODEL", "smollm2-135m")
N = int(os.environ.get("LABKIT_N", "6"))  # cases; the more, the narrower the intervals

use_in_notebooks()
model = load(MODEL)

# %% [markdown]
# ## 1. A fact that the model gets wrong
#
# SmolLM2 does not know what LeBron James plays. (The pocket model knows all of its world, so there
# a right fact is made wrong instead.)
#
# **Prediction.** After a correction the model says the new answer after a wording that it was
# never corrected on.

# %%
rewrite = Rewrite.from_prompt("LeBron James plays the sport of", "LeBron James", "basketball")
other = "LeBron James is famous for playing"
if MODEL == "pocket":
    rewrite, other = demo_case_of(model).rewrite, demo_case_of(model).paraphrases[0]
delta = ROME()(model, [rewrite])
before = [predict(model, prompt).title for prompt in (rewrite.prompt, other)]
with applied(model, delta):
    after = [predict(model, prompt).title for prompt in (rewrite.prompt, other)]
pd.DataFrame({"before": before, "after": after})

# %% [markdown]
# ## 2. The same corrections by six methods
#
# Each case is edited alone, read, and undone. Beside the usual readings:
#
# - **what follows**: the consequences of the new fact, one and two steps away, other names of the
#   subject, the reversed relation, the negated one. A mirrored question, whose answer should not
#   have changed, is the control;
# - **what is lost**: known facts of unrelated relations, minimal pairs of grammar, held-out text,
#   the variety of free text.
#
# **Prediction (C8).** Fine-tuning without a bound reaches its targets and costs most elsewhere; the
# ball buys back a part; ROME costs least of those that change weights.

# %% tags=["main"]
cases = known_cases(model, N)
names = ("rome", "ft", "ft_constrained", "lora", "kn", "in_context")
found = compare_methods(
    model,
    {name: METHODS[name]() for name in names},
    cases,
    EvaluationOptions(n_tokens=0, side_effects=SideEffects.quick(), chains=chains_of(model)),
)
found.figure()

# %%
wide = found.wide()
wide.loc[["success"]]

# %% [markdown]
# ## 3. The bill
#
# Everything that is not about the edited facts. Intervals are over cases.

# %%
wide.drop(["success", "argmax accuracy"], level="reading")

# %% [markdown]
# ## 4. Are the differences real?
#
# The same cases went through every method: paired permutation tests, corrected for their number
# (Holm). With few cases hardly any difference survives that, which is a statement about the
# number of cases and not about the methods.

# %%
tests = found.tests
with_rome = tests[(tests["first"] == "rome") | (tests["second"] == "rome")]
with_rome.sort_values("p_holm").head(12)

# %% [markdown]
# **Conclusion.** Whether C8 holds on this model stands in the rows of section 3: compare the facts
# lost, and the nats per token, of `ft` with those of `rome`. What follows from a new fact mostly
# does not follow for the edited model: an edit changes what is said after prompts like its own.

# %%
reached = {name: found.estimate(name, "success", "efficacy") for name in found.methods}
print({name: str(estimate) for name, estimate in reached.items()})
facts, nats = ("side effects", "facts"), ("text", "change, nats per token")
lost = {name: found.estimate(name, *facts) for name in ("unedited", "ft", "rome")}
cost = {name: found.estimate(name, *nats) for name in ("ft", "rome")}
before = found.estimate("unedited", "success", "efficacy")
took = found.n_cases >= FEWEST and reached["ft"].low > before.high
on = f"{found.n_cases} facts that the model knows, each corrected alone"

# %%
forgets = Finding(
    claim="C8", measured="share of known facts of unrelated relations that are still said after "
    "fine-tuning", value=lost["ft"], control="unedited", control_value=lost["unedited"], on=on,
    verdict="supports" if took and lost["ft"].high < lost["unedited"].mean else "leaves open",
    changed_by="more cases: an interval below the control supports it",
)  # fmt: skip
costs = Finding(
    claim="C8", measured="loss on held-out text after fine-tuning less that before, nats per token",
    value=cost["ft"], control="the same facts by ROME", control_value=cost["rome"], on=on,
    verdict="supports" if took and cost["ft"].low > max(cost["rome"].high, 0) else "leaves open",
    changed_by="more cases: an interval above 0 and above ROME's supports it",
)  # fmt: skip

# %%
hops = [found.estimate(name, "success", "one-hop") for name in ("rome", "unedited")]
says = "{0:.0%} is likelier than what followed before (unedited {1:.0%})".format
follows = says(*hops) if all(hops) else "none could be asked"
assert reached["rome"].mean >= 0.8, "ROME did not make its own facts true"
spared = found.estimate("rome", "success", "neighbourhood").mean
unedited = found.estimate("unedited", "success", "neighbourhood").mean
assert unedited - spared < 0.15, "ROME cost its neighbours too much"
answered(
    model, "07_side_effects",
    f"Fine-tuning corrects {reached['ft']:.0%} of {found.n_cases} facts and keeps "
    f"{lost['ft']:.1%} of unrelated ones, ROME {reached['rome']:.0%} and "
    f"{lost['rome']:.1%}; of what follows from ROME's facts one step on, {follows}.",
    forgets, costs,
).keep()  # fmt: skip
