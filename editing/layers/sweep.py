"""Which layer can be edited: screened by keys, then found by editing.

Where a causal trace peaks is not where an edit succeeds (Hase et al. 2023), so the layer of an
edit is found by editing. Edits are slow, and so the layers are screened first
(`editing.layers.screening`): those whose edits would reach paraphrases and leave neighbours alone
are candidates, and the same rewrites are then made at each of them. What was found is a `Preset`
with its evidence. Set beside locating methods by `labkit.locate.agreement`.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from editing.evaluation.many_cases import evaluate
from editing.evaluation.options import EvaluationOptions
from editing.evaluation.several_methods import describe
from editing.layers.screening import ScreeningOptions, screen
from editing.layers.sweep_result import SCREENING, LayerSweep
from editing.layers.tuning_cases import known_cases
from editing.methods.closed_form.keys import contexts
from editing.methods.closed_form.rome import ROME
from editing.presets.preset_files import write_preset
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.fact import Case
from labkit.models.model import LabModel
from labkit.progress import Progress, onwards, part_of
from labkit.results.measured import measured_on
from labkit.results.result import RunDirectory
from labkit.text.corpus import Corpus, corpus_of

CASES = 20
"""Facts that the model knows, rewritten at every candidate: enough to tell layers apart."""

CANDIDATES = 4
"""Layers that are edited after the screening of all."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep goes about it.

        sweep_layers(model, cases, how=SweepOptions(n_candidates=6, keep=True))

    Attributes:
        n_candidates: How many of the layers to edit, those with the widest margins in the
            screening. By default all that were named, or 4 if none were.
        keep: Whether to write the preset that every later edit of this model goes by
            (`editing.presets.preset_files`); by default not.
        seed: Seed of the drawn cases and contexts, and of the intervals; by default 0.
        corpus: The text behind contexts and second moments; by default the model's own.

    Raises:
        InputError: If there is no candidate.
    """

    n_candidates: int | None = None
    keep: bool = False
    seed: int = 0
    corpus: Corpus | None = None

    def __post_init__(self) -> None:
        """Refuse a sweep of nothing."""
        if self.n_candidates is not None and self.n_candidates < 1:
            raise InputError(f"n_candidates {self.n_candidates}: a sweep edits one layer at least")


USUAL = SweepOptions()
"""The four most promising layers, and no preset written."""


@checked
def sweep_layers(
    model: LabModel,
    cases: Sequence[Case] | None = None,
    layers: Sequence[int] | None = None,
    method: Any = None,
    how: SweepOptions = USUAL,
    *,
    run: str | Path | None = None,
    progress: Progress | None = None,
) -> LayerSweep:
    """Edit every case at every one of some layers.

    Args:
        model: The model; it is restored afterwards.
        cases: The cases; by default 20 rewrites of facts that the model knows.
        layers: Which layers; by default all.
        method: The editor, whose own layer is overruled; ROME by default.
        how: How many layers to edit, whether to keep the preset, seed and text, as
            `SweepOptions` lists them.
        run: A folder for a run directory per layer: a killed sweep of the same cases resumes
            there.
        progress: Called as layers are screened, and before each edit.

    Raises:
        InputError: If these are no lists, there are no cases or no layers, or the method has no
            layer.
        LayerOutOfRange: For a layer that the model does not have.
        OutputError: If the folder holds something else, or a preset cannot be written.
    """
    if isinstance(layers, int) or isinstance(cases, Case):
        raise InputError("cases and layers are lists: sweep_layers(model, [case], [2, 3])")
    progress = onwards(progress)
    asked = range(model.n_layers) if layers is None else layers
    screened = sorted({model.layer(layer) for layer in asked})
    if not screened:
        raise InputError("a sweep needs at least one layer")
    method = ROME() if method is None else method
    at_layer(method, screened[0])
    if cases is None:
        cases = known_cases(model, CASES, seed=how.seed, progress=part_of(progress, 0.0, 0.05))
    if not cases:
        raise InputError("a sweep needs at least one case")
    if not any(c.paraphrases for c in cases) or not any(c.neighbours for c in cases):
        raise InputError(
            "a sweep compares layers by paraphrases and neighbours: no case has any of the one "
            "or of the other"
        )
    text = how.corpus or corpus_of(model, progress=part_of(progress, 0.05, 0.05))
    found = screen(
        model,
        cases,
        screened,
        contexts(text, getattr(method, "n_contexts", 1), seed=how.seed),
        ScreeningOptions(
            bare_weight=getattr(method, "bare_weight", 0.0),
            facts_share=getattr(method, "facts_share", 0.0),
            corpus=how.corpus,
        ),
        progress=part_of(progress, 0.1, 0.25),
    )
    n_candidates = how.n_candidates or (CANDIDATES if layers is None else len(screened))
    candidates = _widest(found, screened, n_candidates)
    judged = EvaluationOptions(n_tokens=0, seed=how.seed, corpus=how.corpus)
    unedited = judged.unedited(model, cases)

    def config(editor: Any) -> dict[str, Any]:
        return {"command": "sweep", **describe(editor), **judged.record(model, cases)}

    frames = [found.assign(state=SCREENING, reading=SCREENING)]
    kept: Any = nullcontext()
    if run is not None:
        kept = RunDirectory.session(run, config(method), model, resume=True)
    with kept:
        for number, layer in enumerate(candidates):
            size = 0.65 / len(candidates)
            told = part_of(progress, 0.35 + number * size, size, f"layer {layer}, ")
            editor = at_layer(method, layer)
            place = None
            if run is not None:
                folder = Path(run) / f"layer-{layer:03d}"
                place = RunDirectory.create(folder, config(editor), model, resume=True)
            read = evaluate(
                model, editor, cases, judged, unedited=unedited, run=place, progress=told
            )
            frames.append(read.to_frame().assign(layer=layer))
    sweep = LayerSweep(
        table=pd.concat(frames, ignore_index=True),
        method=type(method).__name__,
        n_layers=model.n_layers,
        n_cases=len(cases),
        **measured_on(model),
    )
    if how.keep:
        write_preset(model, sweep.method.lower(), sweep.preset())
    return sweep


def at_layer(method: Any, layer: int) -> Any:
    """The same editor at one layer, whatever it would have edited.

    Raises:
        InputError: If it edits no layer in particular.
    """
    names = {f.name for f in fields(method)} if is_dataclass(method) else set()
    if "layer" in names:
        return replace(method, layer=layer)
    if "layers" in names:
        return replace(method, layers=(layer,))
    raise InputError(f"{type(method).__name__} has no layer to sweep")


def _widest(found: pd.DataFrame, layers: Sequence[int], n: int) -> list[int]:
    """The layers with the widest margins, ascending; the lowest where there is no margin."""
    margins = found[found["metric"] == "margin"].set_index("layer")["mean"]
    order = sorted(layers, key=lambda layer: (-margins.get(layer, -np.inf), layer))
    return sorted(order[:n])
