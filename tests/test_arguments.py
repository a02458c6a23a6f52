"""Arguments of another kind, or in another order, are one line before any work."""

import importlib
import inspect
from pathlib import Path

import pytest

from editing import METHODS, ROME, diff, export_hf, known_cases, undo
from labkit import CausalTrace, Rewrite, case_of, predict
from labkit.arguments import checked
from labkit.errors import LabkitError, WrongArgument
from labkit.facts.worlds import demo_case_of, facts_of
from labkit.memories import find_triggers, neuron_card
from labkit.models.model import LabModel

ROOT = Path(__file__).resolve().parents[1]


def public():
    """Everything behind a door that takes a model first: functions, and methods to be called."""
    found = {}
    for package in ("labkit", "probes", "editing"):
        for path in sorted((ROOT / package).rglob("__init__.py")):
            door = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
            for name in getattr(door, "__all__", ()):
                value = getattr(door, name)
                function = (
                    value.__call__ if inspect.isclass(value) and name != "LabModel" else value
                )
                if inspect.isfunction(function):
                    taken = inspect.signature(function).parameters.values()
                    first = next((p for p in taken if p.name != "self"), None)
                    if first is not None and first.annotation in (LabModel, "LabModel"):
                        found[f"{value.__module__}.{name}"] = value
    return found


PUBLIC = public()


def instance(value):
    """A method with its defaults; a class whose fields have none is made without them."""
    try:
        return value()
    except TypeError:
        return object.__new__(value)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_was_never_opened_is_no_model(name, unchecked):
    value = PUBLIC[name]
    call = instance(value) if inspect.isclass(value) else value
    taken = list(inspect.signature(call).parameters.values())[1:]
    needed = {
        p.name: None for p in taken if p.default is p.empty and p.kind is not p.VAR_POSITIONAL
    }
    with pytest.raises(LabkitError, match="opened by labkit.load.*the text 'pocket'") as caught:
        call("pocket", **needed)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_there_are_many_of_them():
    assert len(PUBLIC) > 60


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, r: known_cases(m, facts_of(m)), "n is a whole number, not a list"),
        (lambda m, r: known_cases(3, m), r"known_cases\(model, n, \.\.\.\): model is .*the int 3"),
        (lambda m, r: known_cases(m), "missing a required argument: 'n'"),
        (lambda m, r: undo(r, "x"), "edits is a WeightDelta.* or a list.*not a Rewrite"),
        (lambda m, r: export_hf("out", m, r), "model is a model.*the text 'out'"),
        (lambda m, r: export_hf(m, "out", r), "delta is a WeightDelta.*the text 'out'"),
        (lambda m, r: diff("out", m), "base is a model.*not the text 'out'"),
        (lambda m, r: case_of(r, m), "model is a model.*not a Rewrite"),
        (lambda m, r: case_of(m, r, neighbour=["a"]), "unexpected keyword argument 'neighbour'"),
        (lambda m, r: predict(m, ["a", "b"]), "prompt is text, not a list of 2 .str.: one call"),
        (lambda m, r: CausalTrace()(m, "text"), r"CausalTrace\(\)\(model, fact.*Fact.from_prompt"),
        (lambda m, r: ROME()(m, demo_case_of(m)), r"ROME\(\)\(model.*rewrite is case.rewrite"),
        (lambda m, r: ROME()(r, m), "model is a model.*not a Rewrite"),
        (lambda m, r: find_triggers(m, 3), "layers is a list.*the int 3"),
        (lambda m, r: neuron_card(m, 1), "missing a required argument: 'neuron'"),
        (lambda m, r: neuron_card(m, "1", 2), "layer is a whole number, not the text '1'"),
    ],
)
def test_each_message_says_what_was_expected_and_got(pocket, no_forward, unchecked, call, said):
    with pytest.raises(WrongArgument, match=said) as caught:
        call(pocket, A_REWRITE)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


A_REWRITE = Rewrite.from_prompt("What Nobody likes is", "Nobody", "bread")


def test_what_fits_comes_through_as_it_is():
    seen = []

    @checked
    def asked(model: LabModel, *layers: int, names: "list[str] | None" = None, **more: int) -> int:
        seen.append((layers, names, more))
        return len(layers)

    class Stand:
        tokenizer = None

    assert asked(Stand(), 1, 2, names=["a"], k=3) == 2
    assert seen == [((1, 2), ["a"], {"k": 3})]
    with pytest.raises(WrongArgument, match="layers is a whole number, not the text '2'"):
        asked(Stand(), 1, "2")
    with pytest.raises(WrongArgument, match="names is a list.* or None, not the text 'a'"):
        asked(Stand(), names="a")
    assert inspect.signature(asked).parameters["layers"].annotation is int


def test_an_error_of_the_function_itself_is_its_own():
    @checked
    def divides(n: int) -> float:
        return 1 / n

    with pytest.raises(ZeroDivisionError):
        divides(0)


@pytest.mark.parametrize("name", METHODS)
def test_one_rewrite_is_a_list_of_one(name, tiny, monkeypatch):
    """What a method is asked for is the same list; the work is stopped where it would begin."""
    asked = []

    class Stop(Exception):
        pass

    def note(requests, *_):
        asked.append(list(requests))
        raise Stop

    method = METHODS[name]()
    module = importlib.import_module(
        next(c.__module__ for c in type(method).__mro__ if "__call__" in vars(c))
    )
    if hasattr(module, "rewrites_only"):
        monkeypatch.setattr(module, "rewrites_only", note)
    else:
        monkeypatch.setattr(type(method), "require", lambda self, requests: note(requests))
    for given in (A_REWRITE, [A_REWRITE]):
        with pytest.raises(Stop):
            method(tiny("llama"), given)
    assert asked == [[A_REWRITE], [A_REWRITE]]
