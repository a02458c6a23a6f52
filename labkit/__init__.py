"""Open a language model, find where a fact is stored, correct it, audit the correction.

The path, and where each step lives:

    load           labkit.models      open a model by name; every part named and checked
    predict        labkit.readout     next tokens, logit lens; beside it labkit.direct_attribution
    memories       labkit.memories    FFN neurons as keys and values; who writes this word
    CausalTrace    labkit.locate      which states carry a fact; attribution, neurons, heads
    ROME, audit    editing            change a fact in the weights, and judge the change
    export_hf      editing            carry the edited checkpoint away

One fact of your own, from one end to the other; `help(case_of)` says more of each:

    from labkit import CausalTrace, Rewrite, case_of, load, predict
    from editing import ROME, applied, audit, compare_methods

    model = load("smollm2-135m")       # `labkit models` lists names; folders and hub ids too
    predict(model, "The Louvre is in the city of")
    rewrite = Rewrite.from_prompt("The Louvre is in the city of", "Louvre", "Rome", "Paris")
    case = case_of(model, rewrite, neighbours=["The Prado is in the city of"])
    compare_methods(model, {"at 3": ROME(layer=3), "at 5": ROME(layer=5)}, [case]).wide()

Beside it `labkit.icl`, what demonstrations in a prompt do, and `probes`, what can be read off
every layer. Underneath: `labkit.running` (partial forward runs, states read and written),
`labkit.facts`, `labkit.text`, `labkit.tokens`, `labkit.stats`, `labkit.results`,
`labkit.plots`, and `labkit.pocket`, a small model of a known world.

Axes are named everywhere in this order: batch, prompt, pos, layer, head, d_model, d_mlp,
d_head, vocab. A *fact* is (subject, relation prompt, object); a *rewrite* is a fact with a
new object. A *key* is the input of the FFN's output projection at one position; a *value*
is a row that this projection writes into the residual stream.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.direct_attribution import direct_logit_attribution
    from labkit.errors import LabkitError
    from labkit.facts.bundled import bundled_facts
    from labkit.facts.fact import Case, Fact, Neighbour, Rewrite
    from labkit.facts.known import known_facts
    from labkit.facts.own_cases import case_of
    from labkit.facts.worlds import World, facts_of, world_of
    from labkit.locate.traces.tracing import CausalTrace
    from labkit.models.loading import load
    from labkit.models.model import LabModel
    from labkit.plots.output import use_in_notebooks
    from labkit.readout import logit_lens, predict
    from labkit.running.activations import capture, patched, run_with_cache
    from labkit.running.execute import Execution
    from labkit.stats import Estimate
    from labkit.text.corpus import Corpus

__version__ = "0.6.0"

__getattr__, __dir__, __all__ = door(__name__, __file__)
