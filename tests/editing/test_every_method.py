"""Every method through its whole life: edited, applied, kept, carried away, reloaded, undone,
and evaluated under every protocol, three cases each. A method is a row of `METHODS`."""

import json

import pytest
import torch
from gguf import GGUFReader

from editing import (
    METHODS,
    InContext,
    LowRank,
    WeightDelta,
    applied,
    evaluate,
    export_gguf,
    export_hf,
    export_peft,
    in_effect,
    undo,
    undo_checkpoint,
)
from editing.edits.provenance import RESERVED, of_edit
from editing.evaluation.options import PROTOCOLS, EvaluationOptions
from editing.export.options import ExportOptions
from labkit import load
from labkit import pocket as world
from labkit.errors import InputError, MalformedRecord
from labkit.facts.fact import Case, Neighbour, Rewrite
from labkit.results.result import RunDirectory
from tests.editing.conftest import FAST
from tests.editing.export.test_export_gguf import write_base
from tests.reference import full_logits

TEXTS = ("the baker sees the farmer in the mill",)
ONE_AT_A_TIME = {"rome"}
"""Methods that take one subject per call, which the batch protocol cannot be run with."""


@pytest.fixture(scope="module")
def facts():
    """Four facts of the pocket world, each with the object of the next one."""
    found = [f for f in world.facts() if f.relation == "landmark_city"]
    own = {f.object: f for f in found}  # one of each object
    return list(own.values())[:4]


@pytest.fixture(scope="module")
def rewrites(facts):
    new = [fact.object for fact in facts[1:]] + [facts[0].object]
    return [Rewrite.from_fact(fact, obj) for fact, obj in zip(facts, new, strict=True)]


@pytest.fixture(scope="module")
def cases(facts, rewrites):
    """Three cases, and the fourth fact as the neighbour of each."""
    near = (Neighbour(prompt=facts[3].prompt, object=facts[3].object),)
    return [
        Case(case_id=str(n), rewrite=rewrite, paraphrases=(rewrite.prompt,), neighbours=near)
        for n, rewrite in enumerate(rewrites[:3])
    ]


@pytest.fixture
def made(pocket, name, method, rewrites):
    """Two edits by one method, the second on top of the first, and both as one."""
    prepared = method.prepare(pocket)
    first = method(pocket, rewrites[:1], prepared=prepared)
    with applied(pocket, first):
        second = method(pocket, rewrites[1:2], prepared=prepared, after=first)
    return first, second, first.then(second)


def says(model, rewrite):
    return full_logits(model, model.tokens([rewrite.prompt]))


def test_it_is_composed_kept_carried_away_reloaded_and_taken_back(
    pocket, name, made, rewrites, tmp_path
):
    first, second, both = made
    before = says(pocket, rewrites[0])
    with applied(pocket, both):
        edited = says(pocket, rewrites[0])
    assert not torch.equal(edited, before)
    assert torch.equal(says(pocket, rewrites[0]), before)

    assert [len(delta.steps) for delta in made] == [1, 1, 2]
    assert [step["digest"] for step in both.steps] == [first.digest, second.digest]
    assert [asked["subject"] for asked in both.rewrites] == [r.subject for r in rewrites[:2]]
    for delta, where in ((first, "first"), (both, "both")):
        again = WeightDelta.load(delta.save(tmp_path / where))
        assert again.digest == delta.digest
        assert json.loads(json.dumps(again.steps)) == json.loads(json.dumps(delta.steps))

    folder = export_hf(pocket, WeightDelta.load(tmp_path / "both"), tmp_path / "hf")
    opened = load(str(folder))
    torch.testing.assert_close(says(opened, rewrites[0]), edited, rtol=1e-4, atol=1e-4)
    assert type(METHODS[name]()).__name__ in (folder / "README.md").read_text()

    answer = undo_checkpoint(folder, second, tmp_path / "without")
    low_rank = all(isinstance(change, LowRank) for change in both.changes.values())
    assert answer.exact == low_rank and answer.remaining == 1
    assert answer.weights["largest"].max() < 1e-6
    with applied(pocket, first):
        alone = says(pocket, rewrites[0])
    torch.testing.assert_close(
        says(load(str(tmp_path / "without")), rewrites[0]), alone, rtol=1e-4, atol=1e-4
    )
    left, _ = undo(both, second)
    assert [step["digest"] for step in left.steps] == [first.digest]
    with applied(pocket, left):
        torch.testing.assert_close(says(pocket, rewrites[0]), alone, rtol=1e-4, atol=1e-4)


def test_it_leaves_as_an_adapter_where_its_rank_is_low(pocket, name, made, tmp_path):
    *_, both = made
    if all(isinstance(change, LowRank) for change in both.changes.values()):
        folder = export_peft(pocket, both, tmp_path / "adapter")
        steps = json.loads((folder / "labkit.json").read_text())["steps"]
        assert [step["method"] for step in steps] == [type(METHODS[name]()).__name__] * 2
    else:
        with pytest.raises(InputError, match="dense"):
            export_peft(pocket, both, tmp_path / "adapter")
        assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", METHODS)
def test_it_is_evaluated_under_every_protocol_and_resumed(pocket, name, cases, protocol, tmp_path):
    method = METHODS[name](**FAST[name])
    if protocol == "batch" and name in ONE_AT_A_TIME:
        with pytest.raises(InputError, match="exactly one"):
            evaluate(pocket, method, cases, EvaluationOptions(protocol=protocol))
        return

    def run(directory):
        how = EvaluationOptions(protocol=protocol, held_out_texts=TEXTS, n_tokens=0)
        place = RunDirectory.create(directory, {"method": name}, pocket, resume=True)
        return evaluate(pocket, method, cases, how, run=place)

    found = run(tmp_path / "run")
    assert len(found.records) == 3 and not found.failures
    calls = {"single": 0, "batch": 1, "sequential": 3}[protocol]
    kept = sorted((tmp_path / "run").glob("edits/*/delta.json"))
    assert len(kept) == (0 if isinstance(method, InContext) else calls)
    for record in kept:
        WeightDelta.load(record.parent)
    again = run(tmp_path / "run")
    assert again.metrics()["success"] == found.metrics()["success"]


def test_what_a_method_reports_has_no_name_with_another_meaning(pocket, rewrites):
    for name in METHODS:
        method = METHODS[name](**FAST[name])
        said = method(pocket, rewrites[:1]).provenance
        reported = set(said) - {"method", "config", "rewrites", "model", "labkit"}
        assert reported.isdisjoint(RESERVED)
    with pytest.raises(ValueError, match="steps"):
        of_edit(method, pocket, rewrites[:1], steps=3)


def test_a_delta_whose_steps_are_a_number_is_refused_when_it_is_read(pocket, rewrites, tmp_path):
    delta = METHODS["ft"](**FAST["ft"])(pocket, rewrites[:1])
    path = delta.save(tmp_path / "delta") / "delta.json"
    header = json.loads(path.read_text())
    header["provenance"]["steps"] = 7
    path.write_text(json.dumps(header))
    with pytest.raises(MalformedRecord, match="list of edits"):
        WeightDelta.load(tmp_path / "delta")


def test_a_prompt_edit_composes_and_is_in_effect(pocket, rewrites):
    method = METHODS["in_context"]()
    first, second = (method(pocket, [rewrite]) for rewrite in rewrites[:2])
    both = first.then(second)
    assert [s["method"] for s in both.provenance["steps"]] == ["InContext", "InContext"]
    with in_effect(pocket, both) as prompt:
        assert prompt(rewrites[0].prompt).endswith(rewrites[0].prompt)


def test_it_goes_into_a_gguf_file(pocket, name, made, tmp_path):
    write_base(pocket, tmp_path / "base.gguf")
    folder = export_gguf(
        pocket, made[2], tmp_path / "out", ExportOptions(check=False), base=tmp_path / "base.gguf"
    )
    found = {t.name: torch.tensor(t.data.copy()) for t in GGUFReader(folder / "model.gguf").tensors}
    weights = dict(pocket.hf.named_parameters())
    for parameter, change in made[2].changes.items():
        layer = parameter.split(".")[2]
        stored = found[f"blk.{layer}.ffn_down.weight"]
        torch.testing.assert_close(stored, weights[parameter] + change.dense())
