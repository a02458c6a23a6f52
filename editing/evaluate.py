"""The audit of an editor: every case edited alone, read, and undone.

One code path for every method, and for the unedited model beside it. The unit of intervals
is the case: a case's own prompts are averaged first. Only the unedited model's perplexity,
which no case changes, has its interval over pieces of text.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from editing.comparison import Comparison
from editing.delta import WeightDelta, applied
from editing.readings import (
    GENERATED_TOKENS,
    METRICS,
    PIECE,
    Reading,
    questions,
    read,
    text_nll,
)
from labkit import stats
from labkit.corpus import Progress, held_out
from labkit.errors import InputError
from labkit.facts import Case, Rewrite
from labkit.models import LabModel
from labkit.results import RunDirectory
from labkit.stats import Estimate
from labkit.tokens import target_ids

Editor = Callable[[LabModel, Sequence[Rewrite]], WeightDelta]
"""A method: it returns a change and leaves the model alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Comparison):
    """What an audit of some cases found.

    Attributes:
        records: One a case: `case_id`, `before` and `after` (readings), `nll_after` (held-out
            text under the edited model, nats per token, mean over pieces), `seconds` of the
            edit.
        nll_before: Held-out text under the unedited model, nats per token, by piece.
        method: Name of the method.
        config: Its fields.
        model: Name of the model.
        fingerprint: Fingerprint of the model.
        seed: Seed of the intervals.
    """

    unit = "case"
    text_units: ClassVar[dict[str, str]] = {
        "unedited": PIECE,
        "edited": "case (the same text each time)",
        "change_in_nats_per_token": "case (mean over the same text each time)",
    }

    records: tuple[dict[str, Any], ...]
    nll_before: Float[np.ndarray, " piece"]
    method: str
    config: dict[str, Any]
    model: str
    fingerprint: str
    seed: int

    @property
    def title(self) -> str:
        """Method, model and number of cases, in one line."""
        return f"{self.method} on {self.model}: {len(self.records)} cases, each edited alone"

    def estimate(self, state: str, reading: str, metric: str) -> Estimate | None:
        """Mean over cases with its interval; None where no case has such a prompt."""
        if metric == "score":
            return self._score(state, reading)
        values = self.values(state, reading, metric)
        return stats.bootstrap(values, seed=self.seed) if values else None

    def values(self, state: str, reading: str, metric: str) -> list[float]:
        """One number a case, for the cases that have it."""
        found = (record[state].get(reading, {}).get(metric) for record in self.records)
        return [value for value in found if value is not None]

    def _score(self, state: str, reading: str) -> Estimate | None:
        """Harmonic mean of the three metrics, its interval by resampling whole cases."""
        rows = [
            [record[state].get(reading, {}).get(metric) for metric in METRICS]
            for record in self.records
        ]
        array = np.array([row for row in rows if None not in row], dtype=float)
        if not len(array):
            return None
        draw = stats.numpy_generator(self.seed, "score", len(array))
        picks = draw.integers(len(array), size=(2000, len(array)))
        means = array[picks].mean(axis=1)
        tail = 50 * (1 - stats.CONFIDENCE)
        low, high = np.percentile([_harmonic(m) for m in means], [tail, 100 - tail])
        return Estimate(_harmonic(array.mean(axis=0)), float(low), float(high), len(array))

    def nll(self, state: str) -> Estimate:
        """Nats per token of held-out text: over its pieces unedited, over cases edited."""
        if state == "before":
            return stats.bootstrap(self.nll_before, seed=self.seed)
        return stats.bootstrap([r["nll_after"] for r in self.records], seed=self.seed)

    @property
    def nll_change(self) -> Estimate:
        """Edited minus unedited, in nats per token, with an interval over cases.

        Each case is read on the same text as the unedited model. The texts' own differences
        cancel, and what is left is how much the edits differ.
        """
        after = [record["nll_after"] for record in self.records]
        before = [self.nll_before.mean()] * len(after)
        return stats.paired_difference(after, before, seed=self.seed)[0]

    def metrics(self) -> dict[str, Any]:
        """The summary that `labkit evaluate --json` writes."""
        seconds = [record["seconds"] for record in self.records]
        return {
            "n": len(self.records),
            **super().metrics(),
            "seconds_per_edit": {
                "median": statistics.median(seconds),
                "low": min(seconds),
                "high": max(seconds),
            },
            "method": self.method,
            "config": self.config,
            "model": self.model,
            "fingerprint": self.fingerprint,
        }


def evaluate(
    model: LabModel,
    method: Editor,
    cases: Sequence[Case],
    *,
    seed: int = 0,
    n_tokens: int = GENERATED_TOKENS,
    held_out_texts: Sequence[str] | None = None,
    run: RunDirectory | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Edit each case alone, read it before and after, undo.

    Args:
        model: The model; afterwards it is what it was.
        method: An editor with, where edits share something, a `prepare(model)`.
        cases: The cases.
        seed: Seed of the intervals.
        n_tokens: Length of free continuations; 0 leaves that reading out.
        held_out_texts: Text for perplexity; by default the model's (`labkit.corpus`).
        run: A run directory: finished cases are kept there, and skipped when resuming.
        progress: Called before each case.

    Raises:
        InputError: If there are no cases.
        LabkitError: Whatever a malformed case raises; all cases are looked at first.
    """
    if not cases:
        raise InputError("there are no cases to evaluate")
    for case in cases:
        validate(model, case)
    texts = held_out(model) if held_out_texts is None else held_out_texts
    prepare = getattr(method, "prepare", None)
    shared = {} if prepare is None else {"prepared": prepare(model, progress=progress)}
    done = {} if run is None else {record["case_id"]: record for record in run.cases()}
    nll_before = _text_nll(model, texts)
    records = []
    for number, case in enumerate(cases):
        if progress is not None:
            progress(
                f"case {number + 1} of {len(cases)}: {case.rewrite.subject}", number / len(cases)
            )
        record = done.get(case.case_id)
        if record is None:
            record = _one(model, method, case, shared, n_tokens, texts)
            if run is not None:
                run.append_case(record)
        records.append(record)
    return Evaluation(
        records=tuple(records),
        nll_before=nll_before,
        method=type(method).__name__,
        config=asdict(method) if is_dataclass(method) and not isinstance(method, type) else {},
        model=model.name,
        fingerprint=model.fingerprint,
        seed=seed,
    )


def validate(model: LabModel, case: Case) -> None:
    """Refuse a case that would fail half-way.

    Raises:
        SubjectNotFound, EmptyTarget, EmptyPrompt: See `labkit.tokens`.
    """
    rewrite = case.rewrite
    model.span(rewrite.prompt, rewrite.subject, at=rewrite.subject_start)
    for question in questions(case):
        model.ids(question.prompt)
        target_ids(model.tokenizer, question.prompt, question.wanted)
        if question.rival is not None:
            target_ids(model.tokenizer, question.prompt, question.rival)


def _one(
    model: LabModel,
    method: Editor,
    case: Case,
    shared: Mapping[str, Any],
    n_tokens: int,
    texts: Sequence[str],
) -> dict[str, Any]:
    """Edit one case, read it, undo."""
    before = _read(model, case, n_tokens)
    start = time.perf_counter()
    delta = method(model, [case.rewrite], **shared)
    seconds = time.perf_counter() - start
    with applied(model, delta):
        after = _read(model, case, n_tokens)
        nll_after = float(_text_nll(model, texts).mean())
    return {
        "case_id": case.case_id,
        "rewrite": asdict(case.rewrite),
        "before": before,
        "after": after,
        "nll_after": nll_after,
        "seconds": seconds,
        "edit": {k: v for k, v in delta.provenance.items() if isinstance(v, int | float)},
    }


def _read(model: LabModel, case: Case, n_tokens: int) -> Reading:
    """All readings of a case, under whatever weights the model has now."""
    return read(model, [case], n_tokens=n_tokens)[0]


def _text_nll(model: LabModel, texts: Sequence[str]) -> Float[np.ndarray, " piece"]:
    """Nats per token by piece; in 64 bits, so that no change is a change of exactly 0."""
    return text_nll(model, texts).double().numpy()


def _harmonic(values: Sequence[float] | np.ndarray) -> float:
    """Harmonic mean; 0 if one of the values is."""
    array = np.asarray(values, dtype=float)
    return float(len(array) / (1 / array).sum()) if (array > 0).all() else 0.0
