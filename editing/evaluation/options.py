"""How a method is evaluated: how its edits add up, and what is read of the edited model."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from editing.readings.asking import GENERATED_TOKENS
from editing.readings.side_effects import SideEffects
from editing.readings.unedited import Unedited
from labkit.errors import InputError
from labkit.facts.chains import Chains
from labkit.facts.fact import Case
from labkit.facts.records import to_record
from labkit.models.model import LabModel
from labkit.results.result import RunDirectory, dumps
from labkit.text.corpus import Corpus, held_out

ProtocolName = Literal["single", "batch", "sequential"]
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)

_KINDS = {"side_effects": SideEffects, "chains": Chains, "corpus": Corpus}
"""Fields that are objects, and of which class."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How `evaluate` and `compare_methods` make and judge edits.

        evaluate(model, ROME(), cases, EvaluationOptions(protocol="sequential", chunk=10))

    Attributes:
        protocol: "single" (default): each case is edited alone and read. "batch": all rewrites
            in one call. "sequential": one call after another, each on top of the earlier ones.
            The last two are read on the final state.
        chunk: Rewrites per call of the sequential protocol, 1 or more; by default 1.
        seed: Seed of intervals and permutations; by default 0.
        n_tokens: Length of free continuations, in tokens; by default 16, and 0 leaves that
            reading out.
        held_out_texts: Texts for perplexity; by default the model's (`labkit.text.corpus`).
        side_effects: The side effects to measure (`SideEffects()`), on the final state or, in
            the single protocol, after every edit (`SideEffects.quick()` is meant for that); None
            (default) leaves them out.
        chains: Facts from which to ask for what follows from each rewrite
            (`labkit.facts.worlds.chains_of(model)`); None (default) leaves portability out.
        corpus: The text from which methods are prepared; by default the model's own.

    Raises:
        InputError: If there is no such protocol or chunk, a number is negative or no whole
            number, there is no held-out text, or a field is of another kind.
    """

    protocol: ProtocolName = "single"
    chunk: int = 1
    seed: int = 0
    n_tokens: int = GENERATED_TOKENS
    held_out_texts: Sequence[str] | None = None
    side_effects: SideEffects | None = None
    chains: Chains | None = None
    corpus: Corpus | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be evaluated."""
        if self.protocol not in PROTOCOLS:
            raise InputError(f"protocol {self.protocol!r}: one of {', '.join(PROTOCOLS)}")
        for name in ("chunk", "seed", "n_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise InputError(f"{name} {value!r}: a whole number")
        if self.chunk < 1 or (self.chunk > 1 and self.protocol != "sequential"):
            raise InputError(
                f"chunk {self.chunk}: rewrites per call of the sequential protocol, at least one; "
                "single takes one, batch all"
            )
        if self.n_tokens < 0:
            raise InputError(f"n_tokens {self.n_tokens}: tokens of free continuations, 0 or more")
        if self.held_out_texts is not None and not _texts(self.held_out_texts):
            raise InputError("held_out_texts are a list of texts, one that is not empty at least")
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                shown = value.__name__ if isinstance(value, type) else type(value).__name__
                raise InputError(f"{name}: {kind.__name__}(...) or None, not {shown}")

    def calls(self, cases: Sequence[Case]) -> list[tuple[Case, ...]]:
        """The cases by call of the method."""
        size = {"single": 1, "batch": len(cases), "sequential": self.chunk}[self.protocol]
        return [tuple(cases[i : i + size]) for i in range(0, len(cases), size)]

    def texts(self, model: LabModel) -> tuple[str, ...]:
        """The held-out text: the one that was named, or the model's own."""
        return tuple(held_out(model) if self.held_out_texts is None else self.held_out_texts)

    def unedited(
        self, model: LabModel, cases: Sequence[Case], *, run: RunDirectory | None = None
    ) -> Unedited:
        """The unedited model, to be read as these options say.

        Args:
            model: The model.
            cases: The cases; no side effect is measured on a fact that they are about.
            run: A run directory in which its readings are kept.
        """
        return Unedited(
            model=model,
            texts=self.texts(model),
            n_tokens=self.n_tokens,
            side_effects=self.side_effects,
            chains=self.chains,
            exclude=tuple(case.rewrite for case in cases),
            run=run,
        )

    def record(self, model: LabModel, cases: Sequence[Case]) -> dict[str, Any]:
        """What a run directory records of an evaluation beside the method, as JSON.

        Two evaluations whose readings may differ have different records; texts, cases, facts
        and the corpus are named by their sha256.
        """
        return {
            "cases": [case.case_id for case in cases],
            "cases_digest": digest([to_record(case) for case in cases]),
            "protocol": self.protocol,
            "chunk": self.chunk,
            "seed": self.seed,
            "n_tokens": self.n_tokens,
            "texts_digest": digest(list(self.texts(model))),
            "side_effects": None if self.side_effects is None else asdict(self.side_effects),
            "chains": None if self.chains is None else self.chains.digest,
            "corpus": None if self.corpus is None else self.corpus.digest,
        }


USUAL = EvaluationOptions()
"""Each case alone, with the model's own held-out text."""


def _texts(value: object) -> bool:
    """Whether this is a list of texts, not all of them empty."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(text, str) for text in value) and any(text.strip() for text in value)


def digest(value: Any) -> str:
    """sha256 of what a run depends on, as JSON."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()
