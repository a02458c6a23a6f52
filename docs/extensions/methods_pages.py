"""One page per method: what it computes, what that shows, its fields, papers and measured rows.

`METHODS_BY_PART` is the one list of methods. Everything else on a page comes from the docstrings of
the method and of its module, from the command line, the notebooks, and `docs/measured/*.csv`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from method_page import index_row, page
from sphinx.application import Sphinx
from written import write


class Method(NamedTuple):
    """A method: where it lives, and what no docstring can know.

    Attributes:
        home: Full name of the class or function.
        command: A command that runs it; empty where it is called from Python alone.
        claims: Numbers of the claims that it bears on.
        explained: A further module whose docstring explains it, such as the one with an equation.
    """

    home: str
    command: str = ""
    claims: str = ""
    explained: str = ""


EIFFEL = '--prompt "The Eiffel Tower is located in the city of" --subject "Eiffel Tower"'
FEW = "--rewrites rewrites.jsonl --out delta"
EDITS = "editing.methods"
TRACES = "labkit.locate.traces"
HEADS = "labkit.locate.attention"
BEHAVIOUR = "labkit.icl.behaviour"
INSIDE = "labkit.icl.inside"
IMPLICIT = "labkit.icl.implicit"

METHODS_BY_PART: dict[str, dict[str, Method]] = {
    "Editing": {
        "ROME": Method(
            f"{EDITS}.closed_form.rome.ROME",
            f"labkit edit --method rome {EIFFEL} --target Rome --out delta",
            "C6",
            f"{EDITS}.closed_form.values",
        ),
        "EMMET": Method(
            f"{EDITS}.closed_form.emmet.EMMET",
            f"labkit edit --method emmet {FEW}",
            "C6",
            f"{EDITS}.closed_form.solve",
        ),
        "MEMIT and BLUE": Method(
            f"{EDITS}.closed_form.memit.MEMIT",
            f"labkit edit --method memit {FEW}",
            "C6 C20",
            f"{EDITS}.closed_form.spreading",
        ),
        "PMET": Method(
            f"{EDITS}.closed_form.pmet.PMET",
            f"labkit edit --method pmet {FEW}",
            "C6",
            f"{EDITS}.closed_form.spreading",
        ),
        "AlphaEdit": Method(
            f"{EDITS}.closed_form.alphaedit.AlphaEdit",
            f"labkit edit --method alphaedit {FEW}",
            "C6 C20",
            f"{EDITS}.closed_form.solve",
        ),
        "Knowledge-neuron editing": Method(
            f"{EDITS}.neuron_editing.KnowledgeNeuronEditing",
            f"labkit edit --method kn {EIFFEL} --target Rome --out delta",
            "C6",
        ),
        "Fine-tuning": Method(
            f"{EDITS}.tuning.fine_tuning.FineTuning", f"labkit edit --method ft {FEW}", "C8"
        ),
        "LoRA": Method(f"{EDITS}.tuning.lora.LoRA", f"labkit edit --method lora {FEW}", "C8"),
        "In-context editing": Method(
            f"{EDITS}.in_context.InContext",
            "labkit evaluate --method in_context --cases cases.json --limit 30",
            "C22",
        ),
        "Second moments": Method("labkit.text.moments.second_moments"),
        "Side effects": Method(
            "editing.readings.side_effects.SideEffects",
            "labkit evaluate --method rome --cases cases.json --side-effects",
            "C8",
        ),
    },
    "Locating": {
        "Causal trace": Method(f"{TRACES}.tracing.CausalTrace", f"labkit trace {EIFFEL}", "C6"),
        "Severed trace": Method(
            f"{TRACES}.severing.compare_severed", f"labkit trace {EIFFEL} --severed ffn", "C4 C6"
        ),
        "Averaged trace": Method(
            f"{TRACES}.averages.average_traces", "labkit trace --facts facts.jsonl", "C2 C6"
        ),
        "Patching between two prompts": Method(f"{TRACES}.patching.PairTrace", "", "C6"),
        "Attribution patching": Method(
            "labkit.locate.attributions.attribution.AttributionPatching", "", "C6"
        ),
        "Attribution between prompts": Method("labkit.locate.attributions.pairs.attribution_pairs"),
        "Knowledge neurons": Method(
            "labkit.locate.neurons.knowledge.KnowledgeNeurons", f"labkit neurons {EIFFEL}", "C6"
        ),
        "Agreement of methods": Method("labkit.locate.agreement.compare", "", "C6"),
        "Attention knock-out": Method(f"{HEADS}.knockout.AttentionKnockout", "", "C4"),
        "Heads of a fact": Method(f"{HEADS}.heads.head_report", "", "C4"),
        "Induction heads": Method(f"{HEADS}.head_kinds.head_scores", "", "C12"),
        "Attention patterns": Method(f"{HEADS}.patterns.attention_patterns", "", "C19"),
        "Logit lens": Method("labkit.readout.logit_lens", "", "C2"),
        "Direct logit attribution": Method("labkit.direct_attribution.direct_logit_attribution"),
    },
    "Memories": {
        "Triggers of keys": Method("labkit.memories.trigger_search.find_triggers", "", "C5"),
        "Patterns of triggers": Method("labkit.memories.recurrence.patterns", "", "C5"),
        "Values as words": Method(
            "labkit.memories.values.words_of", "labkit memories neuron 25 1120", "C5"
        ),
        "Writers of a word": Method(
            "labkit.memories.writing.writers", 'labkit memories writers " Paris"', "C5"
        ),
        "Agreement of key and value": Method("labkit.memories.concordance.agreement", "", "C5"),
        "Contributions to an answer": Method(
            "labkit.memories.composition.contributions",
            'labkit memories contributions "The Eiffel Tower is located in the city of"',
            "C4 C5",
        ),
        "Neurons switched off": Method("labkit.memories.switching.switched", "", "C24"),
    },
    "Probing": {
        "Probes with their controls": Method(
            "probes.probing.by_depth.probe",
            "labkit probe --task upos --data train.conllu --test test.conllu",
            "C1 C2 C17",
            "probes.probing.controls",
        ),
        "Minimum description length": Method("probes.probing.description_length.online_code"),
        "Structural probe": Method("probes.trees.structural.StructuralProbe", "", "C1"),
        "Trees at every depth": Method(
            "probes.trees.by_depth.probe_trees",
            "labkit probe structural --data train.conllu",
            "C1",
        ),
        "Amnesic probing": Method(
            "probes.use.interventions.forget", "", "C1", "probes.use.directions"
        ),
        "Moving along a probe": Method("probes.use.interventions.move"),
        "Cloze by depth": Method("probes.cloze.objects.Cloze", "labkit cloze", "C2"),
        "Translators": Method(
            "probes.cloze.translator_fit.TranslatorFit",
            "labkit cloze --lens translated",
            "C2",
            "probes.cloze.translators",
        ),
        "Linear relations": Method("probes.relations.linear.LinearRelation"),
        "Scores of linear relations": Method("probes.relations.relation_scores.ScoreRelations"),
    },
    "In-context learning": {
        "Demonstrations": Method(
            f"{BEHAVIOUR}.demonstrations.Demonstrations",
            "labkit icl --task capital --conditions gold,random,permuted --k 0,1,2,4,8",
            "C9",
            f"{BEHAVIOUR}.conditions",
        ),
        "Gains of tasks": Method(f"{BEHAVIOUR}.gains.Gains", "", "C9"),
        "Choice of demonstrations": Method(
            f"{BEHAVIOUR}.choice.Choice", "labkit icl choice --task topic", "C13"
        ),
        "Order of demonstrations": Method(
            f"{BEHAVIOUR}.ordering.Orders", "labkit icl order --task sentiment --k 4", "C13"
        ),
        "Instructions": Method(
            f"{BEHAVIOUR}.instructions.Instructions", "labkit icl instruct --task antonym", "C14"
        ),
        "Influence of a demonstration": Method(f"{INSIDE}.influence.Influence", "", "C13"),
        "Heads switched off": Method(f"{INSIDE}.heads.HeadAblation", "", "C12"),
        "Labels as anchors": Method(f"{INSIDE}.anchors.Anchors", "", "C12 C19"),
        "Task vectors": Method(f"{INSIDE}.task_vectors.TaskVectors"),
        "Function vectors": Method(f"{INSIDE}.function_vectors.FunctionVectors", "", "C12"),
        "Trajectories of labels": Method(f"{INSIDE}.trajectories.Trajectories"),
        "In-context learning as fine-tuning": Method(
            f"{IMPLICIT}.finetuning.FineTuningComparison", "", "C11"
        ),
        "Least-squares learners": Method(
            f"{IMPLICIT}.regression.CompareLearners",
            "",
            "C10",
            f"{IMPLICIT}.regression_learners",
        ),
        "Attention as gradient descent": Method(f"{IMPLICIT}.descent.Descend", "", "C10 C11"),
    },
}
"""By part and title, every method with a page."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def slug(title: str) -> str:
    """The name of a method's page."""
    return "".join(sign if sign.isalnum() else "-" for sign in title.lower())


def pages(app: Sphinx) -> None:
    """One file per method, and a table of them."""
    source = Path(app.srcdir)
    folder = source / "methods"
    keep = {write(folder / "index.rst", "\n".join(index()) + "\n")}
    for methods in METHODS_BY_PART.values():
        for title, method in methods.items():
            text = "\n".join(page(title, method, source)) + "\n"
            keep.add(write(folder / f"{slug(title)}.rst", text))
    for stale in set(folder.glob("*.*")) - keep:
        stale.unlink()


def index() -> Iterator[str]:
    """The table of all methods, part by part."""
    yield from ("Methods", "=======", "")
    yield "What each method computes, what that shows and what it does not, and what it measured."
    yield ""
    for part, methods in METHODS_BY_PART.items():
        yield from (part, "-" * len(part), "", ".. list-table::", "   :header-rows: 1")
        yield from ("   :widths: 22 46 18 14", "   :class: methods", "")
        yield from ("   * - Method", "     - What it shows", "     - Paper", "     - Room")
        for title, method in methods.items():
            yield from index_row(title, slug(title), method)
        yield from ("", ".. toctree::", "   :hidden:", "")
        yield from (f"   {slug(title)}" for title in methods)
        yield ""
