"""Run several methods on the same cases, and set them side by side.

A folder of such a comparison is a run directory with one more for each method:

    config.json, environment.json, metrics.json
    table.csv, tests.csv             what was found, tidy
    report.html                      the same for a reader
    unedited/                        the unedited model's readings, shared by all methods
    methods/ROME/                    cases.jsonl, edits/, curve.json: see
    `editing.evaluation.many_cases`

A killed comparison goes on where it was.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from editing.evaluation.evaluation_result import Evaluation
from editing.evaluation.many_cases import evaluate, validate
from editing.evaluation.method_comparison import UNEDITED, MethodComparison
from editing.evaluation.method_report import report
from editing.evaluation.method_table import compared
from editing.evaluation.options import USUAL, EvaluationOptions
from editing.evaluation.protocols import FAILURES, Editor, fields_of, require
from labkit.arguments import require_kind
from labkit.errors import InputError, SingularSystem
from labkit.facts.fact import Case
from labkit.models.model import LabModel
from labkit.progress import Progress, part_of
from labkit.results.result import RunDirectory

ENDS = (*FAILURES, SingularSystem)
"""What ends one method and not the comparison."""


def compare_methods(
    model: LabModel,
    methods: Mapping[str, Editor],
    cases: Sequence[Case],
    how: EvaluationOptions = USUAL,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> MethodComparison:
    """Evaluate several methods, or one with several settings, on the same cases.

        rewrite = Rewrite.from_prompt("The Louvre is in the city of", "Louvre", "Rome", "Paris")
        case = case_of(model, rewrite, neighbours=["The Prado is in the city of"])
        found = compare_methods(model, {"at 3": ROME(layer=3), "at 5": ROME(layer=5)}, [case])
        found.wide()            # every number; found.verdict in words, found.figure(), found.tests

    Args:
        model: The model; it is restored afterwards.
        methods: Editors by a name of your choice, as the table will show them.
        cases: The cases, a list of one too: `labkit.case_of` makes one of a rewrite.
        how: Protocol, held-out text, side effects, seed and the rest, as `EvaluationOptions`
            lists them; by default each case is edited alone.
        out: A folder for the results; an existing run of the same comparison is resumed.
        progress: Called before each edit and each reading.

    Raises:
        InputError: If there is no method, one is called "unedited" or like a folder, or
            whatever `editing.evaluation.many_cases` refuses, before any work.
        OutputError: If the folder holds something else.
        FingerprintMismatch: If it holds the same comparison of another model.
    """
    require_kind("model", model, LabModel)
    check(methods, cases, how)
    for case in cases:
        validate(model, case)
    kept: Any = nullcontext()
    if out is not None:
        kept = RunDirectory.session(out, _config(model, methods, cases, how), model, resume=True)
    with kept as whole:
        result = _compared(model, methods, cases, how, out, progress)
        if whole is not None:
            whole.write_metrics(result.metrics())
            whole.write_text("table.csv", result.table.to_csv(index=False))
            whole.write_text("tests.csv", result.tests.to_csv(index=False))
            whole.write_text("report.html", report(result, whole.environment).html())
    return result


def _compared(
    model: LabModel,
    methods: Mapping[str, Editor],
    cases: Sequence[Case],
    how: EvaluationOptions,
    out: str | Path | None,
    progress: Progress | None,
) -> MethodComparison:
    """Evaluate the methods one after the other, each in a run directory of its own."""

    def place(folder: str, some: Mapping[str, Editor]) -> RunDirectory | None:
        if out is None:
            return None
        config = _config(model, some, cases, how)
        return RunDirectory.create(Path(out) / folder, config, model, resume=True)

    unedited = how.unedited(model, cases, run=place(UNEDITED, {}))
    found: dict[str, Evaluation] = {}
    ended: dict[str, str] = {}
    for number, (name, method) in enumerate(methods.items()):
        told = part_of(progress, number / len(methods), 1 / len(methods), f"{name}, ")
        run = place(f"methods/{name}", {name: method})
        try:
            found[name] = evaluate(
                model, method, cases, how, unedited=unedited, run=run, progress=told
            )
        except ENDS as error:
            if len(methods) == 1:
                raise
            ended[name] = f"{type(error).__name__}: {error}"
        else:
            if run is not None:
                run.write_metrics(found[name].metrics())
    if not found:
        raise InputError(f"every method failed: {ended}")
    return compared(found, ended=ended, seed=how.seed)


def check(methods: Mapping[str, Editor], cases: Sequence[Case], how: EvaluationOptions) -> None:
    """Refuse a comparison that could not be made, before a model is opened.

    Raises:
        InputError: See `compare_methods`.
    """
    if not isinstance(methods, Mapping):
        raise InputError(
            "methods come with a name each, as the table will show them: "
            "compare_methods(model, {'layer 3': ROME(layer=3), 'layer 5': ROME(layer=5)}, [case])"
        )
    if not methods:
        raise InputError("there is no method to evaluate")
    for name, method in methods.items():
        if not isinstance(name, str):
            raise InputError(f"a method's name is text, such as 'layer 3', not {name!r}")
        if not name or name == UNEDITED or name in (".", "..") or set(name) & set("/\\"):
            raise InputError(f"the name {name!r} of a method cannot name a row and a folder")
        require(method, cases, how)


def describe(method: Editor) -> dict[str, Any]:
    """A method's class and fields."""
    return {"method": type(method).__name__, **fields_of(method)}


def _config(
    model: LabModel, methods: Mapping[str, Editor], cases: Sequence[Case], how: EvaluationOptions
) -> dict[str, Any]:
    """What a run directory records of a comparison, or of a part of it."""
    described = {name: describe(method) for name, method in methods.items()}
    return {"command": "evaluate", "methods": described, **how.record(model, cases)}
