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

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from editing.evaluation.evaluation_result import Evaluation
from editing.evaluation.many_cases import evaluate, validate
from editing.evaluation.method_comparison import UNEDITED, MethodComparison
from editing.evaluation.method_report import report
from editing.evaluation.method_table import compared
from editing.evaluation.protocols import FAILURES, Editor, ProtocolName, fields_of, require
from editing.readings.asking import GENERATED_TOKENS
from editing.readings.side_effects import SideEffects
from editing.readings.unedited import Unedited
from labkit.errors import InputError, SingularSystem
from labkit.facts.chains import Chains
from labkit.facts.fact import Case
from labkit.facts.records import to_record
from labkit.models.model import LabModel
from labkit.progress import Progress, part_of
from labkit.results.result import RunDirectory, dumps
from labkit.running.opened import require_opened
from labkit.text.corpus import Corpus, held_out

ENDS = (*FAILURES, SingularSystem)
"""What ends one method and not the comparison."""


def compare_methods(
    model: LabModel,
    methods: Mapping[str, Editor],
    cases: Sequence[Case],
    *,
    protocol: ProtocolName = "single",
    chunk: int = 1,
    seed: int = 0,
    n_tokens: int = GENERATED_TOKENS,
    held_out_texts: Sequence[str] | None = None,
    side_effects: SideEffects | None = None,
    chains: Chains | None = None,
    corpus: Corpus | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> MethodComparison:
    """Evaluate several methods, or one with several settings, on the same cases.

        rewrite = Rewrite.from_prompt("The Louvre is in the city of", "Louvre", "Rome", "Paris")
        case = case_of(model, rewrite, neighbours=["The Prado is in the city of"])
        found = compare_methods(model, {"at 3": ROME(layer=3), "at 5": ROME(layer=5)}, [case])
        found.figure()          # or found.table, found.tests; with out="folder", a report too

    Args:
        model: The model; it is restored afterwards.
        methods: Editors by a name of your choice, as the table will show them.
        cases: The cases, a list of one too: `labkit.case_of` makes one of a rewrite.
        protocol: See `editing.evaluation.many_cases`.
        chunk: Rewrites per call of the sequential protocol.
        seed: Seed of intervals and permutations.
        n_tokens: Length of free continuations; 0 leaves that reading out.
        held_out_texts: Text for perplexity; by default the model's (`labkit.text.corpus`).
        side_effects: What else to measure; None leaves it out.
        chains: Facts from which to ask for what follows from each rewrite
            (`labkit.facts.chains.chains_of`); None leaves portability out.
        corpus: The text behind what the methods prepare; by default the model's own.
        out: A folder for the results; an existing run of the same comparison is resumed.
        progress: Called before each edit and each reading.

    Raises:
        InputError: If there is no method, one is called "unedited" or like a folder, or
            whatever `editing.evaluation.many_cases` refuses, before any work.
        OutputError: If the folder holds something else.
        FingerprintMismatch: If it holds the same comparison of another model.
    """
    require_opened(model)
    check(methods, cases, protocol, chunk)
    for case in cases:
        validate(model, case)
    texts = tuple(held_out(model) if held_out_texts is None else held_out_texts)
    common: dict[str, Any] = {
        "command": "evaluate",
        "protocol": protocol,
        "chunk": chunk,
        "seed": seed,
        "tokens": n_tokens,
        "cases": [case.case_id for case in cases],
        "cases_digest": digest([to_record(case) for case in cases]),
        "texts_digest": digest(list(texts)),
        "side_effects": None if side_effects is None else asdict(side_effects),
        "portability": chains is not None,
    }
    if corpus is not None:
        common["corpus"] = corpus.digest
    described = {name: describe(method) for name, method in methods.items()}
    kept: Any = nullcontext()
    if out is not None:
        kept = RunDirectory.session(out, {**common, "methods": described}, model, resume=True)
    with kept as whole:
        result = _compared(
            model, methods, cases, common, texts, side_effects, chains, corpus, out, progress
        )
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
    common: Mapping[str, Any],
    texts: Sequence[str],
    side_effects: SideEffects | None,
    chains: Chains | None,
    corpus: Corpus | None,
    out: str | Path | None,
    progress: Progress | None,
) -> MethodComparison:
    """Evaluate the methods one after the other, each in a run directory of its own."""
    unedited = Unedited(
        model=model,
        texts=tuple(texts),
        n_tokens=common["tokens"],
        side_effects=side_effects,
        chains=chains,
        exclude=tuple(case.rewrite for case in cases),
        run=_run(out, UNEDITED, common, model),
    )
    found: dict[str, Evaluation] = {}
    ended: dict[str, str] = {}
    for number, (name, method) in enumerate(methods.items()):
        told = part_of(progress, number / len(methods), 1 / len(methods), f"{name}, ")
        run = _run(out, f"methods/{name}", {**common, "methods": {name: describe(method)}}, model)
        try:
            found[name] = evaluate(
                model,
                method,
                cases,
                protocol=common["protocol"],
                chunk=common["chunk"],
                seed=common["seed"],
                unedited=unedited,
                corpus=corpus,
                run=run,
                progress=told,
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
    return compared(found, ended=ended, seed=common["seed"])


def check(methods: Mapping[str, Editor], cases: Sequence[Case], protocol: str, chunk: int) -> None:
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
        if not name or name == UNEDITED or name in (".", "..") or set(name) & set("/\\"):
            raise InputError(f"the name {name!r} of a method cannot name a row and a folder")
        require(method, cases, protocol, chunk)


def describe(method: Editor) -> dict[str, Any]:
    """A method's class and fields."""
    return {"method": type(method).__name__, **fields_of(method)}


def _run(
    out: str | Path | None, name: str, config: Mapping[str, Any], model: LabModel
) -> RunDirectory | None:
    return (
        None if out is None else RunDirectory.create(Path(out) / name, config, model, resume=True)
    )


def digest(value: Any) -> str:
    """sha256 of what a run depends on, as JSON."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()
