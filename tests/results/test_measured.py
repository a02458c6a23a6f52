"""Every result of a model says which weights it was measured on: those in effect at the time."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest

import labkit
from editing.edits.applying import applied
from editing.evaluation.many_cases import evaluate
from editing.evaluation.method_table import compared
from editing.evaluation.one_edit import audit
from editing.evaluation.options import EvaluationOptions
from editing.export.checkpoint import export_hf
from editing.export.reopening import check_export
from labkit.facts.fact import Case, Fact, Rewrite
from labkit.icl import Demonstrations, task
from labkit.locate.attention.head_kinds import head_scores
from labkit.locate.attention.patterns import attention_patterns
from labkit.locate.traces.tracing import CausalTrace
from labkit.memories.composition import contributions
from labkit.readout import Predictions, logit_lens, predict
from labkit.results.measured import Measured, measured_on
from probes.cloze.objects import Cloze
from probes.probing.by_depth import probe
from probes.probing.configuration import Probing
from probes.sentences.own import language
from probes.tasks.task import Example, Task
from probes.trees.by_depth import probe_trees
from probes.trees.configuration import TreeProbing
from tests.laws.cached import delta_of

PROMPT = "the cat is in"
FACTS = [
    Fact(subject=subject, template="the {} is in", object=" the", relation="r")
    for subject in ("cat", "dog", "hen")
]
CASE = Case(
    case_id="cat",
    rewrite=Rewrite(subject="cat", template="the {} is in", target_new="Rome"),
    paraphrases=("One finds the cat in",),
    neighbours=(),
)
TEXTS = ("the cat is in the house of the king", "in the sea")
WORDS = ("the cat", "a dog", "the dog", "a cat", "the hen", "a hen", "the ship", "a ship")
ARTICLES = Task(
    name="articles",
    family="lexical",
    texts=WORDS,
    examples=tuple(
        Example(text=n, span=(0, text.index(" ")), label=text[0], group=str(n), item=text[0])
        for n, text in enumerate(WORDS)
    ),
    source="by hand",
    held_out=(4, 5, 6, 7),
)


class Editor:
    """An editor whose change is always the same."""

    def __call__(self, model, rewrites):
        return delta_of(model, layer=2, scale=0.1)


def evaluation(model):
    return evaluate(model, Editor(), [CASE], EvaluationOptions(n_tokens=0, held_out_texts=TEXTS))


def export(model, folder):
    delta = delta_of(model, layer=2, scale=0.1)
    export_hf(model, delta, folder / "export")
    return check_export(model, delta, folder / "export")


MEASURED = {
    "predictions": lambda model, _: predict(model, PROMPT),
    "lens": lambda model, _: logit_lens(model, PROMPT),
    "trace": lambda model, _: CausalTrace(samples=2)(model, FACTS[0]),
    "patterns": lambda model, _: attention_patterns(model, PROMPT, [0]),
    "head scores": lambda model, _: head_scores(model, length=4, n_sequences=2),
    "contributions": lambda model, _: contributions(model, PROMPT),
    "demonstrations": lambda model, _: Demonstrations(ks=(0,), draws=1, queries=2)(
        model, task("topic")
    ),
    "audit": lambda model, _: audit(
        model, Editor()(model, []), CASE, n_tokens=0, held_out_texts=TEXTS
    ),
    "evaluation": lambda model, _: evaluation(model),
    "comparison of methods": lambda model, _: compared({"editor": evaluation(model)}),
    "export": export,
    "cloze": lambda model, _: Cloze()(model, FACTS),
    "probe": lambda model, _: probe(model, ARTICLES, Probing(depths=[0], controls=False)),
    "trees": lambda model, _: probe_trees(
        model,
        language(12, part="train", seed=1),
        TreeProbing(rank=2, epochs=1, depths=[0], controls=False),
    ),
}


@pytest.mark.parametrize("what", MEASURED)
def test_a_result_has_the_fingerprint_of_the_weights_in_effect(tiny, own_cache, tmp_path, what):
    model, measure = tiny("gpt2"), MEASURED[what]
    assert measure(model, tmp_path / "own").fingerprint == model.fingerprint
    with applied(model, delta_of(model, scale=0.5)):
        found = measure(model, tmp_path / "edited")
        assert found.fingerprint == model.in_effect != model.fingerprint
    assert isinstance(found, Measured) and found.model == model.name


def test_what_is_computed_from_a_result_is_of_the_same_weights(tiny):
    model = tiny("gpt2")
    with applied(model, delta_of(model)):
        found = predict(model, PROMPT)
    assert measured_on(found) == {"model": model.name, "fingerprint": found.fingerprint}
    assert measured_on(found) != measured_on(model)


def test_the_two_fields_are_declared_once():
    root = Path(labkit.__file__).parents[1]
    declared = [
        (path.relative_to(root).as_posix(), kind.name)
        for room in ("labkit", "editing", "probes")
        for path in sorted((root / room).rglob("*.py"))
        for kind in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(kind, ast.ClassDef)
        and {"model", "fingerprint"} <= {ast.unparse(n.target) for n in kind.body
                                         if isinstance(n, ast.AnnAssign)}
    ]  # fmt: skip
    assert declared == [
        ("labkit/results/measured.py", "MeasuredOn"),
        ("labkit/results/measured.py", "Measured"),
    ]


def test_a_saved_result_is_read_whatever_the_order_of_its_fields(tiny, tmp_path):
    found = predict(tiny("gpt2"), PROMPT, k=3)
    path = found.save(tmp_path / "found") / "result.json"
    header = json.loads(path.read_text(encoding="utf-8"))
    assert set(header["fields"]) == {field.name for field in dataclasses.fields(found)}
    header["fields"] = dict(reversed(header["fields"].items()))
    path.write_text(json.dumps(header), encoding="utf-8")
    assert Predictions.load(tmp_path / "found") == found
