"""Open a language model, find where a fact is stored, correct it, audit the correction.

The path, and where each step lives:

    load           labkit.models      open a model by name; every part named and checked
    predict        labkit.readout     next tokens, logit lens, direct logit attribution
    memories       labkit.memories    FFN neurons as keys and values; who writes this word
    CausalTrace    labkit.locate      which states carry a fact; attribution, neurons, heads
    ROME, audit    editing            change a fact in the weights, and judge the change
    export_hf      editing            carry the edited checkpoint away

Underneath: `labkit.execute` (partial forward runs), `labkit.activations` (read and write
states), `labkit.moments` (statistics of FFN keys), `labkit.tokens`, `labkit.facts`,
`labkit.stats`, `labkit.results`, `labkit.plots`, `labkit.pocket` (a small model of a known
world).

Axes are named everywhere in this order: batch, prompt, pos, layer, head, d_model, d_mlp,
d_head, vocab. A *fact* is (subject, relation prompt, object); a *rewrite* is a fact with a
new object. A *key* is the input of the FFN's output projection at one position; a *value*
is a row that this projection writes into the residual stream.
"""

import importlib
from typing import Any

__version__ = "0.5.0"

_HOMES = {
    "load": "labkit.models",
    "LabModel": "labkit.models",
    "predict": "labkit.readout",
    "logit_lens": "labkit.readout",
    "CausalTrace": "labkit.locate",
    "Fact": "labkit.facts",
    "Rewrite": "labkit.facts",
    "Case": "labkit.facts",
    "bundled_facts": "labkit.facts",
    "known_facts": "labkit.known",
    "capture": "labkit.activations",
    "patched": "labkit.activations",
    "Execution": "labkit.execute",
    "Estimate": "labkit.stats",
    "LabkitError": "labkit.errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a name where it lives, when it is first asked for: `labkit --help` stays quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names that complete behind `labkit.` in a notebook."""
    return sorted({*globals(), *__all__})
